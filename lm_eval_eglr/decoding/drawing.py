"""The draws of one step: each cell's token from its distribution, equal draws made once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import repeat

import torch
from torch import Tensor

from lm_eval_eglr.decoding.distributions import Distributions
from lm_eval_eglr.decoding.rows import Place, Row
from lm_eval_eglr.decoding.sampling import Truncation, draw_with_margins, truncation, truncation_key
from lm_eval_eglr.decoding.ties import draw_ties


def draw_tokens(rows: Sequence[Row], distributions: Distributions, rounding: float) -> dict[Place, int]:
    """Draws a token for every cell of every row.

    A recursed cell draws a second time, from p_0 by the same uniform: the two differ where the recursion
    changed the token.

    Args:
        rows: The live rows.
        distributions: What their cells draw from; the draws that rounding decides and those that the
            recursion changed are marked in it.
        rounding: How far a log-probability moves by rounding, nats.

    Returns:
        Token ids by place. A cell whose distribution is not finite gets none.
    """
    drawn: dict[Place, int] = {}
    unrecursed: dict[Place, int] = {}
    greedy: dict[int, list[Place]] = defaultdict(list)
    sampled: dict[Truncation, dict[tuple[int, float], list[Place]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(rows):
        plain = distributions.entry(number, 0)
        for place, branch in enumerate(row.branches):
            entry = distributions.entry(number, branch.cell.span)
            temperature = branch.cell.temperature
            if math.isnan(distributions.entropies[entry]):
                continue
            for source in (entry,) if entry == plain else (entry, plain):
                if temperature:
                    key = truncation_key(row.job.request.sampling)
                    sampled[key][source, temperature].append((number, place))
                else:
                    greedy[source].append((number, place))

    def keep(entry: int, cells: Sequence[Place], tokens: Iterable[int], ties: Iterable[bool]) -> None:
        for cell, token, tie in zip(cells, tokens, ties, strict=False):  # shorter groups were padded
            number, place = cell
            if entry != distributions.entry(number, rows[number].branches[place].cell.span):
                unrecursed[cell] = token
                continue
            drawn[cell] = token
            if tie:
                distributions.ties.add(cell)

    logprobs = distributions.logprobs
    if greedy:
        tokens = logprobs[list(greedy)].argmax(-1).tolist()
        for token, (entry, cells) in zip(tokens, greedy.items(), strict=True):
            keep(entry, cells, repeat(token), repeat(False))  # its ties are counted with its telemetry
    for key, groups in sampled.items():
        uniforms = _uniforms(rows, list(groups.values())).to(logprobs.device)
        entries = [entry for entry, _ in groups]
        temperatures = torch.tensor([temperature for _, temperature in groups], device=logprobs.device)
        table, margins = draw_with_margins(logprobs[entries], temperatures, uniforms, truncation(key))
        ties = draw_ties(margins, temperatures, rounding)
        for line, tied, entry, cells in zip(table.tolist(), ties, entries, groups.values(), strict=True):
            keep(entry, cells, line, tied)
    distributions.changed.update(cell for cell, token in unrecursed.items() if token != drawn[cell])
    return drawn


def _uniforms(rows: Sequence[Row], groups: Sequence[Sequence[Place]]) -> Tensor:
    """The cells' uniforms for this step, ``[groups, cells of the largest group]``."""
    table = []
    for cells in groups:
        branches = [rows[number].branches[place] for number, place in cells]
        table.append([branch.stream.uniform(len(branch.tokens)) for branch in branches])
    most = max(map(len, table))
    return torch.tensor([[*line, *[0.0] * (most - len(line))] for line in table], dtype=torch.float64)
