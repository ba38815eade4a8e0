"""Other engines whose plain samples become pools: vLLM in this process, servers with OpenAI's interface."""
