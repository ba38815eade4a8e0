"""What benchmarks of the engine share: a model from the command line or a stub, and prompts of GSM8K."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

TEMPERATURE = 0.7


def model_parser(description: str | None, devices: list[str] | None = None) -> argparse.ArgumentParser:
    """A parser with the options that :func:`load_model` reads, on ``devices`` or on any."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu", choices=devices)
    parser.add_argument(
        "--random-weights", action="store_true", help="the shape of --model with weights drawn at random"
    )
    return parser


def load_prompts(tokenizer: Any, count: int) -> list[str]:
    folder = os.environ.get("EGLR_DATA_DIR")
    if not folder:
        sys.exit("EGLR_DATA_DIR: set it to a folder that holds gsm8k.jsonl")
    lines = (Path(folder) / "gsm8k.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    texts = [json.loads(line)["problem"] + "\nReason step by step." for line in lines]
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in texts
    ]


def load_model(options: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer that the options of :func:`model_parser` name."""
    loading = {"gguf_file": options.gguf} if options.gguf else {}
    tokenizer = AutoTokenizer.from_pretrained(options.model, **loading)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "left"
    dtype = getattr(torch, options.dtype)
    if options.random_weights:
        torch.manual_seed(0)
        with torch.device(options.device):
            config = AutoConfig.from_pretrained(options.model)
            return AutoModelForCausalLM.from_config(config, dtype=dtype).eval(), tokenizer
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, **loading)
    return model.to(options.device).eval(), tokenizer


def stub_model() -> LlamaForCausalLM:
    """Two layers of 16: what is measured is everything around the model."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        initializer_range=0.4,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def stub_tokenizer() -> PreTrainedTokenizerFast:
    """One character per token."""
    from tokenizers import Tokenizer, decoders, models

    letters = {chr(48 + number): number for number in range(64)}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
