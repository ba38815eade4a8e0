"""Compares trained models with the demo model that they began from, on problems that no curve shows.

    python examples/grpo/evaluate.py /tmp/grpo/*

Each problem is answered greedily and by several samples at temperature 1. The problems are of the validation
split but of another stream than those of ``train.py``, so nothing was chosen by them.
"""

from __future__ import annotations

import argparse
from statistics import mean

from transformers import AutoModelForCausalLM, AutoTokenizer
from validation import OPERATIONS, accuracies, rise, some_problems

from lm_eval_eglr.paths import DEMO_FOLDER

STREAM = 1


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints a Markdown table: percent, and gains in points with their standard errors over problems."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    chosen = some_problems("validation", STREAM, arguments.operations, arguments.problems)
    print("| model | samples | gain | greedy | gain |", "| --- " * 5 + "|", sep="\n", flush=True)
    before: tuple[list[float], list[float]] | None = None
    for name in [str(DEMO_FOLDER), *arguments.models]:
        model = AutoModelForCausalLM.from_pretrained(name)
        found = accuracies(model, tokenizer, chosen, samples=arguments.samples, tokens=arguments.tokens)
        cells = ["demo" if before is None else name]
        for column, values in enumerate(found):
            cells.append(f"{100 * mean(values):.1f}")
            gain, error = rise(before[column], values) if before else (0.0, 0.0)
            cells.append(f"{100 * gain:+.1f} ± {100 * error:.1f}" if before else "")
        before = before or found
        print("| " + " | ".join(cells) + " |", flush=True)


def read_arguments() -> argparse.Namespace:
    """The options; their defaults are those of the table that the tutorial reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="folders that train.py wrote")
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--samples", type=int, default=8, help="of each problem, at temperature 1")
    parser.add_argument("--operations", type=int, default=2, choices=OPERATIONS, help="of each problem")
    parser.add_argument("--tokens", type=int, default=48, help="most tokens of a rollout")
    arguments = parser.parse_args()
    for name, least in (("problems", 2), ("samples", 1), ("tokens", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name}={getattr(arguments, name)}: expected {least} or more")
    return arguments


if __name__ == "__main__":
    evaluate(read_arguments())
