"""Everything that wants a GPU, in one command: the tests of the engine, and every row of the speed table.

    python benchmarks/gpu_check.py            # on a GPU, under eight minutes
    python benchmarks/gpu_check.py --small    # on any machine: the same with stub shapes, to see that it runs

Models have the shapes of Qwen2.5 with 3 and 1.5 billion parameters and random weights in bfloat16, so
nothing is downloaded. 32 prompts × 16 rollouts of 128 tokens each are decoded; no end token is obeyed.
Each section runs in a process of its own: one that fails, hangs or takes the GPU down with it costs its own
rows alone, and the table says why. It is printed last:

    temperatures only, tokens/s    32 prompts × 16 samples at temperature 0.7
    step over its floor            seconds of a step over (weights + keys and values) / copy bandwidth
    grid over temperatures only    seconds per rollout, 20 % of the tokens gated, with the tree and without
    device idle                    share of a run in which no kernel runs, by torch's profiler
    one step ahead over waiting    seconds, temperatures only, and whether the pools are the same
    compiled layers                seconds over those of layers as they are, whether the pools are the same,
                                   and the seconds that compiling takes
    tokens/s over vLLM             the same prompts with n=16 in vLLM, where it can be imported
    tests                          those of tests/decoding that need a GPU, and those of its laws on a device

With --small on a CPU, captured passes are stood in for by passes that run again, as in the tests.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "decoding"
# Whole files, or the tests of a file whose names match.
TESTS = (
    ("test_step_graphs.py", "cuda"),
    ("test_ahead.py", "cuda"),
    ("test_compiled_layers.py", "cuda"),
    ("test_stored_telemetry.py", ""),
    ("test_shortage.py", ""),
)
# What is measured, by section: a name, what the table says, and the target; and the most seconds of it.
SECTIONS: dict[str, tuple[int, dict[str, tuple[str, str]]]] = {
    "3B": (
        130,
        {
            "plain": ("temperatures only, tokens/s, 3B shape, 128 rows", ">= 30,000"),
            "floor": ("step over its floor, 3B shape, 128 rows", "<= 2.5"),
            "tree": ("grid over temperatures only, with the tree", "<= 1.3"),
            "alone": ("the same without the tree", "<= 1.35"),
            "idle": ("device idle", "<= 10 %"),
            "ahead": ("one step ahead over waiting, seconds", "< 1, pools equal"),
        },
    ),
    "1.5B": (
        80,
        {
            "plain": ("temperatures only, tokens/s, 1.5B shape, 256 rows", ">= 45,000"),
            "floor": ("step over its floor, 1.5B shape, 256 rows", "<= 2.5"),
        },
    ),
    "compiled": (
        170,
        {
            "start": ("seconds to compile layers, at start, 3B shape", "none"),
            "plain": (
                "compiled layers over layers as they are, temperatures only",
                "< 1, equal but for ties",
            ),
            "grid": ("the same, grid", "< 1, equal but for ties"),
        },
    ),
    "vllm": (150, {"ratio": ("tokens/s over vLLM, 3B shape, 128 rows", ">= 0.8")}),
    "tests": (240, {name: (f"{name} {which}".strip(), "all pass") for name, which in TESTS}),
}
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
    """What the runs of one section share."""

    def __init__(self, small: bool) -> None:
        self.small = small
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.float32 if small else torch.bfloat16
        self.vocabulary = 512 if small else 151_936
        self.tokens = 12 if small else 128
        self.prompts = [chr(48 + n) * (4 + n % 5 if small else 60 + 4 * n) for n in range(4 if small else 32)]
        self.samples = 4 if small else 16

    def row(self, name: str, measure: Callable[[], str]) -> None:
        """Measures one row and tells the process that makes the table; one that fails says why."""
        try:
            found = measure()
        except Exception as error:
            found = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
            if self.device == "cuda":
                torch.cuda.empty_cache()
        print(json.dumps({"row": name, "found": found}), flush=True)

    def model(self, name: str) -> Any:
        """A model of a shape with random weights."""
        from transformers import Qwen2Config, Qwen2ForCausalLM

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

    def decoder(self, model: Any, rows: int, *, ahead: bool | None = None, **options: Any) -> Any:
        """A decoder after a short run in which libraries set themselves up."""
        from models_and_prompts import stub_tokenizer

        from lm_eval_eglr.decoding import PoolDecoder
        from lm_eval_eglr.decoding.model.cuda_graphs import GraphRunner

        decoder = PoolDecoder(model, stub_tokenizer(), max_rows=rows, **options)
        if self.device == "cpu":
            decoder.engine.make_runner = lambda stack, cache: GraphRunner(
                stack, cache, lambda compute, pool: compute
            )
        if ahead is not None:
            decoder.engine.ahead = ahead
        decoder.generate(self.prompts[:2], max_new_tokens=4, progress=False)
        return decoder

    def decode(self, decoder: Any) -> tuple[float, list[Any]]:
        """Seconds of decoding all prompts, and the rollouts."""
        self.wait()
        start = time.perf_counter()
        pools = decoder.generate(self.prompts, max_new_tokens=self.tokens, progress=False)
        spent = time.perf_counter() - start
        found = [rollout for pool in pools for rollout in pool]
        assert {len(rollout.tokens) for rollout in found} == {self.tokens}
        return spent, found

    def seconds(self, model: Any, rows: int, **options: Any) -> float:
        """Seconds of decoding all prompts."""
        return self.decode(self.decoder(model, rows, **options))[0]

    def compare(self, one: Any, other: Any) -> str:
        """Seconds of the second decoder over those of the first, and how their pools differ."""
        (before, expected), (after, found) = self.decode(one), self.decode(other)
        ties = differing = 0
        for own, new in zip(expected, found, strict=True):
            pairs = zip(own.tokens, new.tokens, strict=True)
            first = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
            if first is not None:
                differing += 1
                ties += own.telemetry.token_ties[first]
        said = f"{differing} of {len(found)} rollouts differ, {ties} of them first at a tie"
        return f"{after / before:.2f} ({said if differing else 'pools equal'})"

    def plain(self) -> dict[str, Any]:
        """Options of temperatures only."""
        return {"spans": "0", "temperatures": f"0.7x{self.samples}"}

    def grid(self, model: Any) -> dict[str, Any]:
        """Options of the grid, its gate open at a fifth of the tokens."""
        from lm_eval_eglr.calibration import calibrate

        decoder = self.decoder(model, 16, spans="0", temperatures="0.7x4", trace=True)
        pools = decoder.generate(self.prompts[:4], max_new_tokens=self.tokens // 2, progress=False)
        return {
            "spans": "0:1:2:4" if self.small else "0:2:4:8",
            "temperatures": f"0.7x{self.samples // 4}",
            "entropy_threshold": calibrate(pools, 0.2).threshold,
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
        from torch.profiler import ProfilerActivity, profile

        decoder = self.decoder(model, rows, **self.plain())
        on_gpu = self.device == "cuda"
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as recorded:
            start = time.perf_counter()
            prompts = self.prompts[: rows // self.samples]
            decoder.generate(prompts, max_new_tokens=self.tokens // 2, progress=False)
            self.wait()
            spent = time.perf_counter() - start
        busy = sum(event.self_device_time_total for event in recorded.key_averages()) / 1e6
        return f"{1 - min(1.0, busy / spent):.0%}" if on_gpu else "no GPU"

    def speed(self, name: str, rows: int, *, everything: bool) -> None:
        """The rows of one shape."""
        model = self.model(name)
        count = len(self.prompts) * self.samples
        spent = [float("nan")]
        grid: dict[str, Any] = {}

        def plain() -> str:
            spent[0] = self.seconds(model, rows, **self.plain())
            return f"{count * self.tokens / spent[0]:,.0f}"

        def over_floor() -> str:
            steps = -(-count // rows) * self.tokens
            return f"{spent[0] / steps / self.floor(model, rows):.2f}"

        def over_plain(share: bool) -> str:
            grid.update(grid or self.grid(model))
            return f"{self.seconds(model, rows, share=share, **grid) / spent[0]:.2f}"

        def ahead() -> str:
            options = {**self.plain(), "trace": True}
            waiting, running = (self.decoder(model, rows, ahead=each, **options) for each in (False, True))
            return self.compare(waiting, running)

        self.row("plain", plain)
        self.row("floor", over_floor)
        if everything:
            self.row("tree", lambda: over_plain(True))
            self.row("alone", lambda: over_plain(False))
            self.row("idle", lambda: self.idle(model, rows))
            self.row("ahead", ahead)

    def compiled(self, rows: int) -> None:
        """The rows of compiled layers."""
        model, decoders, grid = self.model("3B"), {}, dict[str, Any]()

        def start() -> str:
            for on in (False, True):
                begun = time.perf_counter()
                decoders[on] = self.decoder(model, rows, compile_layers=on, trace=True, **self.plain())
                seconds = time.perf_counter() - begun
            return f"{seconds:.0f}"

        def over_grid() -> str:
            grid.update(self.grid(model), trace=True)
            return self.compare(
                *(self.decoder(model, rows, compile_layers=on, **grid) for on in (False, True))
            )

        self.row("start", start)
        self.row("plain", lambda: self.compare(decoders[False], decoders[True]))
        decoders.clear()
        gc.collect()
        self.row("grid", over_grid)

    def vllm(self, rows: int, ours: float) -> str:
        """Our tokens per second over vLLM's, same prompts, same sampling, weights of no meaning in both."""
        try:
            from vllm import LLM, SamplingParams
        except ImportError:
            return "vLLM is not installed"
        from transformers import Qwen2Config

        config = Qwen2Config(
            vocab_size=self.vocabulary,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            architectures=["Qwen2ForCausalLM"],
            **(STUB if self.small else SHAPES["3B"]),
        )
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            engine = LLM(
                folder,
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
        spent = time.perf_counter() - start
        total = len(self.prompts) * self.samples * self.tokens
        return f"{ours * spent / total:.2f} ({total / spent:,.0f} of vLLM)"


def run_tests(check: Check) -> None:
    """The engine's tests, a file a row; a few of them in a small run."""
    for name, which in TESTS:
        few = check.small and name != "test_stored_telemetry.py"
        chosen = [str(FOLDER / name), *(["-k", which] if which else []), *(["--collect-only"] if few else [])]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *chosen]

        def result(command: list[str] = command) -> str:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            last = (done.stdout.strip() or done.stderr.strip() or "nothing was printed").splitlines()[-1]
            return last if done.returncode in (0, 5) else f"failed: {last}"

        check.row(name, result)


def section(name: str, check: Check, ours: float) -> None:
    """Measures the rows of a section."""
    few = check.small
    if name == "3B":
        check.speed("3B", 16 if few else 128, everything=True)
    elif name == "1.5B":
        check.speed("1.5B", 16 if few else 256, everything=False)
    elif name == "compiled":
        check.compiled(16 if few else 128)
    elif name == "vllm":
        check.row("ratio", lambda: check.vllm(128, ours))
    else:
        run_tests(check)


def run_section(name: str, arguments: list[str], seconds: float) -> tuple[dict[str, str], str]:
    """Runs a section in a process of its own; returns what it found, and why that is all."""
    most, rows = SECTIONS[name]
    limit = min(most, seconds)
    if limit < 15:
        return {}, "not measured: time is up"
    command = [sys.executable, __file__, "--section", name, *arguments]
    found: dict[str, str] = {}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        timer = threading.Timer(limit, lambda: kill(process))
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"row"'):
                row = json.loads(line)
                found[row["row"]] = row["found"]
                print(f"{rows[row['row']][0]}: {row['found']} (target {rows[row['row']][1]})", flush=True)
        code = process.wait()
        late = not timer.is_alive()
        timer.cancel()
        errors.seek(0)
        said = [line.strip() for line in errors.read().splitlines() if line.strip()]
    if late:
        return found, f"not measured: not done after {limit:.0f} s"
    return found, f"failed: ended with {code}: {said[-1][:160] if said else 'nothing was said'}"


def kill(process: subprocess.Popen[str]) -> None:
    """Ends a process that was started in a session of its own, and what it has started."""
    os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", "--dry-run", action="store_true", help="stub shapes, on any machine")
    parser.add_argument("--seconds", type=float, default=450, help="after which no row begins or goes on")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--ours", type=float, default=float("nan"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        section(options.section, Check(options.small), options.ours)
        return
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not options.small:
        sys.exit("no CUDA device: --small runs the same with stub shapes")
    end = time.monotonic() + options.seconds
    lines, ours = [], "nan"
    for name in options.only:
        arguments = ["--ours", ours, *(["--small"] if options.small else [])]
        found, why = run_section(name, arguments, end - time.monotonic())
        if name == "3B":
            measured = found.get("plain", "").replace(",", "")
            ours = measured if measured.isdecimal() else "nan"
        lines += [(what, found.get(key, why), target) for key, (what, target) in SECTIONS[name][1].items()]
    where = torch.cuda.get_device_name() if on_gpu else "CPU, stub shapes"
    print(f"\n{where}, torch {torch.__version__}\n\n| | measured | target |\n| --- | --: | --: |")
    for line in lines:
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
