"""EAGER: what a branch is, what a fork may not change, and that the second round goes on from the first."""

from __future__ import annotations

import dataclasses
import math

import pytest
from branch_paths import check_path, decoded
from eglr_selectors import parse_pool
from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.pool_decoder import DocumentKeys
from lm_eval_eglr.decoding.stopping import StopRule
from lm_eval_eglr.decoding.strategies.rounds import PromptJob, decoded_tokens

PROMPTS = ["Tom has 3 apples", "A", "8", "Tom"]
LENGTH = 12
EAGER = {
    "strategy": "eager",
    "n": 4,
    "branch_threshold": 2.5,
    "branch_width": 2,
    "min_branch_distance": 2,
    "budget": "none",
}


@pytest.fixture(scope="module")
def llama():
    """In fp64, as in the laws of invariance: rounding must not decide between two tokens."""
    return tiny_model().double()


def decode(model, tokenizer, prompts=PROMPTS, length=LENGTH, references=None, **options):
    decoder = PoolDecoder(model, tokenizer, **{**EAGER, **options})
    pools = decoder.generate(
        prompts,
        max_new_tokens=length,
        references=references,
        fallbacks=("last_number",),
        progress=False,
    )
    return decoder, pools


@pytest.fixture(scope="module")
def branched(llama, tokenizer):
    return decode(llama, tokenizer, trace=True)


@pytest.mark.parametrize("options", [{"branch_threshold": math.inf}, {"n": 1}], ids=str)
def test_without_room_or_doubt_it_is_one_greedy_rollout(options, llama, tokenizer):
    greedy = PoolDecoder(llama, tokenizer, spans="0", temperatures="0").generate(
        PROMPTS, max_new_tokens=LENGTH, progress=False
    )
    for budget in ("none", "free"):
        _, pools = decode(llama, tokenizer, **options, budget=budget)
        assert decoded(pools) == decoded(greedy)
        assert [pool.cost for pool in pools] == [pool.cost for pool in greedy]


def test_every_branch_is_a_path_of_the_plain_model(llama, tokenizer, branched):
    decoder, pools = branched
    assert any(len(rollout.cell.path) > 1 for pool in pools for rollout in pool)
    for prompt, pool in zip(PROMPTS, pools, strict=True):
        assert 1 < len(pool) <= 4
        for rollout in pool:
            check_path(llama, tokenizer(prompt).input_ids, rollout, decoder.strategy)


@pytest.mark.parametrize("width", [2, 4])
def test_more_room_adds_rollouts_and_changes_none(width, llama, tokenizer):
    """So branching never changes the tokens before a fork, nor those of the rollout that is forked from."""
    before: list[set] = [set()] * len(PROMPTS)
    for n in (1, 2, 5, 8):
        _, pools = decode(llama, tokenizer, n=n, branch_width=width)
        found = [set(pool) for pool in decoded(pools)]
        assert all(old <= new for old, new in zip(before, found, strict=True))
        for pool in pools:
            parents = {rollout.cell.path: rollout for rollout in pool}
            for rollout in pool:
                if rollout.cell.path:
                    step = rollout.cell.path[-1][0]
                    assert parents[rollout.cell.path[:-1]].tokens[:step] == rollout.tokens[:step]
        before = found


def test_a_prefix_is_computed_once(llama, tokenizer, branched):
    _, pools = branched
    for pool in pools:
        # At a fork one step draws the tokens of all its continuations.
        assert pool.cost.rows == decoded_tokens(pool) - (len(pool) - 1)
        assert pool.cost.tokens == sum(len(rollout.tokens) for rollout in pool)


@pytest.mark.parametrize("changes", [{"share": False}, {"max_rows": 1}, {"max_rows": 9}], ids=str)
@pytest.mark.parametrize("budget", ["none", "free"])
def test_batch_size_changes_nothing(changes, budget, llama, tokenizer):
    options = {"budget": budget, "branch_threshold": 2.7}
    _, expected = decode(llama, tokenizer, **options, max_rows=64)
    _, found = decode(llama, tokenizer, **options, **changes)
    assert decoded(found) == decoded(expected)


def test_above_temperature_0_the_first_rollout_is_a_plain_sample(llama, tokenizer):
    _, pools = decode(llama, tokenizer, temperature=0.8)
    samples = PoolDecoder(llama, tokenizer, strategy="sample", n=1, temperature=0.8).generate(
        PROMPTS, max_new_tokens=LENGTH, progress=False
    )
    assert [pool[:1] for pool in decoded(pools)] == decoded(samples)
    assert decoded(decode(llama, tokenizer, temperature=0.8, seed=1)[1]) != decoded(pools)


def test_a_sample_is_so_many_cells_of_one_temperature(llama, tokenizer):
    options = {"max_new_tokens": LENGTH, "progress": False}
    samples = PoolDecoder(llama, tokenizer, strategy="sample", n=3, temperature=0.9)
    grid = PoolDecoder(llama, tokenizer, spans="0", temperatures="0.9x3")
    assert decoded(samples.generate(PROMPTS, **options)) == decoded(grid.generate(PROMPTS, **options))


@pytest.mark.parametrize("budget", ["free", "labels"])
def test_the_second_round_goes_on_from_the_first(budget, llama, tokenizer):
    options = {"branch_threshold": 2.7, "min_branch_distance": 3, "n": 3, "trace": True}
    _, first = decode(llama, tokenizer, **options)
    references = ["7777777"] * len(PROMPTS)
    decoder, both = decode(llama, tokenizer, **options, budget=budget, references=references)
    assert len({len(pool) for pool in first}) > 1, "nobody left anything"
    assert sum(map(len, first)) < sum(map(len, both)) <= 3 * len(PROMPTS)
    for prompt, before, after in zip(PROMPTS, first, both, strict=True):
        assert decoded([after])[0][: len(before)] == decoded([before])[0]
        assert len({rollout.cell for rollout in after}) == len({r.tokens for r in after}) == len(after)
        for rollout in after:
            check_path(llama, tokenizer(prompt).input_ids, rollout, decoder.strategy, gated=budget == "free")
            assert len(rollout.tokens) == len(rollout.telemetry.token_logprobs)
        assert after.cost.tokens == sum(len(rollout.tokens) for rollout in after)
        assert after.uses_reference == (budget == "labels")
        if budget == "free" and len(after) > len(before):
            assert len(before) == 3, "only prompts that used their budget up get more"


def test_telemetry_of_a_second_round_is_that_of_teacher_forcing(llama, tokenizer):
    decoder, pools = decode(
        llama, tokenizer, branch_threshold=2.7, min_branch_distance=3, n=3, budget="free", trace=True
    )
    late = [(p, r) for p, pool in zip(PROMPTS, pools, strict=True) for r in pool if r.cell.sample >= 3]
    assert late
    for prompt, rollout in late:
        assert decoder.logprobs(prompt, rollout) == pytest.approx(rollout.telemetry.token_logprobs, abs=1e-9)


def test_labels_give_to_unsolved_prompts_alone(llama, tokenizer):
    _, first = decode(llama, tokenizer, n=2, branch_threshold=2.75)
    answers = [parse_pool(pool, fallbacks=("last_number",)).answers for pool in first]
    texts = [next((answer.text for answer in each if answer), None) for each in answers]
    solvable = [number for number, text in enumerate(texts) if text is not None]
    references = [text or "7777777" for text in texts]
    _, both = decode(llama, tokenizer, n=2, branch_threshold=2.75, budget="labels", references=references)
    for number, (before, after) in enumerate(zip(first, both, strict=True)):
        if number in solvable:
            assert decoded([after]) == decoded([before])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "eagre"}, "strategy='eagre': expected one of grid, sample, eager, adaptive_grid"),
        ({"strategy": "eager", "n": 0}, "n=0: expected an integer >= 1"),
        ({"strategy": "eager", "branch_threshold": -1}, "branch_threshold=-1: expected a number >= 0"),
        ({"strategy": "eager", "branch_width": 1}, "branch_width=1: expected an integer >= 2"),
        ({"strategy": "eager", "min_branch_distance": 0}, "min_branch_distance=0: expected"),
        ({"strategy": "eager", "temperature": math.inf}, "temperature=inf: expected a finite number"),
        ({"strategy": "eager", "budget": "all"}, "budget='all': expected one of none, free, labels"),
        ({"strategy": "eager", "n": 4, "max_rollouts": 3}, "max_rollouts=3: expected an integer >= 4"),
        ({"strategy": "eager", "spans": "0:1"}, "spans='0:1': an option of strategy=grid or adaptive_grid"),
        ({"strategy": "eager", "strength": 0.1}, "strength=0.1: an option of strategy=grid or adaptive"),
        ({"strategy": "sample", "n": 0}, "n=0: expected an integer >= 1"),
        ({"strategy": "sample", "temperature": 0}, "temperature=0: expected a number > 0"),
        ({"n": 4}, "n=4: an option of strategy=sample or eager or adaptive_grid; strategy=grid takes spans"),
        ({"branch_threshold": 2.0}, "branch_threshold=2.0: an option of strategy=eager; strategy=grid"),
        ({"strategy": "adaptive_grid", "budget": "labels"}, "budget='labels': expected one of none, free"),
        ({"strategy": "adaptive_grid", "wave": 0}, "wave=0: expected an integer >= 1"),
        ({"strategy": "adaptive_grid", "spans": "0", "temperatures": "0", "n": 2}, "n=2: expected at most"),
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(options, message, llama, tokenizer):
    with pytest.raises(ValueError, match=message.replace("*", r"\*")) as caught:
        PoolDecoder(llama, tokenizer, **options)
    assert "\n" not in str(caught.value)


def test_labels_without_references_are_refused(llama, tokenizer):
    with pytest.raises(ValueError, match="budget='labels': expected a reference for every prompt"):
        decode(llama, tokenizer, budget="labels")


def test_a_rollout_that_parts_at_its_first_token_goes_on_from_the_prompt(llama, tokenizer):
    """Even if the prompt has to be read again, as after a shortage of memory."""
    decoder, [pool] = decode(llama, tokenizer, PROMPTS[:1], n=1, trace=True, branch_threshold=0)
    plan = PoolDecoder(llama, tokenizer, **{**EAGER, "n": 1, "budget": "free", "branch_threshold": 0}).plan
    prompt = tokenizer(PROMPTS[0]).input_ids
    request = decoder.request(prompt, plan.cells, LENGTH, StopRule(), "d")
    requests = plan.next_requests(request, pool, None, count=1)
    assert len(requests) == 1
    start = requests[0].start
    first = dataclasses.replace(start, tokens=(), records=start.records[:0], taken=pool[0].tokens[0])
    at_start = dataclasses.replace(requests[0], tokens=tuple(prompt), start=first)
    for each in (requests[0], at_start):
        [(_, again)] = decoder.decode([each])
        count = len(each.start.tokens)
        assert again[0].tokens[:count] == start.tokens[:count]
        cell = dataclasses.replace(again[0].cell, path=((count, 1),))
        check_path(llama, prompt, dataclasses.replace(again[0], cell=cell), decoder.strategy, gated=False)


def test_processes_share_one_purse(llama, tokenizer):
    """Each decodes its documents and hears of the others' accounts: together they are one process."""
    options = {"branch_threshold": 2.7, "min_branch_distance": 3, "n": 3, "budget": "free"}
    _, expected = decode(llama, tokenizer, **options)
    decoder = PoolDecoder(llama, tokenizer, **{**EAGER, **options})
    assignments = {}
    for number, prompt in enumerate(PROMPTS):
        tokens = tokenizer(prompt).input_ids
        request = decoder.request(tokens, decoder.cells, LENGTH, StopRule(), DocumentKeys().key(tokens))
        assignments[number] = PromptJob(request, decoder.plan, ("task", number, 0))
    ranks = [{n: each for n, each in assignments.items() if n % 3 == rank} for rank in range(3)]
    accounts = []
    for rank in (*ranks, {}):
        list(decoder.rounds(gather=lambda mine: accounts.extend(mine) or mine).run(rank))
    assert len(accounts) == len(PROMPTS)
    found = {}
    for rank in (*ranks, {}):
        rounds = decoder.rounds(gather=lambda mine: accounts)
        found |= dict(rounds.run(rank))
        balance = rounds.balances["task"]
        assert balance.given_rollouts > 0
        assert balance.rollouts == balance.used_rollouts + balance.given_rollouts + balance.left_rollouts
    assert decoded([found[number] for number in range(len(PROMPTS))]) == decoded(expected)
