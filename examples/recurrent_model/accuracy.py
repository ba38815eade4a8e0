"""Answers the problems of ``demo_eglr`` by the model's own ``generate``, greedily, with each number r.

    python examples/recurrent_model/accuracy.py lm_eval_eglr/demo_recurrent

Nothing of the decode engine takes part. Prints the share of problems that are solved, its standard error, and
the loss of the worked solutions; with ``--loss-only`` the loss alone, which is quick.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo_model"))

from train_demo_model import IGNORED, accuracy, chat
from word_problems import HELD_OUT, WordProblem, held_out
from word_tokenizer import END

from lm_eval_eglr.recurrent import demo_student  # noqa: F401  so that transformers knows the model


@torch.no_grad()
def solution_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, chosen: list[WordProblem], recurrences: int
) -> float:
    """Returns the mean loss of the tokens of the worked solutions, in nats."""
    total, count = 0.0, 0
    for each in chosen:
        prompt, solution = tokenizer([chat(each), each.solution + END]).input_ids
        labels = torch.tensor([[IGNORED] * len(prompt) + solution])
        output = model(torch.tensor([prompt + solution]), labels=labels, num_steps=recurrences)
        total, count = total + output.loss.item() * len(solution), count + len(solution)
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of the checkpoint")
    parser.add_argument("--recurrences", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="numbers r")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--count", type=int, default=HELD_OUT, help="number of problems")
    parser.add_argument("--loss-only", action="store_true", help="do not answer the problems")
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    chosen = held_out(options.count, options.split)
    for recurrences in options.recurrences:
        loss = solution_loss(model, tokenizer, chosen, recurrences)
        if options.loss_only:
            print(f"r = {recurrences}: loss {loss:.3f}", flush=True)
            continue
        share = accuracy(model, tokenizer, chosen, num_steps=recurrences)
        error = (share * (1 - share) / len(chosen)) ** 0.5
        print(f"r = {recurrences}: {share:.1%} (standard error {error:.1%}), loss {loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
