"""The arguments of hf-eglr: its own, those of a request, those that may go through to transformers."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

from lm_eval_eglr.decoding.strategies import (
    RECURRENT_OPTIONS,
    RECURSION_OPTIONS,
    REMOVED_OPTIONS,
    SAMPLING_OPTIONS,
    STRATEGY_OPTIONS,
    unset_by_default,
)

DECODING_OPTIONS = (
    *(*STRATEGY_OPTIONS, *RECURSION_OPTIONS, *RECURRENT_OPTIONS),
    *(*SAMPLING_OPTIONS, *REMOVED_OPTIONS),
)
OWN_OPTIONS = (
    *("strategy", *STRATEGY_OPTIONS, "rollouts", "trace", "selector", "cuda_graphs", "compile_layers"),
    *("max_rows", "tp_size"),
    *dict.fromkeys((*RECURSION_OPTIONS, *RECURRENT_OPTIONS)),
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


# Arguments of hf that need a package which is not installed with this one: argument, package, extra.
OPTIONAL = (("gguf_file", "gguf", "gguf"), ("peft", "peft", "peft"))


def require_extras(kwargs: Mapping[str, Any]) -> None:
    """Raises ModuleNotFoundError if an argument needs a package that is not there, with what to install."""
    for argument, package, extra in OPTIONAL:
        if kwargs.get(argument) and importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"{argument}={kwargs[argument]!r}: needs {package}: pip install 'lm-eval-eglr[{extra}]'",
                name=package,
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


def refuse_empty(arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for the first argument whose value is empty, as after a variable that is not set."""
    for key, value in arguments.items():
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"{key}={value!r}: expected a value; is a variable not set?")


def as_typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Decoding options as they were typed: lm_eval makes ``None`` of ``budget=none`` and ``exit=none``.

    ``None`` stays where it is the default.
    """
    unset = unset_by_default()
    return {key: "none" if value is None and key not in unset else value for key, value in options.items()}


def check_batch_size(value: Any) -> None:
    """Raises ValueError for anything but a whole number of at least 1, ``auto`` or ``auto:N``."""
    text = str(value)
    first, _, schedule = text.partition(":")
    if first == "auto" and (not schedule or schedule.replace(".", "", 1).isdecimal()) and text != "auto:":
        return
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise ValueError(f"batch_size={value!r}: expected a whole number >= 1, or auto")


def check_max_rows(value: Any) -> None:
    """Raises ValueError for anything but ``pool`` or a whole number of at least 1; ``None`` was not given."""
    if value is None or value == "pool":
        return
    if isinstance(value, bool) or not str(value).isdecimal() or int(value) < 1:
        raise ValueError(f"max_rows={value!r}: expected a whole number >= 1, or pool")


def check_store_folder(value: Any) -> str:
    """Returns the folder of ``rollouts=``.

    Raises:
        ValueError: If it is none: lm_eval makes numbers and truth values of ``12`` and ``true``.
    """
    if not isinstance(value, str):
        raise ValueError(f"rollouts={value!r}: expected the name of a folder, such as ./{value}")
    return value


BITS_AND_BYTES = ("load_in_4bit", "load_in_8bit")


def quantization(arguments: dict[str, Any]) -> Any:
    """Takes the quantization out of the arguments and makes transformers' configuration of it.

    ``load_in_4bit=True`` and the ``bnb_4bit_...`` options are no arguments of ``from_pretrained`` any more,
    and HFLM hands ``quantization_config`` on twice.

    Returns:
        The configuration; ``None`` if there is none.

    Raises:
        ValueError: If it is no mapping, or no configuration that transformers knows.
    """
    own = {
        key: arguments.pop(key) for key in list(arguments) if key in BITS_AND_BYTES or key.startswith("bnb_")
    }
    given = arguments.pop("quantization_config", None)
    if given is not None and own:
        raise ValueError(f"{next(iter(own))}: quantization_config is given too; say it there")
    if not own and (given is None or not isinstance(given, str | Mapping)):
        return given
    if isinstance(given, str):
        raise ValueError(
            f"quantization_config={given!r}: expected a mapping, as --config or JSON can give it: "
            '{"quant_method": "bitsandbytes", "load_in_4bit": true}'
        )
    from transformers.quantizers import AutoQuantizationConfig

    settings = dict(given) if given is not None else {"quant_method": "bitsandbytes", **own}
    try:
        return AutoQuantizationConfig.from_dict(settings)
    except Exception as error:
        raise ValueError(f"quantization_config={settings!r}: {error}") from error


def loading_error(pretrained: Any, error: Exception) -> ValueError:
    """What a user is told of a model that could not be loaded, in one line."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "trust_remote_code" in str(error) and "trust_remote_code" not in reason:
        reason = f"{reason.rstrip(' .')}; if you trust that code, add trust_remote_code=True"
    return ValueError(f"pretrained={pretrained!r} cannot be loaded: {reason}")
