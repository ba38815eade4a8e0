"""A tiny model and its tokenizer as a folder, as lm_eval's command line wants them, and short runs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lm_eval import simple_evaluate
from tiny_models import EOS, VOCABULARY, byte_tokenizer, tiny_model
from transformers import AutoModelForCausalLM, HrmTextConfig

CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


# Sizes that four processes can share out, also by transformers 5.14, which wants an even vocabulary.
SHARED_SIZES = {"num_key_value_heads": 4, "vocab_size": 260}


def save_tiny_model(
    folder: Path, family: str = "llama", sizes: dict[str, int] | None = None, **generation: Any
) -> str:
    """Saves a model of other ``sizes``; ``generation`` goes into its generation config."""
    model = tiny_model(family, max_position_embeddings=2048, **sizes or {})
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    byte_tokenizer(chat_template=CHAT_TEMPLATE, model_max_length=2048).save_pretrained(folder)
    return str(folder)


def save_recurrent_model(folder: Path) -> str:
    """Saves an HRM-Text of two high cycles, which are its recurrences."""
    config = HrmTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        head_dim=8,
        num_layers_per_stack=1,
        L_cycles=2,
        H_cycles=2,
        L_bp_cycles=[2],
        max_position_embeddings=2048,
        eos_token_id=EOS,
        pad_token_id=EOS,
        initializer_range=0.2,
        embedding_scale=5.0,
        prefix_lm=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer(chat_template=CHAT_TEMPLATE, model_max_length=2048).save_pretrained(folder)
    return str(folder)


def evaluate_tiny(folder: str, options: str = "", tokens: int = 12, **changes: Any) -> dict[str, Any]:
    """Runs two problems of the demo task with hf-eglr; ``changes`` are arguments of ``simple_evaluate``."""
    arguments: dict[str, Any] = {
        "tasks": ["demo_eglr"],
        "device": "cpu",
        "limit": 2,
        "gen_kwargs": f"max_gen_toks={tokens}",
        "bootstrap_iters": 0,
    }
    model_args = f"pretrained={folder},{options}".rstrip(",")
    results: dict[str, Any] = simple_evaluate(
        model="hf-eglr", model_args=model_args, **{**arguments, **changes}
    )
    return results
