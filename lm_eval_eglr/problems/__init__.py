"""The data of benchmarks: where problems come from, and how they become prompts."""
