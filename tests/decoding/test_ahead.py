"""Laws of running one step ahead: it changes no rollout, no cost and no record, whatever happens."""

from __future__ import annotations

import pytest
import torch
from recorded import recorded, written
from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model.cuda_graphs import GraphRunner
from lm_eval_eglr.decoding.model.runner import EagerRunner
from lm_eval_eglr.decoding.stopping import StopRule

PROMPTS = ["One apple", "What is 12 * 7?", "Tom", "x", "Then she had 3 more, so"]
PLAIN = {"spans": "0", "temperatures": "0:0.8x3:1.3"}
GRID = {"spans": "0:1:3", "temperatures": "0:0.8x2", "entropy_threshold": 1.0}
EAGER = {"strategy": "eager", "n": 4, "branch_threshold": 2.5}
POISON = "~^|{}[]#$%<>@_"  # characters whose keys and values are no numbers


@pytest.fixture(scope="module")
def llama():
    """In fp64, as in test_invariance: a row more or less in a pass changes rounding."""
    return tiny_model().double()


class Runs:
    """Decodes with the host waiting for each step, or running ahead, and counts the steps that did."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.ahead = self.steps = 0

    def make(self, stack, cache):
        run = self.runner(stack, cache)

        def counted(batch):
            self.steps += 1
            self.ahead += batch.newest is not None
            return run(batch)

        return counted

    def runner(self, stack, cache):
        return EagerRunner(stack, cache)

    def decoder(self, ahead, ends=frozenset(range(0, 256, 23)), **options):
        decoder = PoolDecoder(self.model, self.tokenizer, trace=True, **options)
        decoder.engine.end_tokens = ends
        decoder.engine.ahead = ahead
        decoder.engine.make_runner = self.make
        return decoder

    def pools(self, ahead, *, until=(), length=14, **options):
        decoder = self.decoder(ahead, **options)
        found = decoder.generate(PROMPTS, max_new_tokens=length, until=until, progress=False)
        return recorded(found)


@pytest.fixture
def runs(llama, tokenizer):
    return Runs(llama, tokenizer)


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        {**PLAIN, "share": False},
        {**PLAIN, "max_rows": 5},
        {**PLAIN, "max_rows": 7, "until": ["a", "7", "qu"]},
        {**PLAIN, "top_p": 0.9, "max_rows": 24, "until": ["e"]},
        {"spans": "0", "temperatures": "0.4x6", "length": 1},
        {"spans": "0", "temperatures": "0x1:0.4x6", "ends": frozenset()},
    ],
    ids=str,
)
def test_plain_pools_are_the_same(options, runs):
    expected = runs.pools(False, **options)
    assert not runs.ahead
    assert runs.pools(True, **options) == expected
    assert (runs.ahead > 0) == (options.get("length") != 1), "nothing runs behind a last token"


@pytest.mark.parametrize("options", [GRID, EAGER], ids=str)
def test_what_depends_on_the_host_waits_for_it(options, runs):
    expected = runs.pools(False, **options)
    assert runs.pools(True, **options) == expected
    assert not runs.ahead


def test_plain_and_recursed_requests_in_one_run(runs):
    def decode(ahead):
        decoder = runs.decoder(ahead, **GRID, max_rows=9)
        requests = [
            decoder.request(runs.tokenizer(prompt).input_ids, cells, 12, StopRule(), f"{prompt} {len(cells)}")
            for cells in (decoder.cells[:3], decoder.cells, decoder.cells[:1])
            for prompt in PROMPTS[:3]
        ]
        pools = dict(decoder.decode(requests))
        return [[written(rollout) for rollout in pools[number]] for number in range(len(requests))]

    expected = decode(False)
    assert decode(True) == expected
    assert runs.ahead


def test_with_graphs(runs):
    """A graph's tensors are filled with what is still being drawn."""
    expected = runs.pools(False, **PLAIN, max_rows=10)
    runs.runner = lambda stack, cache: GraphRunner(stack, cache, lambda compute, pool: compute)
    assert runs.pools(True, **PLAIN, max_rows=10) == expected
    assert runs.ahead


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the host waits for nothing")
@pytest.mark.parametrize("options", [PLAIN, {**PLAIN, "max_rows": 7, "until": ["a", "7", "qu"]}], ids=str)
def test_on_cuda(options, tokenizer):
    """The host commits while the device really runs, and graphs really are captured."""
    runs = Runs(tiny_model().double().to("cuda"), tokenizer)
    runs.runner = GraphRunner
    expected = runs.pools(False, **options)
    assert runs.pools(True, **options) == expected
    assert runs.ahead


def test_rows_that_are_no_numbers_disturb_nobody(tokenizer):
    """Neither where such a token is drawn, nor where it ends a rollout and has run all the same."""
    model = tiny_model(tie_word_embeddings=False).double()
    poison = tokenizer(POISON).input_ids
    model.get_input_embeddings().weight.data[poison] = torch.nan
    runs = Runs(model, tokenizer)
    options = {"spans": "0", "temperatures": "2x8", "max_rows": 12, "length": 20}
    for until in ((), tuple(POISON)):
        for ends in (frozenset(), frozenset(poison)):
            expected = runs.pools(False, **options, until=until, ends=ends)
            assert runs.pools(True, **options, until=until, ends=ends) == expected
            reasons = {rollout[3] for rollouts, _ in expected for rollout in rollouts}
            assert ("error" in reasons) == (not until and not ends)
    assert runs.ahead


@pytest.mark.parametrize("call", [1, 4, 9, 16])
@pytest.mark.parametrize("ahead", [True, False])
def test_memory_may_run_out_in_a_step_that_runs_ahead(call, ahead, runs):
    expected = runs.pools(False, **PLAIN, max_rows=12)
    calls = []

    def runner(stack, cache):
        run = EagerRunner(stack, cache)

        def failing(batch):
            if (batch.newest is not None) == ahead:
                calls.append(None)
                if len(calls) == call:
                    raise torch.OutOfMemoryError("injected")
            return run(batch)

        return failing

    runs.runner = runner
    found = runs.pools(True, **PLAIN, max_rows=12)
    assert [rollouts for rollouts, _ in found] == [rollouts for rollouts, _ in expected]
    assert len(calls) >= call or not ahead


def test_few_steps_are_waited_for(runs):
    """In a run that is under way, rows begin and end while steps run ahead."""
    options = {"spans": "0", "temperatures": "1x4", "max_rows": 8, "length": 30}
    ends = frozenset(range(0, 256, 12))
    runs.pools(False, **options, ends=ends)
    waiting, runs.steps = runs.steps, 0
    runs.pools(True, **options, ends=ends)
    assert runs.ahead > 0.8 * runs.steps
    assert runs.steps < 1.2 * waiting
