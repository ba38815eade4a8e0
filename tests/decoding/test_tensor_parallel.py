"""Processes that hold a model together decode what one process decodes, each with a share of the heads.

The processes are forked after the imports, and exchange over gloo.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from eglr_selectors import RolloutPool
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model import kv_cache
from lm_eval_eglr.decoding.model.kv_cache import OutOfMemory

FORK = multiprocessing.get_context("fork")
PROMPTS = ["One apple", "Tom and then"]
# Packed projections, attention sinks and experts are shared out in ways of their own.
FAMILIES = ["llama", "phi3", "gpt-oss", "qwen3", "gemma2-softcap", "mixtral"]
# Sizes that four processes can share.
SHARED_SIZES = {"num_key_value_heads": 4, "vocab_size": 260, "intermediate_size": 64}


def decoder_of(model, tokenizer) -> PoolDecoder:
    return PoolDecoder(
        model, tokenizer, spans="0:1:3", temperatures="0:0.8x2", entropy_threshold=1.0, trace=True
    )


def decoded(model, tokenizer) -> list[RolloutPool]:
    pools = decoder_of(model, tokenizer).generate(PROMPTS, max_new_tokens=8, progress=False)
    assert sum(rollout.telemetry.recursions for pool in pools for rollout in pool) > 10
    return pools


def together(size: int, folder: Path, work: Any) -> list[Any]:
    """What ``work(rank)`` returns on each of so many processes of one group."""

    def run(rank: int) -> None:
        try:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size
            )
            (folder / f"{rank}.pickle").write_bytes(pickle.dumps(work(rank)))
            torch.distributed.barrier()
        except BaseException:
            (folder / f"{rank}.txt").write_text(traceback.format_exc())
            os._exit(1)
        os._exit(0)

    processes = [FORK.Process(target=run, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()
    assert not list(folder.glob("*.txt")), "\n".join(path.read_text() for path in folder.glob("*.txt"))
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(size)]


def loaded(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, tp_plan="auto")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        tiny_model(family, **SHARED_SIZES).save_pretrained(folder / family)
    return folder


@pytest.mark.parametrize(
    ("size", "families"),
    [
        (2, FAMILIES[:1]),
        pytest.param(2, FAMILIES[1:], marks=pytest.mark.slow),
        pytest.param(4, FAMILIES, marks=pytest.mark.slow),
    ],
    ids=["2", "2 of other families", "4"],
)
def test_several_processes_decode_what_one_decodes(size, families, saved, tokenizer, tmp_path):
    found = together(
        size, tmp_path, lambda rank: {name: decoded(loaded(saved / name), tokenizer) for name in families}
    )
    for family in families:
        whole = AutoModelForCausalLM.from_pretrained(saved / family, dtype=torch.float32)
        expected = decoded(whole, tokenizer)
        first = found[0][family]
        assert all(pools[family] == first for pools in found), f"{family}: the processes are not of one mind"
        for before, after in zip(expected, first, strict=True):
            assert after.cost == before.cost, family
            for one, other in zip(before, after, strict=True):
                assert one.cell == other.cell
                assert_same_but_for_ties(one, other, family)


def assert_same_but_for_ties(one, other, family: str) -> None:
    """Tokens are equal up to one that is counted as decided by rounding."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    parted = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one.tokens), len(other.tokens)))
    if one.tokens != other.tokens:
        assert one.telemetry.token_ties[parted], f"{family} {one.cell}: other tokens from {parted} on"
    assert other.telemetry.token_logprobs[:parted] == pytest.approx(
        one.telemetry.token_logprobs[:parted], abs=1e-3
    )


def test_rounding_of_one_process_parts_nobody(saved, tokenizer, tmp_path):
    """Each process gives its own distributions a push: all go by those of the first."""

    def work(rank: int) -> list[RolloutPool]:
        decoder = decoder_of(loaded(saved / "llama"), tokenizer)
        unembed = decoder.stack.unembed
        noise = torch.Generator().manual_seed(rank)

        def pushed(normed):
            logits = unembed(normed)
            return logits + rank * torch.rand(logits.shape, generator=noise)

        decoder.stack.unembed = pushed
        return decoder.generate(PROMPTS, max_new_tokens=8, progress=False)

    one, other = together(2, tmp_path, work)
    assert [rollout.tokens for pool in one for rollout in pool] == [
        rollout.tokens for pool in other for rollout in pool
    ]
    whole = AutoModelForCausalLM.from_pretrained(saved / "llama", dtype=torch.float32)
    assert [pool[0].tokens for pool in one] == [pool[0].tokens for pool in decoded(whole, tokenizer)]


def test_memory_is_that_of_the_shares_and_of_the_process_that_has_least(
    saved, tokenizer, tmp_path, monkeypatch
):
    free = 1 << 22

    def work(rank: int) -> tuple[int, int]:
        stack = decoder_of(loaded(saved / "llama"), tokenizer).stack
        (size,) = stack.bytes_per_token.values()
        monkeypatch.setattr(
            kv_cache.psutil,
            "virtual_memory",
            lambda: type("Memory", (), {"available": free if rank else 4 * free}),
        )
        return size, stack.rows_that_fit(100)

    one, other = together(2, tmp_path, work)
    heads, dim, layers = 4, 8, 4
    assert one == other
    assert one[0] == 2 * layers * heads * dim * 4 // 2, "keys and values of half of the heads, in fp32"
    assert one[1] == int(kv_cache.FREE_SHARE * free / (100 * one[0] + 4 * 4 * SHARED_SIZES["vocab_size"]))


def test_processes_that_run_out_of_memory_say_what_to_lower(saved, tokenizer, tmp_path):
    def work(rank: int) -> str:
        decoder = decoder_of(loaded(saved / "llama"), tokenizer)
        run = decoder.stack.run

        def short(running, tokens, positions):
            run(running, tokens, positions)
            raise torch.OutOfMemoryError("no room")

        decoder.stack.run = short
        with pytest.raises(OutOfMemory) as caught:
            decoder.generate(PROMPTS, max_new_tokens=8, progress=False)
        return str(caught.value)

    for message in together(2, tmp_path, work):
        assert "(no room); processes that hold a model together cannot go on with fewer" in message
        assert "max_rows" in message
