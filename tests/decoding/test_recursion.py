"""Laws of the gate's entropy, the update rules, the divergence and the items that are on their way."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lm_eval_eglr.decoding.items import Item, Items
from lm_eval_eglr.decoding.passes import Residuals

from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.recursion import entropy, kl_divergence, recursion_input, recursion_output, rms

INF = math.inf


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


@pytest.mark.parametrize("update", ["replace", "damped"])
def test_other_updates_apply_the_layers_to_the_last_state(update: Any) -> None:
    anchor, hidden = torch.randn(3, 4), torch.randn(3, 4)
    assert recursion_input(update, 0.3, anchor, hidden) is hidden


def test_the_anchored_input_is_a_mixture_of_the_anchor_and_the_state_at_the_anchors_size() -> None:
    anchor, hidden = torch.tensor([[3.0, -3.0]]), torch.tensor([[1.0, 1.0]])
    assert recursion_input("anchored", 0.25, anchor, hidden).tolist() == [[3.0, -1.5]]
    assert recursion_input("anchored", 0.25, anchor, 1000 * hidden).tolist() == [[3.0, -1.5]]
    assert recursion_input("anchored", 0.0, anchor, hidden).tolist() == anchor.tolist()
    assert recursion_input("anchored", 0.5, anchor, 0 * hidden).tolist() == [[1.5, -1.5]]


def test_the_size_is_that_of_each_row() -> None:
    assert rms(torch.tensor([[[3.0, -3.0]], [[1.0, 7.0]]])).tolist() == [[[3.0]], [[5.0]]]


def test_each_row_is_mixed_at_its_own_anchors_size() -> None:
    anchors, states = torch.tensor([[3.0, -3.0], [14.0, 2.0]]), torch.tensor([[100.0, 100.0], [0.5, 3.5]])
    mixed = recursion_input("anchored", 0.5, anchors, states)  # the states at the anchors' sizes: 3 and 10
    assert mixed.tolist() == [[3.0, 0.0], [8.0, 8.0]]
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


def joined(*spans: int, config: RecursionConfig | None = None) -> tuple[Items[str], list[Item[str]]]:
    """Items of rows 0, 1, ... whose distributions are even, and the items as they were given."""
    items: Items[str] = Items(config or RecursionConfig(update="replace", tolerance=0.01, max_recursions=3))
    given = [Item(f"owner {number}", span) for number, span in enumerate(spans)]
    items.join(given, residuals(len(spans)), range(len(spans)), logs(0.5, 0.5).expand(len(spans), -1))
    return items, given


def test_the_deepest_item_is_first_and_keeps_its_own_state() -> None:
    items, _ = joined(1, 3, 2, 3)
    assert items.spans == [3, 3, 2, 1]
    assert items.owners == ["owner 1", "owner 3", "owner 2", "owner 0"]
    assert items.inputs().tolist() == [[1, 1], [3, 3], [2, 2], [0, 0]]
    later = Item("late", 2)
    items.join([later], residuals(9), [7], logs(0.5, 0.5)[None])
    assert items.spans == [3, 3, 2, 2, 1]
    assert items.owners[3] == "late"
    assert items.inputs()[3].tolist() == [7, 7]


def test_an_item_that_joins_others_is_mixed_with_its_own_anchor() -> None:
    items, _ = joined(2, config=RecursionConfig(update="anchored", strength=0.0))
    items.join([Item("late", 4)], residuals(9), [7], logs(0.5, 0.5)[None])
    assert items.inputs().tolist() == [[7, 4], [0, 2]]


def test_a_damped_item_keeps_some_of_its_own_last_state() -> None:
    items, _ = joined(1, 2, config=RecursionConfig(update="damped", strength=0.25))
    assert items.inputs().tolist() == [[1, 1], [0, 0]]
    applied = torch.tensor([[5.0, 9.0], [4.0, -8.0]])
    assert items.outputs(applied).tolist() == [[2.0, 3.0], [1.0, -2.0]]
    assert items.inputs().tolist() == [[2.0, 3.0], [1.0, -2.0]]
    assert items.outputs(applied)[1].tolist() == [1.75, -3.5]  # from the state before, not from the first


def test_an_item_ends_when_it_has_converged_or_has_had_all_iterations() -> None:
    items, (deep, shallow) = joined(2, 1)
    for step in range(3):
        new = [logs(0.5, 0.5), logs(0.9, 0.1) if step % 2 == 0 else logs(0.1, 0.9)]
        items.outputs(torch.full((len(items), 2), float(step)))
        assert items.inputs().tolist() == [[step, step]] * len(items)
        items.observe(torch.stack(new[-len(items) :]))
        assert len(items) == (1 if step < 2 else 0)
    assert deep.converged
    assert not shallow.converged
    assert deep.divergences == [0.0]
    there = 0.8 * math.log(9)
    assert shallow.divergences == pytest.approx([math.log(2) - entropy(logs(0.9, 0.1)).item(), there, there])
    assert deep.logprobs is not None
    assert shallow.logprobs is not None
    assert deep.logprobs.tolist() == logs(0.5, 0.5).tolist()
    assert shallow.logprobs.tolist() == logs(0.9, 0.1).tolist()
    assert deep.entropy == pytest.approx(math.log(2))
    assert shallow.entropy == pytest.approx(entropy(logs(0.9, 0.1)).item())


def test_a_divergence_at_the_tolerance_has_not_converged() -> None:
    step = kl_divergence(logs(0.6, 0.4), logs(0.5, 0.5)).item()
    for tolerance, converged in ((step, False), (math.nextafter(step, INF), True)):
        items, (item,) = joined(1, config=RecursionConfig(tolerance=tolerance, max_recursions=1))
        items.observe(logs(0.6, 0.4)[None])
        assert (item.converged, len(items)) == (converged, 0)


def test_distributions_that_are_not_finite_end_with_the_iterations() -> None:
    items, (item,) = joined(1)
    for _ in range(3):
        items.observe(torch.full((1, 2), math.nan, dtype=torch.float64))
    assert len(items) == 0
    assert not item.converged
    assert math.isnan(item.entropy)


def test_items_of_owners_that_ended_are_forgotten() -> None:
    items, given = joined(1, 2, 3)
    items.keep(lambda owner: owner != "owner 1")
    assert items.owners == ["owner 2", "owner 0"]
    assert items.inputs().tolist() == [[2, 2], [0, 0]]
    items.observe(logs(0.5, 0.5).expand(2, -1))
    assert [item.converged for item in given] == [True, False, True]
