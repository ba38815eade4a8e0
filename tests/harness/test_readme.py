"""The README's notebook block, which no page test can run, and the table of arguments."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lm_eval_eglr.decoding import RecursionConfig, SamplingConfig
from lm_eval_eglr.decoding.strategies.grid import DEFAULT_SPANS, DEFAULT_TEMPERATURES, SHALLOW_SPANS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARGUMENTS = (ROOT / "docs" / "reference" / "arguments.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(word):
    [found] = [text for text in BLOCKS if word in text]
    return found


def test_the_notebook_block_runs(tiny_folder):
    code = block("PoolDecoder").replace("Qwen/Qwen2.5-0.5B-Instruct", tiny_folder)
    code = code.replace("max_new_tokens=256", "max_new_tokens=16")
    names: dict[str, object] = {}
    exec(compile(code, "README", "exec"), names)
    assert len(names["pool"]) == 3 * 4


@pytest.mark.parametrize("config", [RecursionConfig, SamplingConfig])
def test_the_table_of_arguments_has_the_defaults_of_the_code(config):
    rows: dict[str, str] = {}
    for line in ARGUMENTS.splitlines():
        if line.startswith("| `"):
            first, second, *_ = (cell.strip() for cell in line.strip("|").split("|"))
            names = re.findall(r"`(\w+)`", first)
            defaults = [value.strip(" `") for value in second.split(",")]
            if len(names) == len(defaults):
                rows.update(zip(names, defaults, strict=True))
    for field in dataclasses.fields(config):
        default = field.default
        shown = "none" if default is None else default if isinstance(default, str) else f"{default:g}"
        assert rows[field.name] == shown, field.name
    assert (rows["spans"], rows["temperatures"]) == (DEFAULT_SPANS, DEFAULT_TEMPERATURES)
    assert f"`{SHALLOW_SPANS}`" in ARGUMENTS
