"""The scripts of ``examples/demo_model``, imported from their folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "demo_model"))

GENERATOR = importlib.import_module("word_problems")
TOKENIZER = importlib.import_module("word_tokenizer")
TRAINING = importlib.import_module("train_demo_model")
