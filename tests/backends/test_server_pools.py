"""``--model server-eglr`` against a server of OpenAI's interface: what it asks, keeps, stores and resumes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from stub_server import TOKENS, Stub, stub_server

from lm_eval_eglr.store import read_store

SEVERAL = "temperatures=0:0.7x3"


def evaluate(stub: Stub, options: str = SEVERAL, chat: bool = True, **changes: Any) -> dict[str, Any]:
    path = "chat/completions" if chat else "completions"
    arguments: dict[str, Any] = {
        "tasks": ["demo_eglr"],
        "limit": 3,
        "bootstrap_iters": 0,
        "apply_chat_template": chat,
    }
    model_args = f"base_url={stub.url}/{path},{options}".rstrip(",")
    results: dict[str, Any] = simple_evaluate(
        model="server-eglr", model_args=model_args, **{**arguments, **changes}
    )
    return results


def pools(folder: Path) -> list[Any]:
    return [stored.pool for stored in read_store(folder).pools]


@pytest.mark.parametrize("chat", [True, False])
def test_a_pool_keeps_logprobs_token_ids_and_why_each_text_ended(tmp_path: Path, chat: bool) -> None:
    with stub_server() as stub:
        results = evaluate(stub, f"{SEVERAL},rollouts={tmp_path / 'store'}", chat)
    assert len(stub.asked) == 12
    for pool in pools(tmp_path / "store"):
        assert [str(rollout.cell) for rollout in pool] == ["L0/T0#0", "L0/T0.7#0", "L0/T0.7#1", "L0/T0.7#2"]
        for rollout in pool:
            assert len(rollout.tokens) == len(rollout.telemetry.token_logprobs) == TOKENS
            assert rollout.finish_reason in ("stop", "length")
            assert rollout.telemetry.mean_confidence == pytest.approx(0.95)
            assert rollout.telemetry.mean_logprob == pytest.approx(
                math.fsum(rollout.telemetry.token_logprobs) / TOKENS
            )
    row = results["results"]["demo_eglr"]
    assert {"exact_match,greedy", "exact_match,deepconf", "exact_match,logprob_weighted"} <= row.keys()
    assert not math.isnan(row["truncated,pool"])
    # Entropies are sums over the whole vocabulary, which no server returns.
    assert not {"exact_match,entropy_weighted", "exact_match,self_certainty"} & row.keys()


def test_seeds_differ_between_rollouts_and_not_between_runs(tmp_path: Path) -> None:
    with stub_server() as stub:
        for name in ("one", "two"):
            evaluate(stub, f"{SEVERAL},rollouts={tmp_path / name}")
        evaluate(stub, f"{SEVERAL},seed=1,rollouts={tmp_path / 'three'}")
    one, two, three = (pools(tmp_path / name) for name in ("one", "two", "three"))
    assert repr(one) == repr(two)
    assert [[rollout.text for rollout in pool][1:] for pool in one] != [
        [rollout.text for rollout in pool][1:] for pool in three
    ]
    seeds = [payload["seed"] for payload in stub.asked[:12]]
    assert len(set(seeds)) == 12


def test_a_stopped_run_continues_with_what_is_missing(tmp_path: Path) -> None:
    options = f"{SEVERAL},num_concurrent=1,rollouts={tmp_path / 'store'}"
    with stub_server(dies_after=9) as stub, pytest.raises(ValueError, match=r"400 .*out of credit"):
        evaluate(stub, options)
    assert len(pools(tmp_path / "store")) == 2
    with stub_server() as stub:
        evaluate(stub, options)
        assert len(stub.asked) == 4
        evaluate(stub, f"{SEVERAL},rollouts={tmp_path / 'whole'}")
    assert repr(pools(tmp_path / "store")) == repr(pools(tmp_path / "whole"))
    with stub_server() as stub, pytest.raises(ValueError, match="holds rollouts of another run"):
        evaluate(stub, f"temperatures=0:0.9,rollouts={tmp_path / 'store'}")


def test_repeats_that_sample_are_pools_too(tmp_path: Path) -> None:
    changes = {"gen_kwargs": "do_sample=True,temperature=0.7", "metadata": {"repeats": 4}}
    with stub_server() as stub:
        evaluate(stub, f"rollouts={tmp_path / 'store'}", **changes)
        documents = read_store(tmp_path / "store").documents("demo_eglr")
        with pytest.raises(ValueError, match="a pool has its own"):
            evaluate(stub, **changes)
    for document in documents:
        assert [str(rollout.cell) for rollout in document.parsed] == [f"L0/T0.7#{i}" for i in range(4)]
        assert len({rollout.text for rollout in document.parsed}) == 4


def test_a_server_that_ignores_seeds_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with stub_server(ignores_seed=True) as stub:
        evaluate(stub)
    assert "all samples of each of 3 problems are equal" in caplog.text


def test_token_ids_are_asked_of_vllm_only(tmp_path: Path) -> None:
    with stub_server(is_vllm=False, refuses="return_token_ids") as stub:
        evaluate(stub, f"{SEVERAL},rollouts={tmp_path / 'store'}")
    assert all(not rollout.tokens for pool in pools(tmp_path / "store") for rollout in pool)


def test_a_refusal_says_what_the_server_said_and_a_busy_server_is_asked_again() -> None:
    with stub_server(refuses="logprobs") as stub:
        with pytest.raises(ValueError, match=r"400 .*unknown field logprobs"):
            evaluate(stub)
        evaluate(stub, f"{SEVERAL},logprobs=0")
    with stub_server(fails=2) as stub:
        evaluate(stub, f"{SEVERAL},num_concurrent=1")
        assert len(stub.asked) == 14


def test_generation_options_reach_the_server() -> None:
    with stub_server() as stub:
        evaluate(stub, f"{SEVERAL},top_p=0.9,top_k=20", gen_kwargs="max_gen_toks=7,until=END,seed=None")
    for payload in stub.asked:
        assert (payload["max_tokens"], payload["top_p"], payload["top_k"]) == (7, 0.9, 20)
        assert "seed" not in payload
        assert payload["stop"] == ["END"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("temperatures=0:0", "0 occurs twice"),
        ("top_p=2", "top_p=2: expected a number > 0 and <= 1"),
        ("logprobs=30", "logprobs=30: expected an integer >= 0 and <= 20"),
        ("num_concurrent=0", "num_concurrent=0: expected an integer >= 1"),
        ("seed=x", "seed='x': expected an integer >= 0"),
    ],
)
def test_a_bad_option_is_named(options: str, message: str) -> None:
    with stub_server() as stub, pytest.raises(ValueError, match=message):
        evaluate(stub, options)


def test_an_address_that_is_no_endpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an address that ends"):
        simple_evaluate(model="server-eglr", model_args="base_url=http://127.0.0.1:9/v1", tasks=["demo_eglr"])
