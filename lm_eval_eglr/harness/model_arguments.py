"""The arguments of hf-eglr: its own, those of a request, those that may go through to transformers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from lm_eval_eglr.decoding.pool_decoder import RECURSION_OPTIONS, SAMPLING_OPTIONS
from lm_eval_eglr.decoding.strategies.options import STRATEGY_OPTIONS

DECODING_OPTIONS = (*STRATEGY_OPTIONS, *RECURSION_OPTIONS, *SAMPLING_OPTIONS)
OWN_OPTIONS = (
    *("strategy", *STRATEGY_OPTIONS, "rollouts", "trace", "selector", "cuda_graphs"),
    *RECURSION_OPTIONS,
    *SAMPLING_OPTIONS,
)
DRAW_OPTIONS = ("top_p", "top_k", "min_p")
GENERATION_OPTIONS = ("do_sample", "temperature", *DRAW_OPTIONS, "until", "max_gen_toks")
# Settings of a generation config that change greedy text and that the engine does not know.
UNAPPLIED = (
    "repetition_penalty",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "sequence_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "min_length",
    "min_new_tokens",
    "guidance_scale",
    "num_beams",
)
NEUTRAL: tuple[Any, ...] = (None, 0, 1, [], {})
# What HFLM takes as **kwargs and hands on to from_pretrained. A list, because from_pretrained itself
# either ignores an argument it does not know or fails in the model's constructor.
FROM_PRETRAINED = (
    "attn_implementation",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "cache_dir",
    "config",
    "device_map",
    "force_download",
    "load_in_4bit",
    "load_in_8bit",
    "local_files_only",
    "low_cpu_mem_usage",
    "max_memory",
    "proxies",
    "quantization_config",
    "token",
    "use_safetensors",
    "variant",
)


def refuse_unknown(kwargs: Mapping[str, Any], own: Iterable[str], hflm: Iterable[str]) -> None:
    """Raises ValueError for the first argument that nobody takes, with the nearest one that somebody does."""
    allowed = {*own, *hflm, *FROM_PRETRAINED}
    for key, value in kwargs.items():
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(
                f"{key}={value!r}: unknown argument of hf-eglr; {hint}its own are {', '.join(own)}; "
                f"all arguments of hf are allowed too"
            )
