"""Entropy-gated latent recursion for EleutherAI's lm-evaluation-harness."""
