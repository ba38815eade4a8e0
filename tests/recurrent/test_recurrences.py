"""Laws of recurrences as a depth axis: the engine's rollouts are those of slow decoding, in any batch."""

from __future__ import annotations

import math

import pytest
import torch
from recurrent_models import OWN, SlowCache, slow_greedy, tiny_hrm, tiny_original, tiny_student

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model import kv_cache
from lm_eval_eglr.recurrent.latent import LatentStream

PROMPTS = ["One apple", "What is 12 * 7? Think and", "T"]
GRID = {"recurrences": "1:2:4:7", "temperatures": "0:0.8x2"}
LENGTH = 12


def texts(pools):
    return [[(str(rollout.cell), rollout.tokens) for rollout in pool] for pool in pools]


@pytest.fixture(scope="module")
def student():
    return tiny_student()


def decode(model, tokenizer, prompts=PROMPTS, length=LENGTH, **options):
    return PoolDecoder(model, tokenizer, **options).generate(prompts, max_new_tokens=length, progress=False)


# The model's own.


def test_the_own_number_of_recurrences_is_the_models_own_generate(student, tokenizer):
    pools = decode(student, tokenizer, temperatures="0")
    for prompt, pool in zip(PROMPTS, pools, strict=True):
        ids = torch.tensor([tokenizer(prompt).input_ids])
        own = student.generate(ids, max_new_tokens=LENGTH, do_sample=False)[0, ids.shape[1] :]
        assert str(pool[0].cell) == f"R{OWN}/T0#0"
        assert list(pool[0].tokens) == own.tolist()


@pytest.mark.parametrize("prefix_lm", [True, False])
@pytest.mark.parametrize("recurrences", [1, 2, 3])
def test_hrm_text_is_its_own_generate_and_its_own_forward_with_other_cycles(
    prefix_lm, recurrences, tokenizer
):
    """Its prompts attend in both directions; a causal prompt gives other tokens."""
    model = tiny_hrm(prefix_lm=prefix_lm)
    pools = decode(model, tokenizer, recurrences=recurrences, temperatures="0")
    model.config.H_cycles = recurrences
    for prompt, pool in zip(PROMPTS, pools, strict=True):
        ids = tokenizer(prompt).input_ids
        kinds = torch.ones(1, len(ids), dtype=torch.long) if prefix_lm else None
        if recurrences == 2:
            own = model.generate(
                torch.tensor([ids]), token_type_ids=kinds, max_new_tokens=LENGTH, do_sample=False
            )
            assert list(pool[0].tokens) == own[0, len(ids) :].tolist()
        tokens = [*ids, *pool[0].tokens]
        if kinds is not None:
            kinds = torch.cat([kinds, torch.zeros(1, len(pool[0].tokens), dtype=torch.long)], 1)
        logits = model(torch.tensor([tokens]), token_type_ids=kinds, use_cache=False).logits[0]
        assert logits[len(ids) - 1 : -1].argmax(-1).tolist() == list(pool[0].tokens)


@pytest.mark.parametrize("recurrences", [1, 3, 7])
def test_r_recurrences_are_full_recomputation_without_a_cache(recurrences, student, tokenizer):
    pools = decode(student, tokenizer, recurrences=recurrences, temperatures="0")
    for prompt, pool in zip(PROMPTS, pools, strict=True):
        ids = tokenizer(prompt).input_ids
        tokens = torch.tensor([[*ids, *pool[0].tokens]])
        logits = student(tokens, num_steps=recurrences, use_cache=False).logits[0]
        assert logits[len(ids) - 1 : -1].argmax(-1).tolist() == list(pool[0].tokens)


# Nothing of a rollout depends on what is decoded beside it.

OPTIONS = [
    {},
    {"exit": "kl", "exit_threshold": 0.5},
    {"exit": "entropy", "exit_threshold": 0.2},
    {"exit": "latent", "exit_threshold": 0.8},
    {"kv_budget": 2},
    {"kv_budget": 3, "exit": "kl", "exit_threshold": 1.0},
    {"draft_recurrences": 2, "draft_tokens": 3},
]


@pytest.mark.parametrize(
    ("make", "options"),
    [*((tiny_student, each) for each in OPTIONS), *((tiny_hrm, OPTIONS[place]) for place in (1, 5, 6))],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_neither_batch_nor_sharing_nor_company_changes_a_rollout(make, options, tokenizer):
    """Rows that exit sooner, rows of other levels, rows that wait and are read again: none sees another."""
    model = make()
    levels = (1, 4, 7) if make is tiny_student else (1, 3)
    grid = {"recurrences": levels, "temperatures": "0:0.8x2", "length": 8}
    expected = texts(decode(model, tokenizer, **grid, **options))
    for changes in ({"share": False}, {"max_rows": 3 * len(levels) + 2}):
        assert texts(decode(model, tokenizer, **grid, **options, **changes)) == expected, changes
    for number, level in enumerate((levels[0], levels[-1])):  # one level of one prompt, alone
        one = {**grid, "recurrences": level, "max_rows": 1}
        alone = {} if level <= options.get("draft_recurrences", 0) else options  # nothing verifies drafts
        part = texts(decode(model, tokenizer, PROMPTS[number : number + 1], **one, **alone))
        first = 3 * levels.index(level)
        assert part == [expected[number][first : first + 3]]


def test_eager_forks(student, tokenizer):
    options = {"strategy": "eager", "n": 3, "branch_threshold": 1.5, "budget": "none", "recurrences": 3}
    expected = texts(decode(student, tokenizer, **options))
    assert {cell[:3] for pool in expected for cell, _ in pool} == {"R3/"}
    assert {len(pool) for pool in expected} == {3}
    assert texts(decode(student, tokenizer, **options, exit="kl", exit_threshold=0.0)) == expected
    exits = {"exit": "latent", "exit_threshold": 0.5, "kv_budget": 2}
    several = texts(decode(student, tokenizer, **options, **exits))
    alone = [pool for prompt in PROMPTS for pool in decode(student, tokenizer, [prompt], **options, **exits)]
    assert texts(alone) == several


@pytest.mark.parametrize("strategy", ["sample", "eager", "adaptive_grid", "grid"])
def test_strategies_take_the_models_own_recurrences_by_default(strategy, student, tokenizer):
    pools = decode(student, tokenizer, strategy=strategy)
    assert {rollout.cell.span for pool in pools for rollout in pool} == {OWN}
    assert {rollout.cell.axis for pool in pools for rollout in pool} == {"R"}


def test_the_first_states_are_a_function_of_seed_and_position(student, tokenizer):
    def stream(**options):
        return LatentStream(64, 0.5, **options)

    like = torch.zeros(0, dtype=torch.float64)
    positions = torch.tensor([3, 900, 3, 0])
    states = stream().states(positions, like)
    assert torch.equal(states, stream().states(torch.arange(1000), like)[positions])
    assert not torch.equal(states, stream(seed=1).states(positions, like))
    many = stream().states(torch.arange(2000), like)
    assert many.abs().max() <= 1.5
    assert abs(many.mean()) < 0.005
    assert abs(many.std() - 0.5 * 0.9866) < 0.005  # of a Gaussian that is cut at three standard deviations


@pytest.mark.parametrize("options", [{"std": 0.7}, {"std": 0.0}], ids=str)
def test_states_begin_with_the_models_own_deviation(options, tokenizer, monkeypatch):
    """Against the model's own forward, whose first states are replaced by ours."""
    kind = type(tiny_student().config)
    monkeypatch.setattr(kind, "init_values", property(lambda config: options))
    model = tiny_student()
    pools = decode(model, tokenizer, temperatures="0")
    seeded = decode(model, tokenizer, temperatures="0", state_seed=1)
    assert (texts(pools) == texts(seeded)) == (options["std"] == 0)
    stream = LatentStream(model.config.hidden_size, options["std"])
    for prompt, pool in zip(PROMPTS, pools, strict=True):
        ids = tokenizer(prompt).input_ids
        tokens = torch.tensor([[*ids, *pool[0].tokens]])
        states = stream.states(torch.arange(tokens.shape[1]), torch.zeros(0, dtype=torch.float64))
        logits = model(tokens, input_states=states[None], use_cache=False).logits[0]
        assert logits[len(ids) - 1 : -1].argmax(-1).tolist() == list(pool[0].tokens)


# Slots of keys and values, and exits.


def exits_of(rule, threshold):
    def kl(states, before, logprobs, known):
        return (logprobs.exp() * (logprobs - known)).sum() < threshold

    def entropy(states, before, logprobs, known):
        return ((known.exp() * known).sum() - (logprobs.exp() * logprobs).sum()).abs() < threshold

    def latent(states, before, logprobs, known):
        return (states - before).norm() / states.norm() < threshold

    return {"kl": kl, "entropy": entropy, "latent": latent, "none": None}[rule]


CASES = [
    *[("none", 0.0, budget) for budget in (1, 2, 3, 7)],
    *[(rule, threshold, 7) for rule, threshold in (("kl", 0.3), ("entropy", 0.2), ("latent", 0.7))],
    *[("kl", 1.0, 3), ("latent", 1.0, 2)],
]


@pytest.mark.parametrize(("rule", "threshold", "budget"), CASES)
def test_exits_and_shared_slots_are_those_of_one_token_at_a_time(rule, threshold, budget, student, tokenizer):
    """A token that exited leaves its last keys and values in the slots that it did not reach."""
    level = 7
    options = {"exit": rule, **({} if rule == "none" else {"exit_threshold": threshold})}
    pools = decode(
        student, tokenizer, recurrences=level, temperatures="0", kv_budget=budget, trace=True, **options
    )
    outer = student.config.n_layers_in_prelude + student.config.n_layers_in_coda
    found = []
    for prompt, pool in zip(PROMPTS, pools, strict=True):
        cache = SlowCache(outer, student.config.n_layers_in_recurrent_block, budget)
        ids = tokenizer(prompt).input_ids
        tokens, made = slow_greedy(student, cache, ids, LENGTH, level, exits=exits_of(rule, threshold))
        assert list(pool[0].tokens) == tokens
        assert list(pool[0].telemetry.token_iterations) == made
        below = [distance < threshold for distance in pool[0].telemetry.token_divergences]
        assert pool[0].telemetry.converged_tokens == sum(below) >= sum(each < level for each in made)
        assert pool[0].telemetry.recursions == sum(made)
        found += made
    assert (len(set(found)) > 1) == (rule != "none")


def test_a_slot_for_each_recurrence_is_exact(student, tokenizer):
    expected = texts(decode(student, tokenizer, **GRID))
    assert texts(decode(student, tokenizer, **GRID, kv_budget=7)) == expected
    assert texts(decode(student, tokenizer, **GRID, kv_budget=100)) == expected
    assert texts(decode(student, tokenizer, **GRID, kv_budget=4)) != expected


def test_memory_falls_with_the_slots(student, tokenizer):
    def held(**options):
        decoder = PoolDecoder(student, tokenizer, recurrences=8, temperatures="0", **options)
        stores = []
        make = decoder.engine.make_runner

        def making(stack, cache):
            stores.append(cache)
            return make(stack, cache)

        decoder.engine.make_runner = making
        decoder.generate(PROMPTS[:1], max_new_tokens=4, progress=False)
        cache = next(cache for cache in stores if cache.keys)
        stored = [*cache.keys.values(), *cache.values.values()]
        return sum(tensor.nbytes for tensor in stored) / stored[0].nbytes / 2

    core = student.config.n_layers_in_recurrent_block
    assert held() == 2 + 8 * core
    assert held(kv_budget=3) == 2 + 3 * core
    assert held(kv_budget=1) == 2 + core


def test_rows_are_counted_by_what_their_slots_take(student, tokenizer, monkeypatch):
    """``batch_size=auto`` asks how many rows fit."""
    core, size = student.config.n_layers_in_recurrent_block, 2 * 32 * 8  # keys and values of a layer, fp64
    monkeypatch.setattr(kv_cache, "free_memory", lambda device: 10**8)

    def fitting(level, **options):
        stack = PoolDecoder(student, tokenizer, recurrences=level, **options).stack
        return sum(stack.bytes_per_token.values()) / size, stack.rows_that_fit(256, level)

    assert [fitting(level)[0] for level in (1, 8)] == [2 + OWN * core] * 2, "the model's own"
    assert fitting(8, kv_budget=3)[0] == 2 + 3 * core
    few, many, shared = (fitting(*each)[1] for each in ((8,), (1,), (8,)))
    assert 1 < few == shared < many < 256
    assert fitting(8, kv_budget=1)[1] == many


# Speculation.


@pytest.mark.parametrize("few", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 4])
def test_drafts_change_no_rollout(few, count, student, tokenizer):
    options = {"temperatures": "0:0.4x2:1.3", "recurrences": "2:6", "top_p": 0.95}
    expected = texts(decode(student, tokenizer, **options))
    decoder = PoolDecoder(student, tokenizer, **options, draft_recurrences=few, draft_tokens=count)
    pools = decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)
    assert texts(pools) == expected
    assert 0 < decoder.draft_acceptance < 1


def settled_student():
    """A core block whose states are what is injected: every iteration says the same."""
    model = tiny_student()
    with torch.no_grad():
        adapter = model.transformer.adapter.weight
        adapter[:, : adapter.shape[0]] = 0.0
    return model


def test_where_few_recurrences_agree_with_all_drafts_are_accepted(tokenizer):
    model = settled_student()
    options = {"temperatures": "0:0.9", "recurrences": 6}
    expected = decode(model, tokenizer, **options)
    decoder = PoolDecoder(model, tokenizer, **options, draft_recurrences=1, draft_tokens=3)
    pools = decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)
    assert texts(pools) == texts(expected)
    # But for those after a rollout's end.
    assert decoder.draft_acceptance > 0.8
    more = [new.cost.flops / old.cost.flops for new, old in zip(pools, expected, strict=True)]
    assert max(more) < 1.6
    assert math.isnan(PoolDecoder(model, tokenizer, **options).draft_acceptance)
    # None is drafted that there is no room for.
    decoder = PoolDecoder(model, tokenizer, **options, draft_recurrences=1, draft_tokens=1000, share=False)
    pools = decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)
    assert texts(pools) == texts(expected)
    assert decoder.stack.drafted == (LENGTH - 1) * sum(map(len, pools))


def test_a_row_that_moves_leaves_what_was_verified_ahead(tokenizer):
    """Its keys and values do not move with it, so they are made again."""
    model, options = settled_student(), {"temperatures": "0", "recurrences": 6}

    def logprobs(**more):
        decoder = PoolDecoder(model, tokenizer, **options, **more, trace=True)
        pools = decoder.generate(PROMPTS, max_new_tokens=24, progress=False)
        return [pool[0].telemetry.token_logprobs for pool in pools]

    expected = logprobs()
    assert len(expected[1]) < len(expected[2]) - 4, "a row ends, and the last one takes its slot"
    for count in (4, 6, 8):
        found = logprobs(draft_recurrences=2, draft_tokens=count)
        assert [pytest.approx(each, abs=1e-4) for each in expected] == found, count


def test_drafts_cost_what_drafting_takes(tokenizer):
    """Where every draft is drawn nothing is made in vain; each costs the coda and head that drafted it."""
    model = settled_student()
    options = {"temperatures": "0", "recurrences": 6, "share": False}
    [plain] = decode(model, tokenizer, PROMPTS[:1], **options)
    assert plain[0].finish_reason == "length"
    decoder = PoolDecoder(model, tokenizer, **options, draft_recurrences=2, draft_tokens=3)
    [pool] = decoder.generate(PROMPTS[:1], max_new_tokens=LENGTH, progress=False)
    assert texts([pool]) == texts([plain])
    assert decoder.draft_acceptance == 1.0
    assert decoder.stack.drafted == LENGTH - LENGTH // 4
    assert pool.cost.plain_layer_tokens == plain.cost.plain_layer_tokens
    coda = model.config.n_layers_in_coda
    more = pool.cost.recursion_layer_tokens - plain.cost.recursion_layer_tokens
    assert more == coda * decoder.stack.drafted
    assert pool.cost.head_evaluations - plain.cost.head_evaluations == decoder.stack.drafted


# What is counted and recorded.


@pytest.mark.parametrize(("rule", "threshold"), [("kl", 1.0), ("entropy", 0.3)])
def test_an_exit_that_rounding_decides_is_a_tie(rule, threshold, student, tokenizer):
    """A threshold that is a distance itself is not met, and the next rounding may meet it."""

    def first(threshold):
        options = {"recurrences": 7, "temperatures": "0", "trace": True, "exit": rule}
        pool = decode(student, tokenizer, PROMPTS[:1], **options, exit_threshold=threshold)[0]
        work = pool[0].telemetry
        return work.token_divergences[0], work.token_iterations[0], work.token_ties[0]

    distance, made, tie = first(threshold)
    assert (made < 7, tie) == (True, 0)
    _, more, tie = first(distance)
    assert more > made
    assert tie == 1


def test_cost_counts_the_iterations_that_were_made(student, tokenizer):
    core, coda, outer = 2, 1, 2
    pool = decode(student, tokenizer, ["Tom"], recurrences="1:5", temperatures="0", share=False)[0]
    lengths = [len(rollout.tokens) for rollout in pool]
    prompt = 3
    assert pool.cost.plain_layer_tokens == outer * sum(prompt - 1 + length for length in lengths)
    assert pool.cost.recursion_layer_tokens == core * sum(
        level * (prompt - 1 + length) for level, length in zip((1, 5), lengths, strict=True)
    )
    assert pool.cost.head_evaluations == sum(lengths)
    decoder = PoolDecoder(student, tokenizer, recurrences=5, temperatures="0", exit="kl", exit_threshold=1.0)
    pool = decoder.generate("Tom", max_new_tokens=LENGTH, progress=False)[0]
    made = pool[0].telemetry.recursions
    length = len(pool[0].tokens)
    assert length < made < 5 * length
    checks = made - length  # a coda and a head for each iteration, one of which every token is charged
    assert pool.cost.recursion_layer_tokens == core * (5 * (prompt - 1) + made) + coda * checks
    assert pool.cost.head_evaluations == made == pool[0].telemetry.head_evaluations
    assert pool[0].telemetry.recursion_layer_tokens == core * made + coda * checks
    costs = decoder.engine.costs
    parameters = sum(each.numel() for each in student.transformer.core_block.parameters())
    parameters += student.transformer.adapter.weight.numel()
    assert costs.flops(core, 0) == 2 * parameters
    assert costs.depth == outer + core * OWN
    # Prompts are read once for all samples of a level.
    several = decode(student, tokenizer, ["Tom"], recurrences=3, temperatures="0:1x3")[0]
    assert several.cost.plain_layer_tokens == outer * (prompt - 1 + several.cost.rows)


def test_log_probabilities_can_be_recomputed(student, tokenizer):
    grid = {"recurrences": "2:7", "temperatures": "0:0.8"}
    for options in ({}, {"exit": "kl", "exit_threshold": 0.3}, {"kv_budget": 2}):
        decoder = PoolDecoder(student, tokenizer, **grid, trace=True, **options)
        pool = decoder.generate(PROMPTS[1], max_new_tokens=LENGTH, progress=False)[0]
        for rollout in pool:
            again = decoder.logprobs(PROMPTS[1], rollout)
            assert again == pytest.approx(rollout.telemetry.token_logprobs, abs=1e-5)


def test_nothing_is_gated_and_nothing_global_is_drawn(student, tokenizer):
    before = torch.random.get_rng_state()
    attention = student.config._attn_implementation
    student.train()
    pools = decode(student, tokenizer, **GRID)
    assert student.training
    student.eval()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert student.config._attn_implementation == attention
    for pool in pools:
        for rollout in pool:
            assert rollout.telemetry.gated_tokens == 0
            assert rollout.telemetry.changed_tokens == 0
            assert rollout.telemetry.recursions == rollout.cell.span * len(rollout.tokens)


# The original code, where it is there.


def test_the_original_code_is_decoded_as_its_own_forward(tokenizer):
    model = tiny_original()
    from lm_eval_eglr.recurrent.huginn import Huginn

    adapter = Huginn(model)
    for level in (1, OWN, 6):
        pools = decode(model, tokenizer, recurrences=level, temperatures="0")
        for prompt, pool in zip(PROMPTS, pools, strict=True):
            ids = tokenizer(prompt).input_ids
            tokens = torch.tensor([*ids, *pool[0].tokens])
            states = adapter.begin(torch.zeros(1, 32).double(), torch.arange(len(tokens)))
            logits = adapter.own_logits(tokens, level, states)
            assert logits[len(ids) - 1 : -1].argmax(-1).tolist() == list(pool[0].tokens)


@pytest.mark.parametrize(
    ("lookup", "options"),
    [
        ("latest-m4", {"exit": "kl", "exit_threshold": 0.02}),
        ("latest-m4", {"exit": "latent", "exit_threshold": 0.4}),
        ("compress-s8", {"kv_budget": 2}),
        ("compress-s12", {"kv_budget": 3}),
    ],
)
def test_exits_and_slots_are_those_of_the_original_cache(lookup, options, tokenizer):
    from lm_eval_eglr.recurrent.huginn import Huginn

    model, level = tiny_original(), 7
    adapter = Huginn(model)
    pools = decode(model, tokenizer, recurrences=level, temperatures="0", trace=True, **options)
    rule = exits_of(options.get("exit", "none"), options.get("exit_threshold"))
    found = set()
    for prompt, pool in zip(PROMPTS, pools, strict=True):
        tokens, made = slow_greedy(
            model,
            original_cache(lookup),
            tokenizer(prompt).input_ids,
            LENGTH,
            level,
            states=lambda positions, like: adapter.begin(like[0], positions),
            exits=rule,
        )
        assert list(pool[0].tokens) == tokens
        assert list(pool[0].telemetry.token_iterations) == made
        found |= set(made)
    assert (len(found) > 1) == ("exit" in options)


def original_cache(lookup):
    from recurrent_models import original_code

    return original_code().HuginnDynamicCache(lookup_strategy=lookup)
