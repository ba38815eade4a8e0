"""Answers the problems of ``demo_eglr`` by the model's own ``generate``, greedily, with each number r.

    python examples/recurrent_model/accuracy.py lm_eval_eglr/demo_recurrent

Nothing of the decode engine takes part. Prints the share of problems that are solved, and its standard error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo_model"))

from train_demo_model import accuracy
from word_problems import HELD_OUT, held_out

from lm_eval_eglr.recurrent import demo_student  # noqa: F401  so that transformers knows the model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of the checkpoint")
    parser.add_argument("--recurrences", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="numbers r")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--count", type=int, default=HELD_OUT, help="number of problems")
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    chosen = held_out(options.count, options.split)
    for recurrences in options.recurrences:
        share = accuracy(model, tokenizer, chosen, num_steps=recurrences)
        error = (share * (1 - share) / len(chosen)) ** 0.5
        print(f"r = {recurrences}: {share:.1%} (standard error {error:.1%})", flush=True)


if __name__ == "__main__":
    main()
