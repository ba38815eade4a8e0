"""``--model vllm-eglr`` and ``server-eglr`` with vLLM itself, in an environment of its own: `make test-vllm`.

The model is a random one of the demo's vocabulary: its text means nothing, but its engine, log-probabilities,
token ids and reasons are vLLM's.
"""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lm_eval_eglr.paths import DEMO_FOLDER
from lm_eval_eglr.store import read_store

PYTHON = os.environ.get("EGLR_VLLM_PYTHON")
PORT = 18731
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="EGLR_VLLM_PYTHON names no Python with vLLM: `make test-vllm`"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose heads have a size that vLLM's attention on CPUs knows."""
    config = AutoConfig.from_pretrained(DEMO_FOLDER)
    config.hidden_size, config.head_dim, config.intermediate_size = 128, 64, 128
    config.num_attention_heads, config.num_key_value_heads, config.num_hidden_layers = 2, 1, 2
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(DEMO_FOLDER).save_pretrained(folder)
    return folder


def lm_eval(name: str, model_args: str, *options: str) -> None:
    command = [str(PYTHON), "-m", "lm_eval", "--model", name, "--model_args", model_args]
    command += ["--tasks", "demo_eglr", "--limit", "3", "--apply_chat_template"]
    command += ["--gen_kwargs", "max_gen_toks=16", *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def pools(folder: Path) -> list[Any]:
    return [stored.pool for stored in read_store(folder).pools]


def check(folder: Path) -> None:
    found = pools(folder)
    assert len(found) == 3
    for pool in found:
        assert [str(rollout.cell) for rollout in pool] == ["L0/T0#0", "L0/T0.7#0", "L0/T0.7#1", "L0/T0.7#2"]
        assert len({rollout.text for rollout in pool}) > 1
        for rollout in pool:
            assert rollout.finish_reason == ("length" if len(rollout.tokens) == 16 else "stop")
            assert len(rollout.telemetry.token_logprobs) == len(rollout.tokens) > 0
            assert all(value <= 0 for value in rollout.telemetry.token_logprobs)
            assert rollout.telemetry.mean_confidence > 0


def test_vllm_in_this_process(model: Path, tmp_path: Path) -> None:
    shared = f"pretrained={model},dtype=float32,max_model_len=1024,enforce_eager=True,temperatures=0:0.7x3"
    args = f"{shared},distributed_executor_backend=uni,rollouts={tmp_path / 'store'}"
    lm_eval("vllm-eglr", args)
    check(tmp_path / "store")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "pools").iterdir()}
    gone = sorted(files)[0]
    before = gone.read_bytes()
    gone.unlink()
    lm_eval("vllm-eglr", args)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "pools").iterdir()}
    assert again.keys() == files.keys()
    assert gone.read_bytes() == before  # the same seeds draw the same tokens
    assert {path: time for path, time in again.items() if path != gone} == {
        path: time for path, time in files.items() if path != gone
    }


@pytest.fixture
def served(model: Path, tmp_path: Path) -> Iterator[str]:
    # Not `vllm serve`, whose command line asks for the version of a package that is called vllm.
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "tiny"]
    command += ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(PORT), "--distributed-executor-backend", "uni"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v1/models", timeout=2).close()
                    break
                except (urllib.error.URLError, OSError):
                    assert server.poll() is None, (tmp_path / "log").read_text()[-4000:]
                    time.sleep(1)
            yield f"http://127.0.0.1:{PORT}/v1"
        finally:
            server.terminate()
            server.wait(60)


def test_a_server_of_vllm(served: str, tmp_path: Path) -> None:
    for path in ("chat/completions", "completions"):
        store = tmp_path / path.replace("/", "-")
        args = f"base_url={served}/{path},temperatures=0:0.7x3,rollouts={store}"
        if path == "chat/completions":
            lm_eval("server-eglr", args)
        else:
            command = [str(PYTHON), "-m", "lm_eval", "--model", "server-eglr", "--model_args", args]
            command += ["--tasks", "demo_eglr", "--limit", "3", "--gen_kwargs", "max_gen_toks=16"]
            subprocess.run(command, env=ENVIRONMENT, check=True, timeout=1800)
        check(store)
