"""The engine: decodes L × T pools with entropy-gated latent recursion. Knows nothing of lm_eval."""

from lm_eval_eglr.decoding.config import RecursionConfig, SamplingConfig
from lm_eval_eglr.decoding.model.layer_stack import UnsupportedModelError
from lm_eval_eglr.decoding.pool_decoder import PoolDecoder

__all__ = ["PoolDecoder", "RecursionConfig", "SamplingConfig", "UnsupportedModelError"]
