"""What the recursion does to the next token of a reference solution, at the positions where the gate opens.

    python benchmarks/teacher_forced.py --limit 200
    EGLR_DATA_DIR=data python benchmarks/teacher_forced.py --model FOLDER --dtype bfloat16 --device cuda \
        --task gsm8k_eglr --limit 20

The reference solution of every problem follows its zero-shot prompt; nothing is drawn. Printed is the
negative log-likelihood of the reference's next token, in nats, at all positions whose plain entropy is above
the threshold: of the plain model, and after the recursion with its difference and paired 95 % interval over
problems.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version

import numpy as np
import torch
from eglr_selectors import Cell, Rollout
from eglr_selectors.estimators import bootstrap
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.harness import plugin
from lm_eval_eglr.paths import resolve, tasks_folder
from lm_eval_eglr.problems.prompts import zero_shot_prompt

RULES: dict[str, dict[str, object]] = {
    "`anchored`, α = 0.1": {"update": "anchored", "strength": 0.1},
    "`anchored`, α = 0.2": {"update": "anchored", "strength": 0.2},
    "`anchored`, α = 0.5": {"update": "anchored", "strength": 0.5},
    "`damped`, α = 0.3": {"update": "damped", "strength": 0.3},
    "`replace`": {"update": "replace"},
}


def problems_of(task: str, limit: int) -> list[tuple[str, str]]:
    """Problems of a task with their reference solutions."""
    from lm_eval.tasks import TaskManager

    plugin.install()
    manager = TaskManager(include_path=str(tasks_folder()), include_defaults=False)
    docs = manager.load([task])["tasks"][task].eval_docs
    found = [(str(doc["problem"]), str(doc["solution"])) for doc in docs if doc.get("solution")]
    if not found:
        raise ValueError(f"task={task!r}: its problems have no solutions")
    return found[:limit]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo", help="Hub name or folder")
    parser.add_argument("--dtype", default="float32", help="type of the weights, as transformers names it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--task", default="demo_eglr")
    parser.add_argument("--limit", type=int, default=20, help="problems")
    parser.add_argument("--threshold", type=float, default=0.5, help="gate, nats")
    parser.add_argument("--spans", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(resolve(arguments.model))
    model = AutoModelForCausalLM.from_pretrained(resolve(arguments.model), dtype=arguments.dtype)
    model = model.to(arguments.device).eval()
    pairs = problems_of(arguments.task, arguments.limit)
    chat = bool(getattr(tokenizer, "chat_template", None))
    prompts = [zero_shot_prompt(problem) for problem, _ in pairs]
    asked = [[{"role": "user", "content": text}] for text in prompts] if chat else prompts
    if chat:
        prompts = [
            tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in asked
        ]
    heads = [tokenizer(text, add_special_tokens=not chat).input_ids for text in prompts]
    answers = [tuple(tokenizer(text, add_special_tokens=False).input_ids) for _, text in pairs]
    decoders = {
        name: PoolDecoder(model, tokenizer, entropy_threshold=arguments.threshold, **options)  # type: ignore[arg-type]
        for name, options in RULES.items()
    }
    first = next(iter(decoders.values()))

    def of(decoder: PoolDecoder, span: int) -> list[np.ndarray]:
        return [
            -np.array(decoder.logprobs(prompt, Rollout("", Cell(span=span), tokens=tokens)))
            for prompt, tokens in zip(asked, answers, strict=True)
        ]

    plain = of(first, 0)
    gates = [
        gated(model, head, tokens, arguments.threshold) for head, tokens in zip(heads, answers, strict=True)
    ]
    count, everything = sum(int(gate.sum()) for gate in gates), sum(map(len, gates))
    print(f"{count} of {everything} positions above {arguments.threshold:g} nats, {len(pairs)} problems")
    print(f"plain NLL there {mean_at(plain, gates):.3f} nats\n")
    print("| rule | span | NLL | less plain | |\n|:--|--:|--:|--:|--:|")
    for name, decoder in decoders.items():
        for span in arguments.spans:
            after = of(decoder, span)
            # A problem's sum over its gated positions is what is resampled; the mean is per position.
            gains = np.array([float((a - b)[g].sum()) for a, b, g in zip(after, plain, gates, strict=True)])
            found = bootstrap(gains * len(gains) / count)
            print(
                f"| {name} | {span} | {mean_at(after, gates):.3f} | {found.value:+.3f} | "
                f"{found.low:+.3f} to {found.high:+.3f} |"
            )
    names = ("lm-eval-eglr", "transformers")
    print(f"\n{', '.join(f'{each} {version(each)}' for each in names)}, torch {torch.__version__}")


@torch.no_grad()
def gated(model: torch.nn.Module, head: list[int], tokens: tuple[int, ...], threshold: float) -> np.ndarray:
    """Where the plain model's entropy is above the threshold, ``[tokens]``."""
    ids = torch.tensor([[*head, *tokens]], device=model.device)
    logprobs = model(ids).logits[0, len(head) - 1 : -1].float().log_softmax(-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    return np.asarray((entropies > threshold).cpu().numpy())


def mean_at(values: list[np.ndarray], gates: list[np.ndarray]) -> float:
    """Mean over all gated positions."""
    return float(np.concatenate([each[gate] for each, gate in zip(values, gates, strict=True)]).mean())


if __name__ == "__main__":
    main()
