"""Which arguments may go through to transformers when a model is loaded; all others are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

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
