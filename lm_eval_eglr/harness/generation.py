"""The generation options of a request: which a pool takes, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval_eglr.harness.model_arguments import DRAW_OPTIONS, GENERATION_OPTIONS

LENGTH = "max_gen_toks"
LENGTH_ALIASES = ("max_new_tokens", "max_tokens", "max_completion_tokens")


def with_one_length(options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the length limit as ``max_gen_toks``, as our tasks do: lm_eval passes over the other names.

    Raises:
        ValueError: If it is given twice, or is not a whole number of at least 1.
    """
    merged = {key: value for key, value in options.items() if key not in LENGTH_ALIASES}
    for alias in LENGTH_ALIASES:
        if alias in options:
            if LENGTH in merged and merged[LENGTH] != options[alias]:
                raise ValueError(
                    f"gen_kwargs {alias}={options[alias]!r}: {LENGTH}={merged[LENGTH]!r} is given too"
                )
            merged[LENGTH] = options[alias]
    if LENGTH in merged:
        check_length(merged[LENGTH])
    return merged


def check_length(value: Any) -> int:
    """Returns a length limit.

    Raises:
        ValueError: If it is not a whole number of at least 1.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and isinstance(value, str) and value.isdecimal():
        value, whole = int(value), True
    if not whole or value < 1:
        raise ValueError(f"gen_kwargs {LENGTH}={value!r}: expected a whole number >= 1")
    return int(value)


def check_for_pool(options: Mapping[str, Any]) -> None:
    """Refuses what a user gives with ``--gen_kwargs`` and a pool has of its own.

    Raises:
        ValueError: For temperatures and other sampling options, and for what the decoder does not know.
    """
    for key, value in options.items():
        if key in ("do_sample", "temperature"):
            raise ValueError(
                f"gen_kwargs {key}={value!r}: a pool has its own; set it in --model_args (temperatures=...)"
            )
        if key in DRAW_OPTIONS:
            raise ValueError(
                f"gen_kwargs {key}={value!r}: a pool has its own; set it in --model_args ({key}=...)"
            )
        check_known(key, value)
    until = options.get("until", [])
    if not all(isinstance(text, str) for text in ([until] if not isinstance(until, list) else until)):
        raise ValueError(f"gen_kwargs until={until!r}: expected a text or a list of texts")
    with_one_length(options)


def check_known(key: str, value: Any) -> None:
    """Refuses an option that the decoder does not know.

    Raises:
        ValueError: For such an option.
    """
    if key not in (*GENERATION_OPTIONS, *LENGTH_ALIASES):
        allowed = ", ".join(GENERATION_OPTIONS)
        raise ValueError(f"generation_kwargs {key}={value!r}: expected one of {allowed}")
