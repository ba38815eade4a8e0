"""Everything that wants a GPU, in one command: the tests of the engine, and every row of the speed table.

    python benchmarks/gpu_check.py            # on a GPU, under eight minutes
    python benchmarks/gpu_check.py --small    # on any machine: the same with stub shapes, to see that it runs

Models have the shapes of Qwen2.5 with 3 and 1.5 billion parameters and random weights in bfloat16, so
nothing is downloaded. 32 prompts × 16 rollouts of 128 tokens each are decoded; no end token is obeyed.
Prints one table last:

    temperatures only, tokens/s        32 prompts × 16 samples at temperature 0.7 over vLLM
    the same prompts with n=16 in vLLM, where it can be imported grid over temperatures only        seconds
    per rollout, 20 % of the tokens gated, with the tree and without step over its floor
    seconds of a step over (weights + keys and values) / copy bandwidth device idle
    share of a run in which no kernel runs, by torch's profiler
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models_and_prompts import stub_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from lm_eval_eglr.decoding import PoolDecoder

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("test_step_graphs.py", "test_stored_telemetry.py", "test_shortage.py", "test_host_work.py")
SHAPES: dict[str, dict[str, int]] = {
    "3B": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
    },
    "1.5B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
}
STUB = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


class Check:
    """The runs of one machine, and the table that comes of them."""

    def __init__(self, small: bool, seconds: float) -> None:
        self.small = small
        self.end = time.monotonic() + seconds
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.float32 if small else torch.bfloat16
        self.vocabulary = 512 if small else 151_936
        self.tokens = 12 if small else 128
        self.prompts = [chr(48 + n) * (4 + n % 5 if small else 60 + 4 * n) for n in range(4 if small else 32)]
        self.samples = 4 if small else 16
        self.lines: list[tuple[str, str, str]] = []

    def row(self, what: str, measure: Callable[[], str], target: str) -> None:
        """Measures one row, and says so where time is up or it fails."""
        if time.monotonic() > self.end:
            found = "not measured: time is up"
        else:
            try:
                found = measure()
            except Exception as error:
                found = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        self.lines.append((what, found, target))
        print(f"{what}: {found} (target {target})", flush=True)

    def model(self, name: str) -> Any:
        """A model of a shape with random weights, which lets go of the one before."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=self.vocabulary,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
            **(STUB if self.small else SHAPES[name]),
        )
        with torch.device(self.device):
            return Qwen2ForCausalLM(config).to(self.dtype).eval()

    def seconds(self, model: Any, rows: int, **options: Any) -> float:
        """Seconds of decoding all prompts, after a short run in which libraries set themselves up."""
        decoder = PoolDecoder(model, stub_tokenizer(), max_rows=rows, **options)
        decoder.generate(self.prompts[:2], max_new_tokens=4, progress=False)
        start = time.perf_counter()
        pools = decoder.generate(self.prompts, max_new_tokens=self.tokens, progress=False)
        spent = time.perf_counter() - start
        assert {len(rollout.tokens) for pool in pools for rollout in pool} == {self.tokens}
        return spent

    def plain(self) -> dict[str, Any]:
        """Options of temperatures only."""
        return {"spans": "0", "temperatures": f"0.7x{self.samples}"}

    def grid(self, model: Any) -> dict[str, Any]:
        """Options of the grid, its gate open at a fifth of the tokens."""
        decoder = PoolDecoder(model, stub_tokenizer(), spans="0", temperatures="0.7x4", trace=True)
        pools = decoder.generate(self.prompts[:4], max_new_tokens=self.tokens // 2, progress=False)
        entropies = [h for pool in pools for rollout in pool for h in rollout.telemetry.token_entropies]
        return {
            "spans": "0:1:2:4" if self.small else "0:2:4:8",
            "temperatures": f"0.7x{self.samples // 4}",
            "entropy_threshold": float(torch.tensor(entropies).quantile(0.8)),
        }

    def floor(self, model: Any, rows: int) -> float:
        """Seconds that reading weights, keys and values of a step would take at the bandwidth of a copy."""
        size = (1 << 20) if self.small else (1 << 30)
        source = torch.empty(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        target.copy_(source)
        self.wait()
        start = time.perf_counter()
        for _ in range(10):
            target.copy_(source)
        self.wait()
        bandwidth = 10 * 2 * size / (time.perf_counter() - start)
        config = model.config
        head = config.hidden_size // config.num_attention_heads
        columns = sum(map(len, self.prompts)) / len(self.prompts) + self.tokens / 2
        per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * self.dtype.itemsize
        weights = sum(parameter.nbytes for parameter in model.parameters())
        return (weights + rows * columns * per_token) / bandwidth

    def wait(self) -> None:
        """Waits for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def idle(self, model: Any, rows: int) -> str:
        """Share of a run in which no kernel runs."""
        if self.device != "cuda":
            return "no GPU"
        from torch.profiler import ProfilerActivity, profile

        decoder = PoolDecoder(model, stub_tokenizer(), max_rows=rows, **self.plain())
        decoder.generate(self.prompts[:2], max_new_tokens=4, progress=False)
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            start = time.perf_counter()
            decoder.generate(self.prompts[: rows // self.samples], max_new_tokens=64, progress=False)
            self.wait()
            spent = time.perf_counter() - start
        busy = sum(event.self_device_time_total for event in recorded.key_averages()) / 1e6
        return f"{1 - min(1.0, busy / spent):.0%}"

    def vllm(self, model: Any, rows: int, ours: float) -> str:
        """Our tokens per second over vLLM's, same prompts, same sampling, weights of no meaning in both."""
        try:
            from vllm import LLM, SamplingParams
        except ImportError:
            return "vLLM is not installed"
        folder = Path("gpu-check-model")
        model.config.save_pretrained(folder)
        engine = LLM(
            str(folder),
            skip_tokenizer_init=True,
            load_format="dummy",
            dtype="bfloat16",
            max_num_seqs=rows,
            max_model_len=1024,
            gpu_memory_utilization=0.5,
        )
        sampling = SamplingParams(
            n=self.samples, temperature=0.7, max_tokens=self.tokens, ignore_eos=True, detokenize=False
        )
        requests = [{"prompt_token_ids": [n % 64] * len(text)} for n, text in enumerate(self.prompts)]
        engine.generate(requests[:1], sampling)
        start = time.perf_counter()
        engine.generate(requests, sampling)
        return f"{(time.perf_counter() - start) / ours:.2f}"

    def speed(self, name: str, rows: int, target: int, *, everything: bool) -> None:
        """The rows of one shape."""
        model = self.model(name)
        count = len(self.prompts) * self.samples
        spent = [0.0]

        def plain() -> str:
            spent[0] = self.seconds(model, rows, **self.plain())
            return f"{count * self.tokens / spent[0]:,.0f}"

        def over_plain(share: bool) -> str:
            found = self.seconds(model, rows, share=share, **grid)
            return f"{found / spent[0]:.2f}"

        def over_floor() -> str:
            steps = -(-count // rows) * self.tokens
            return f"{spent[0] / steps / self.floor(model, rows):.2f}"

        what = f"{name} shape, {rows} rows"
        self.row(f"temperatures only, tokens/s, {what}", plain, f">= {target:,}")
        self.row(f"step over its floor, {what}", over_floor, "<= 2.5")
        if not everything:
            return
        grid = self.grid(model)
        self.row("grid over temperatures only, with the tree", lambda: over_plain(True), "<= 1.3")
        self.row("the same without the tree", lambda: over_plain(False), "<= 1.35")
        self.row("device idle", lambda: self.idle(model, rows), "<= 10 %")
        self.row("tokens/s over vLLM", lambda: self.vllm(model, rows, spent[0]), ">= 0.8")


def tests(small: bool) -> str:
    """The engine's tests; a few of them in a small run."""
    chosen = TESTS[1:2] if small else TESTS
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        *(str(ROOT / "tests" / "decoding" / name) for name in chosen),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", "--dry-run", action="store_true", help="stub shapes, on any machine")
    parser.add_argument("--seconds", type=float, default=420, help="after which no row begins")
    parser.add_argument("--no-tests", action="store_true")
    options = parser.parse_args()
    check = Check(options.small, options.seconds)
    if check.device == "cpu" and not check.small:
        sys.exit("no CUDA device: --small runs the same with stub shapes")
    check.speed("3B", 16 if check.small else 128, 30_000, everything=True)
    check.speed("1.5B", 16 if check.small else 256, 45_000, everything=False)
    if not options.no_tests:
        check.row("tests of the engine", lambda: tests(check.small), "all pass")
    where = torch.cuda.get_device_name() if check.device == "cuda" else "CPU, stub shapes"
    print(f"\n{where}, torch {torch.__version__}\n\n| | measured | target |\n| --- | --: | --: |")
    for line in check.lines:
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
