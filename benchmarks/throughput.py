"""Generation speed: this engine beside transformers and lm_eval, interleaved in one process.

    EGLR_DATA_DIR=... python benchmarks/throughput.py --model FOLDER --gguf FILE --prompts 4

Systems, each with the same number of rollouts of the same GSM8K prompts and the same token limit:

    grid          this engine, spans × temperatures, the gate set so that --gate-rate of tokens is recursed
    temperature   this engine, temperatures only
    grid-no-tree  the grid with the rollout tree off
    generate      transformers' generate with num_return_sequences, at its best of several batch sizes
    generate-static   the same with a static cache, which transformers compiles on a GPU; compiled beforehand
    batching      transformers' generate_batch (continuous batching), where it runs
    lm_eval       stock lm_eval --model hf with repeats

Prints seconds, tokens per second, sharing, gate rate, and ratios between the systems of one round, as medians
over the rounds; --json FILE keeps everything. Absolute times are this machine's; only ratios travel. On a
GPU the largest memory that torch allocated is printed too, weights included.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models_and_prompts import TEMPERATURE, load_model, load_prompts, model_parser
from transformers import GenerationConfig

from lm_eval_eglr.calibration import calibrate, measured_gate_rate
from lm_eval_eglr.decoding import PoolDecoder


def arguments() -> argparse.Namespace:
    parser = model_parser(__doc__)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--spans", default="0:2:4:8")
    parser.add_argument("--samples", type=int, default=4, help="temperatures per span")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--noise", default="independent", choices=["independent", "shared"])
    parser.add_argument("--gate-rate", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4], help="prompts per generate call")
    parser.add_argument(
        "--systems",
        nargs="+",
        default=["grid", "temperature", "grid-no-tree", "generate", "batching", "lm_eval"],
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Systems:
    """The systems by name; each call returns the figures of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.model, self.tokenizer = load_model(options)
        self.prompts = load_prompts(self.tokenizer, options.prompts)
        self.per_prompt = len(options.spans.split(":")) * options.samples
        self.threshold = self._threshold()
        self._compiled = False

    def _threshold(self) -> float:
        """Entropy that this share of plain tokens exceeds."""
        decoder = PoolDecoder(
            self.model, self.tokenizer, spans="0", temperatures=[TEMPERATURE] * 4, trace=True
        )
        pools = decoder.generate(self.prompts, max_new_tokens=self.options.max_new_tokens, progress=False)
        return calibrate(pools, self.options.gate_rate).threshold

    def _pools(self, spans: str, samples: int, **changes: Any) -> dict[str, float]:
        decoder = PoolDecoder(
            self.model,
            self.tokenizer,
            spans=spans,
            temperatures=[0.0] + [TEMPERATURE] * (samples - 1),
            entropy_threshold=self.threshold,
            max_rows=self.options.rows,
            noise=self.options.noise,
            **changes,
        )
        start = time.perf_counter()
        pools = decoder.generate(self.prompts, max_new_tokens=self.options.max_new_tokens, progress=False)
        seconds = time.perf_counter() - start
        tokens = sum(pool.cost.tokens for pool in pools)
        return {
            "seconds": seconds,
            "tokens": tokens,
            "sharing": tokens / sum(pool.cost.rows for pool in pools),
            "gate_rate": measured_gate_rate(pools),
            "flops": sum(pool.cost.flops for pool in pools),
        }

    def grid(self) -> dict[str, float]:
        return self._pools(self.options.spans, self.options.samples)

    def grid_no_tree(self) -> dict[str, float]:
        return self._pools(self.options.spans, self.options.samples, share=False)

    def temperature(self) -> dict[str, float]:
        return self._pools("0", self.per_prompt)

    def generate_static(self) -> dict[str, float]:
        if not self._compiled:
            self.generate(cache_implementation="static")
            self._compiled = True
        return self.generate(cache_implementation="static")

    def generate(self, **changes: Any) -> dict[str, float]:
        """Best of several batch sizes; the number of tokens is counted up to each end."""
        best: dict[str, float] = {}
        for batch in self.options.batches:
            if batch > len(self.prompts):
                continue
            torch.manual_seed(0)
            tokens, start = 0, time.perf_counter()
            for first in range(0, len(self.prompts), batch):
                inputs = self.tokenizer(
                    self.prompts[first : first + batch],
                    return_tensors="pt",
                    padding=True,
                    add_special_tokens=False,
                ).to(self.options.device)
                with torch.no_grad():
                    out = self.model.generate(
                        **inputs,
                        do_sample=True,
                        temperature=TEMPERATURE,
                        top_k=0,
                        max_new_tokens=self.options.max_new_tokens,
                        num_return_sequences=self.per_prompt,
                        pad_token_id=self.tokenizer.pad_token_id,
                        **changes,
                    )
                tokens += _count(out[:, inputs.input_ids.shape[1] :].tolist(), self.tokenizer.eos_token_id)
            figures = {"seconds": time.perf_counter() - start, "tokens": tokens, "batch": batch}
            if not best or tokens / figures["seconds"] > best["tokens"] / best["seconds"]:
                best = figures
        return best

    def batching(self) -> dict[str, float]:
        inputs = [
            self.tokenizer(prompt, add_special_tokens=False).input_ids
            for prompt in self.prompts
            for _ in range(self.per_prompt)
        ]
        config = GenerationConfig(
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            max_new_tokens=self.options.max_new_tokens,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        start = time.perf_counter()
        outputs = self.model.generate_batch(inputs, generation_config=config, progress_bar=False)
        tokens = sum(len(output.generated_tokens) for output in outputs.values())
        return {"seconds": time.perf_counter() - start, "tokens": tokens}

    def lm_eval(self) -> dict[str, float]:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        lm = HFLM(
            self.model, tokenizer=self.tokenizer, batch_size=max(self.options.batches) * self.per_prompt
        )
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data.jsonl"
            data.write_text(
                "".join(json.dumps({"text": prompt, "gold": "0"}) + "\n" for prompt in self.prompts)
            )
            (Path(folder) / "speed.yaml").write_text(
                f"task: speed\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
                "test_split: test\noutput_type: generate_until\n"
                'doc_to_text: "{{text}}"\ndoc_to_target: "{{gold}}"\n'
                f"repeats: {self.per_prompt}\n"
                f"generation_kwargs: {{until: [], do_sample: true, temperature: {TEMPERATURE}, top_k: 0, "
                f"max_gen_toks: {self.options.max_new_tokens}}}\n"
                "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
            )
            manager = TaskManager(include_path=folder)
            start = time.perf_counter()
            results = simple_evaluate(
                model=lm, tasks=["speed"], task_manager=manager, bootstrap_iters=0, log_samples=True
            )
            seconds = time.perf_counter() - start
        texts = [
            text for sample in results["samples"]["speed"] for [*texts] in sample["resps"] for text in texts
        ]
        tokens = sum(len(self.tokenizer(text, add_special_tokens=False).input_ids) + 1 for text in texts)
        return {"seconds": seconds, "tokens": tokens}


def _count(rows: list[list[int]], eos: int) -> int:
    return sum(row.index(eos) + 1 if eos in row else len(row) for row in rows)


def main() -> None:
    options = arguments()
    systems = Systems(options)
    rollouts = len(systems.prompts) * systems.per_prompt
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dtype}, "
        f"{rollouts} rollouts, threshold {systems.threshold:.3f} nats"
    )
    on_gpu = systems.model.device.type == "cuda"
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(options.rounds):
        figures: dict[str, dict[str, float]] = {}
        for name in options.systems:
            run: Callable[[], dict[str, float]] = getattr(systems, name.replace("-", "_"))
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                figures[name] = run()
                if on_gpu:
                    figures[name]["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
            except Exception as error:  # what does not run here is said, and the others go on
                print(f"{name}: not run ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
        rounds.append(figures)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    _print_table(rounds, rollouts)
    print(f"peak memory of the process: {peak:.2f} GiB")
    if options.json:
        document = {
            "options": {k: str(v) for k, v in vars(options).items()},
            "threshold": systems.threshold,
            "rounds": rounds,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _median(
    rounds: list[dict[str, dict[str, float]]], figure: Callable[[dict[str, dict[str, float]]], float]
) -> float:
    values = []
    for figures in rounds:
        try:
            values.append(figure(figures))
        except KeyError:
            return float("nan")
    return statistics.median(values)


def _print_table(rounds: list[dict[str, dict[str, float]]], rollouts: int) -> None:
    print(
        f"{'system':15} {'seconds':>8} {'tokens/s':>9} {'s/rollout':>9} {'sharing':>8} {'gate rate':>9} "
        f"{'GPU GiB':>8}"
    )
    for name in rounds[0]:
        seconds = _median(rounds, lambda f, n=name: f[n]["seconds"])
        speed = _median(rounds, lambda f, n=name: f[n]["tokens"] / f[n]["seconds"])
        sharing = rounds[0][name].get("sharing", float("nan"))
        gate = rounds[0][name].get("gate_rate", float("nan"))
        memory = rounds[0][name].get("gpu_gib", float("nan"))
        print(
            f"{name:15} {seconds:8.2f} {speed:9.1f} {seconds / rollouts:9.3f} {sharing:8.2f} {gate:9.2f} "
            f"{memory:8.2f}"
        )
    ratios: dict[str, Callable[[dict[str, dict[str, float]]], float]] = {
        "tokens/s, temperature over generate": lambda f: _speed(f, "temperature") / _speed(f, "generate"),
        "tokens/s, temperature over generate-static": lambda f: (
            _speed(f, "temperature") / _speed(f, "generate-static")
        ),
        "tokens/s, temperature over batching": lambda f: _speed(f, "temperature") / _speed(f, "batching"),
        "rollouts/s, temperature over lm_eval": lambda f: (
            f["lm_eval"]["seconds"] / f["temperature"]["seconds"]
        ),
        "s/rollout, grid over temperature": lambda f: f["grid"]["seconds"] / f["temperature"]["seconds"],
        "s/rollout, grid-no-tree over temperature": lambda f: (
            f["grid-no-tree"]["seconds"] / f["temperature"]["seconds"]
        ),
    }
    for label, ratio in ratios.items():
        print(f"{label:42} {_median(rounds, ratio):6.2f}")


def _speed(figures: dict[str, dict[str, float]], name: str) -> float:
    return figures[name]["tokens"] / figures[name]["seconds"]


if __name__ == "__main__":
    main()
