"""The launchers themselves: two processes of accelerate, torchrun or two hosts are one process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from eglr_selectors import available_selectors
from saved_model import SHARED_SIZES, save_tiny_model
from stock_tasks import without_stock_tasks

from lm_eval_eglr.store.reader import read_store

pytestmark = pytest.mark.slow  # every process imports torch and lm_eval

LAUNCH_FILE = Path(__file__).parents[2] / "examples" / "launch" / "several_hosts.sh"
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--main_process_port", "0", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("-m", "lm_eval"),
]


def torchrun(processes: int) -> list[str]:
    """On a port that is free, as ACCELERATE: by default two runs at once would both listen on 29500."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", str(processes), "-m", "lm_eval"]


TORCHRUN = torchrun(2)


def arguments(model: str, store: Path, limit: int = 3, max_gen_toks: int = 12, more: str = "") -> list[str]:
    grid = f"spans=0:1:3,temperatures=0:1x2,entropy_threshold=0.5{more}"
    return [
        *("--model", "hf-eglr", "--model_args", f"pretrained={model},{grid},rollouts={store}"),
        *("--tasks", "demo_eglr", "--limit", str(limit), "--gen_kwargs", f"max_gen_toks={max_gen_toks}"),
        *("--device", "cpu"),
    ]


def launch(command: list[str], output: Path, **environment: str) -> subprocess.Popen[Any]:
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with output.open("w") as file:
        return subprocess.Popen(
            command,
            env={**os.environ, **without_stock_tasks(), **settings, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def table(output: Path) -> list[str]:
    return [line for line in output.read_text().splitlines() if "exact_match" in line or "|pool" in line]


def rollouts(store: Path) -> list[Any]:
    return sorted(
        (entry.key.task, entry.key.doc_id, [(rollout.cell, rollout.tokens) for rollout in entry.pool])
        for entry in read_store(store).pools
    )


@pytest.fixture(scope="module")
def one(tiny_folder: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[Any]]:
    folder = tmp_path_factory.mktemp("one")
    command = [sys.executable, "-m", "lm_eval", *arguments(tiny_folder, folder / "store")]
    assert launch(command, folder / "output").wait(600) == 0, (folder / "output").read_text()
    found = table(folder / "output")
    assert len(found) >= len(available_selectors())
    return found, rollouts(folder / "store")


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_are_one(launcher: list[str], one: Any, tiny_folder: str, tmp_path: Path) -> None:
    """With an odd number of problems, for which lm_eval repeats the last one on the second process."""
    run = launch([*launcher, *arguments(tiny_folder, tmp_path / "store")], tmp_path / "output")
    assert run.wait(600) == 0, (tmp_path / "output").read_text()
    assert (table(tmp_path / "output"), rollouts(tmp_path / "store")) == one


@pytest.fixture(scope="module")
def shareable(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("shareable"), sizes=SHARED_SIZES)


def several(processes: int, arguments: list[str], output: Path) -> None:
    assert launch([*torchrun(processes), *arguments], output).wait(600) == 0, output.read_text()


GRID = ""
ADAPTIVE = "strategy=adaptive_grid,spans=0:1,temperatures=0:1x3,n=3"


@pytest.mark.parametrize("strategy", [GRID, ADAPTIVE], ids=["grid", "adaptive_grid"])
def test_processes_that_hold_a_model_together_are_one(strategy: str, shareable: str, tmp_path: Path) -> None:
    """Two of one model; then four of two models, which share the documents; then one, which finds all."""
    found = []
    for name, processes, more in [("one", 1, ""), ("two", 2, ",tp_plan=auto"), ("four", 4, ",tp_size=2")]:
        store, output = tmp_path / name, tmp_path / f"{name}.txt"
        given = arguments(shareable, store, more=more)
        if strategy:
            given[3] = f"pretrained={shareable},{strategy}{more},rollouts={store}"
        several(processes, given, output)
        found.append((table(output), rollouts(store)))
        plans = sorted(path.name for path in store.glob("plan.*.json"))
        assert plans == ["plan.0.json", "plan.1.json"][: 2 if name == "four" else 1]
        assert output.read_text().count("|Tasks") + output.read_text().count("|  Tasks") == 1, "one table"
    assert found[0] == found[1] == found[2]
    again = tmp_path / "again.txt"
    given = [each.replace(",tp_size=2", "") for each in given]
    assert launch([sys.executable, "-m", "lm_eval", *given], again).wait(600) == 0, again.read_text()
    assert "3 of 3 pools are there already" in again.read_text()


def test_processes_that_cannot_hold_a_model_together_say_so(tiny_folder: str, tmp_path: Path) -> None:
    for more, message in [
        (",tp_size=3", "tp_size=3: expected a divisor of the number of processes, which is 4"),
        (",tp_plan=auto", "tp_size=4: the model has 2 key heads; expected one of 1, 2"),
    ]:
        output = tmp_path / "output"
        given = arguments(tiny_folder, tmp_path / "store", more=more)
        assert launch([*torchrun(4), *given], output).wait(600) != 0
        assert message in output.read_text(), output.read_text()


@pytest.mark.parametrize(
    "strategy",
    ["strategy=eager,n=3,branch_threshold=2.6", "strategy=adaptive_grid,spans=0:1,temperatures=0:1x3,n=3"],
)
@pytest.mark.parametrize("limit", [1, 3])
def test_two_processes_share_one_budget(strategy: str, limit: int, tiny_folder: str, tmp_path: Path) -> None:
    """Also where one of them has no problem, and so nothing to share."""
    found = []
    for launcher in ([sys.executable, "-m", "lm_eval"], TORCHRUN):
        store = tmp_path / f"store{len(found)}"
        given = arguments(tiny_folder, store, limit=limit)
        given[3] = f"pretrained={tiny_folder},{strategy},rollouts={store}"
        run = launch([*launcher, *given], tmp_path / "output")
        assert run.wait(600) == 0, (tmp_path / "output").read_text()
        found.append((table(tmp_path / "output"), rollouts(store)))
    assert found[0] == found[1]


@pytest.mark.skipif(os.name == "nt", reason="a bash script")
def test_two_hosts_are_one_process(one: Any, tiny_folder: str, tmp_path: Path) -> None:
    """The launch file, started twice on this machine as if on two hosts."""
    command = ["bash", str(LAUNCH_FILE), *arguments(tiny_folder, tmp_path / "store")]
    shared = {"NNODES": "2", "PROCESSES": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    outputs = [tmp_path / f"host{number}" for number in range(2)]
    hosts = [
        launch(command, output, **shared, NODE_RANK=str(number), PYTHON=sys.executable)
        for number, output in enumerate(outputs)
    ]
    codes = [host.wait(600) for host in hosts]
    assert codes == [0, 0], outputs[0].read_text() + outputs[1].read_text()
    assert (table(outputs[0]), rollouts(tmp_path / "store")) == one
    assert table(outputs[1]) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the second process under /proc")
def test_a_process_that_dies_takes_nothing_with_it(one: Any, tiny_folder: str, tmp_path: Path) -> None:
    store, output = tmp_path / "store", tmp_path / "output"
    run = launch([*TORCHRUN, *arguments(tiny_folder, store, limit=20, max_gen_toks=200)], output)
    written = pools_of(store, run)
    victim = next(pid for pid in children(run.pid) if b"RANK=1" in environment_of(pid))
    os.kill(victim, signal.SIGKILL)
    # The launcher ends the other process too, which would wait for the dead one for ever.
    assert run.wait(600) != 0
    assert "Signal 9 (SIGKILL)" in output.read_text()
    assert not [pid for pid in children(run.pid) if pid != victim]
    left = pools_of(store)
    assert left.items() >= written.items()
    found = read_store(store)
    assert len(found.pools) == len(left)
    assert len(found.pools) + len(found.missing) == 20


def pools_of(store: Path, run: subprocess.Popen[Any] | None = None) -> dict[str, bytes]:
    """The files of pools; waits for the first ones of a run."""
    while True:
        found = {path.name: path.read_bytes() for path in (store / "pools").glob("*.parquet")}
        if len(found) > 1 or run is None:
            return found
        assert run.poll() is None, "the run ended before a process of it could be killed"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return (
        [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if Path(f"/proc/{pid}").is_dir()
        else []
    )


def environment_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
