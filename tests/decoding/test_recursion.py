"""Laws of the gate's entropy, the update rules, the divergence and the items that are on their way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.depth import UPDATE_RULES, update_rule
from lm_eval_eglr.decoding.model.passes import PassOutput, Residuals
from lm_eval_eglr.decoding.numerics import entropy, kl_divergence, statistics
from lm_eval_eglr.decoding.recursion import ActiveRecursions, Verdict

INF = math.inf


def recursion_input(update: str, *args: Any) -> torch.Tensor:
    return UPDATE_RULES[update].input(*args)


def recursion_output(update: str, *args: Any) -> torch.Tensor:
    return UPDATE_RULES[update].output(*args)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_entropy_is_that_of_the_definition() -> None:
    assert entropy(logs(0.25, 0.25, 0.25, 0.25)).item() == pytest.approx(math.log(4))
    assert entropy(logs(0.5, 0.5, 0.0, 0.0)).item() == pytest.approx(math.log(2))
    assert entropy(logs(1.0, 0.0)).item() == 0
    rows = torch.stack([logs(0.9, 0.1), logs(0.5, 0.5)])
    assert entropy(rows).tolist() == pytest.approx([-0.9 * math.log(0.9) - 0.1 * math.log(0.1), math.log(2)])


def test_divergence_is_that_of_the_definition() -> None:
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl_divergence(logs(0.75, 0.25), logs(0.5, 0.5)).item() == pytest.approx(wanted)
    assert kl_divergence(logs(0.5, 0.5, 0), logs(0.5, 0.25, 0.25)).item() == pytest.approx(math.log(2) / 2)
    assert kl_divergence(logs(0.5, 0.5, 0), logs(0.5, 0.5, 0)).item() == 0
    assert kl_divergence(logs(0.5, 0.5), logs(1, 0)).item() > 1e300  # impossible before, possible now
    rows = torch.randn(50, 9).log_softmax(-1)
    assert (kl_divergence(rows, rows + 1e-8 * torch.randn(50, 9)) >= 0).all()  # rounding would be below 0


def test_what_is_not_a_number_stays_so() -> None:
    broken = torch.tensor([math.nan, -1.0], dtype=torch.float64)
    assert entropy(broken).isnan()
    assert kl_divergence(broken, logs(0.5, 0.5)).isnan()


@pytest.mark.parametrize("width", [3, 20, 700, 5119, 5120, 40_001])
def test_statistics_are_those_of_the_definitions(width: int) -> None:
    """Of even rows, of rows with equal and impossible tokens, and whose likeliest tokens are side by side."""
    rows = torch.randn(4, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[1] = rows[1].round()
    rows[2, 1::2] = -INF
    rows[3] = rows[3].sort().values
    rows = rows.log_softmax(-1)
    likeliest = rows.sort(-1, descending=True).values[:, :20]
    found = statistics(rows)
    assert torch.equal(found[0], entropy(rows))
    assert torch.allclose(found[1], -likeliest.mean(-1))
    assert torch.allclose(found[2], -rows.mean(-1) - math.log(width))
    assert torch.equal(found[3], likeliest[:, 0] - likeliest[:, 1])
    rows[0, -1] = math.nan
    assert statistics(rows)[0].isnan().tolist() == [True, False, False, False]


@pytest.mark.parametrize("update", ["replace", "damped"])
def test_other_updates_apply_the_layers_to_the_last_state(update: Any) -> None:
    anchor, hidden = torch.randn(3, 4), torch.randn(3, 4)
    assert recursion_input(update, 0.3, anchor, hidden) is hidden


def test_the_anchored_input_is_a_mixture_of_the_anchor_and_the_state_at_the_anchors_size() -> None:
    anchor, hidden = torch.tensor([[3.0, -3.0]]), torch.tensor([[1.0, 1.0]])

    def mixed(strength: float, hidden: torch.Tensor) -> list[float]:
        return recursion_input("anchored", strength, anchor, hidden)[0].tolist()

    assert mixed(0.25, hidden) == pytest.approx([3.0, -1.5])
    assert mixed(0.25, 1000 * hidden) == pytest.approx([3.0, -1.5])
    assert mixed(0.0, hidden) == [3.0, -3.0]
    assert mixed(0.5, 0 * hidden) == [1.5, -1.5]


def test_the_size_is_that_of_each_row() -> None:
    anchor, hidden = torch.tensor([[3.0, -3.0], [1.0, 7.0]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    assert recursion_input("anchored", 1.0, anchor, hidden).flatten().tolist() == pytest.approx([3, 3, 5, 5])


def test_each_row_is_mixed_at_its_own_anchors_size() -> None:
    anchors, states = torch.tensor([[3.0, -3.0], [14.0, 2.0]]), torch.tensor([[100.0, 100.0], [0.5, 3.5]])
    mixed = recursion_input("anchored", 0.5, anchors, states)  # the states at the anchors' sizes: 3 and 10
    assert mixed.flatten().tolist() == pytest.approx([3, 0, 8, 8], abs=1e-6)
    for row in range(2):
        alone = recursion_input("anchored", 0.5, anchors[row : row + 1], states[row : row + 1])
        assert mixed[row].tolist() == alone[0].tolist()


def test_sizes_beyond_half_precision_are_mixed_in_single() -> None:
    anchor = torch.tensor([[300.0, -300.0]], dtype=torch.float16)  # whose squares overflow
    mixed = recursion_input("anchored", 0.5, anchor, anchor / 300)
    assert mixed.dtype == torch.float16
    assert mixed.tolist() == [[300.0, -300.0]]
    damped = recursion_output("damped", 0.5, torch.tensor([65504.0]).half(), torch.tensor([-65504.0]).half())
    assert damped.dtype == torch.float16
    assert damped.tolist() == [0.0]


def test_only_damping_keeps_some_of_the_last_state() -> None:
    previous, applied = torch.tensor([[0.0, 8.0]]), torch.tensor([[4.0, 0.0]])
    assert recursion_output("damped", 0.25, previous, applied).tolist() == [[1.0, 6.0]]
    assert recursion_output("anchored", 0.25, previous, applied) is applied
    assert recursion_output("replace", 0.25, previous, applied) is applied


def residuals(rows: int) -> Residuals:
    """A pass of four layers whose row r has x_N = [r, r] and x_{N−L} = [r, L]."""
    numbers = torch.arange(float(rows))
    ends = torch.stack([numbers, numbers], -1)[:, None]
    begins = {
        span: torch.stack([numbers, torch.full((rows,), float(span))], -1)[:, None] for span in (1, 2, 3, 4)
    }
    return Residuals(4, {4 - span: hidden for span, hidden in begins.items()}, ends)


EVEN = logs(0.5, 0.5)
NONE = np.zeros(0, np.int64)


def add(active: ActiveRecursions, rows: list[int], spans: list[int], ended: list[bool] | None = None) -> None:
    """Lets rows of a pass, whose distributions are even, be recursed; each row's slot is its number.

    Those in flight make an iteration beside them, which leaves their states as they are.
    """
    count = 1 + max(rows, default=0)
    even = EVEN.expand(count + len(active), -1).clone()
    output = PassOutput(even, active.states, residuals(count))
    verdict = active.step(output, count)
    gone = np.array(ended if ended is not None else [False] * len(active), bool)
    active.update(gone, output, verdict, np.array(rows, np.int64), np.array(rows), np.array(spans, np.int64))


def iterate(active: ActiveRecursions, logprobs: torch.Tensor, states: torch.Tensor | None = None) -> Verdict:
    """Ends an iteration, and lets those leave that have ended."""
    states = active.states if states is None else active.outputs(states)
    output = PassOutput(logprobs, states, residuals(1))
    verdict = active.step(output, 0)
    active.update(verdict.ended.numpy(), output, verdict, NONE, NONE, NONE)
    return verdict


CONFIG = RecursionConfig(update="replace", tolerance=0.01, max_recursions=3, entropy_threshold=0.0)


def begun(*spans: int, config: RecursionConfig = CONFIG) -> ActiveRecursions:
    active = ActiveRecursions(config, 0.0)
    add(active, list(range(len(spans))), list(spans))
    return active


def test_the_deepest_is_first_and_keeps_its_own_state() -> None:
    active = begun(1, 3, 2, 3)
    assert active.spans.tolist() == [3, 3, 2, 1]
    assert active.slots.tolist() == [1, 3, 2, 0]
    assert active.inputs().tolist() == [[1, 1], [3, 3], [2, 2], [0, 0]]
    add(active, [7], [2])
    assert active.spans.tolist() == [3, 3, 2, 2, 1]
    assert active.slots.tolist() == [1, 3, 2, 7, 0]
    assert active.inputs()[3].tolist() == [7, 7]


def test_one_that_joins_others_is_mixed_with_its_own_anchor() -> None:
    active = begun(2, config=RecursionConfig(update="anchored", strength=0.0))
    add(active, [7], [4])
    assert active.inputs().tolist() == [[7, 4], [0, 2]]


def test_a_damped_one_keeps_some_of_its_own_last_state() -> None:
    active = begun(1, 2, config=RecursionConfig(update="damped", strength=0.25))
    assert active.inputs().tolist() == [[1, 1], [0, 0]]
    applied = torch.tensor([[5.0, 9.0], [4.0, -8.0]])
    assert active.outputs(applied).tolist() == [[2.0, 3.0], [1.0, -2.0]]
    iterate(active, torch.stack([logs(0.9, 0.1)] * 2), applied)
    assert active.inputs().tolist() == [[2.0, 3.0], [1.0, -2.0]]
    assert active.outputs(applied)[1].tolist() == [1.75, -3.5]  # from the state before, not from the first


def test_one_ends_when_it_has_converged_or_has_had_all_iterations() -> None:
    active = begun(2, 1)
    there = 0.8 * math.log(9)
    wanted = [math.log(2) - entropy(logs(0.9, 0.1)).item(), there, there]
    for step in range(3):
        new = [EVEN, logs(0.9, 0.1) if step % 2 == 0 else logs(0.1, 0.9)]
        verdict = iterate(active, torch.stack(new[-len(active) :]), torch.full((len(active), 2), float(step)))
        assert verdict.field("divergence")[-1].item() == pytest.approx(wanted[step])
        assert verdict.field("iterations").tolist() == [step + 1] * (2 if step == 0 else 1)
        assert verdict.field("entropy").tolist() == pytest.approx([math.log(2)] * len(verdict.ended))
        if step == 0:
            assert verdict.field("converged").tolist() == [1, 0]
            assert verdict.ended.tolist() == [True, False]
            assert verdict.field("divergence")[0] == 0
        else:
            assert not verdict.field("converged").any()
        assert active.slots.tolist() == ([1] if step < 2 else [])


def test_a_divergence_at_the_tolerance_has_not_converged() -> None:
    step = kl_divergence(logs(0.6, 0.4), EVEN).item()
    for tolerance, converged in ((step, False), (math.nextafter(step, INF), True)):
        active = begun(1, config=RecursionConfig(tolerance=tolerance, max_recursions=1))
        verdict = iterate(active, logs(0.6, 0.4)[None])
        assert (bool(verdict.field("converged")), len(active)) == (converged, 0)


def test_distributions_that_are_not_finite_end_with_the_iterations() -> None:
    active = begun(1)
    for _ in range(3):
        verdict = iterate(active, torch.full((1, 2), math.nan, dtype=torch.float64))
    assert len(active) == 0
    assert not verdict.field("converged")
    assert verdict.field("refined_entropy").isnan().all()


def test_those_that_ended_are_forgotten_while_others_join() -> None:
    active = begun(1, 2, 3)
    add(active, [5], [2], ended=[False, True, False])
    assert active.slots.tolist() == [2, 5, 0]
    assert active.inputs().tolist() == [[2, 2], [5, 5], [0, 0]]


def test_rows_that_move_are_followed() -> None:
    active = begun(1, 2, 3)
    active.move(np.array([9, 1, 0]))
    assert active.slots.tolist() == [0, 1, 9]


def test_a_rule_of_ones_own_is_a_class(llama: Any, tokenizer: Any) -> None:
    @update_rule("nothing")
    class Nothing:
        def input(self, strength, anchor, hidden):
            return anchor

        def output(self, strength, previous, applied):
            return applied

    try:
        options = {"spans": "0:2", "temperatures": "0", "entropy_threshold": 0.5}
        pools = PoolDecoder(llama, tokenizer, update="nothing", **options).generate(
            "Tom has", max_new_tokens=6, progress=False
        )
    finally:
        del UPDATE_RULES["nothing"]
    plain, recursed = pools[0]
    assert recursed.telemetry.recursions
    assert recursed.tokens == plain.tokens  # layers applied to what they had been applied to
    with pytest.raises(ValueError, match="update='nothing': expected one of anchored, damped, replace"):
        PoolDecoder(llama, tokenizer, update="nothing")
