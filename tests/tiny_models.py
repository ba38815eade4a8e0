"""Tiny randomly initialised models and tokenizers, from the architectures' own config classes."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
    StableLmConfig,
)

EOS = 256
VOCABULARY = 257  # 256 bytes and the end token
DEPTH = 4

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": EOS,
    # Weights large enough that distributions differ from token to token, and layers matter.
    "initializer_range": 0.4,
}
# Untied, or a random Gemma only repeats its last token.
_GEMMA: dict[str, Any] = {
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 8,
    "tie_word_embeddings": False,
}

CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SIZES),
    "llama-tied": LlamaConfig(**_SIZES, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**_SIZES),
    "qwen3": Qwen3Config(**_SIZES, head_dim=8),
    "mistral-sliding": MistralConfig(**_SIZES, sliding_window=8),
    "gemma2-softcap": Gemma2Config(
        **_SIZES, **_GEMMA, attn_logit_softcapping=5.0, final_logit_softcapping=3.0
    ),
    "gemma3": Gemma3TextConfig(**_SIZES, **_GEMMA),
    "phi3": Phi3Config(**_SIZES),
    "olmo2": Olmo2Config(**_SIZES),
    "granite": GraniteConfig(
        **_SIZES,
        logits_scaling=2.0,
        residual_multiplier=0.5,
        embedding_multiplier=3.0,
        attention_multiplier=0.2,
    ),
    "cohere": CohereConfig(**_SIZES, logit_scale=0.5),
    "stablelm": StableLmConfig(**_SIZES),
    "smollm3": SmolLM3Config(**_SIZES),
    "gpt-neox": GPTNeoXConfig(**{**_SIZES, "num_key_value_heads": 4}),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=DEPTH,
        n_head=4,
        n_positions=256,
        bos_token_id=None,
        eos_token_id=EOS,
        initializer_range=0.4,
    ),
    "qwen3-moe": Qwen3MoeConfig(
        **_SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    ),
    # Attention sinks, and layers that alternate between a sliding window and all of the past.
    "gpt-oss": GptOssConfig(
        **_SIZES,
        head_dim=8,
        sliding_window=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    ),
    "mixtral": MixtralConfig(**_SIZES, num_local_experts=4, num_experts_per_tok=2),
}


def tiny_model(family: str = "llama", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A randomly initialised model, in fp32 and in evaluation mode."""
    config = type(CONFIGS[family])(**{**CONFIGS[family].to_dict(), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Not every version of transformers soft-caps attention scores in its fused implementation.
        attention = "eager" if family == "gemma2-softcap" else None
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
        return model.eval()


def byte_tokenizer(**changes: Any) -> PreTrainedTokenizerFast:
    """One token per byte, so that characters and stop strings span several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: number for number, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", **changes
    )
