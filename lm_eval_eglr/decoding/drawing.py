"""The draws of one step: each cell's token from its distribution, equal draws made once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from lm_eval_eglr.decoding.distributions import Distributions
from lm_eval_eglr.decoding.rows import Place, Row
from lm_eval_eglr.decoding.sampling import Truncation, draw_with_margins, truncation, truncation_key
from lm_eval_eglr.decoding.ties import draw_ties


def draw_tokens(rows: Sequence[Row], distributions: Distributions, rounding: float) -> dict[Place, int]:
    """Draws a token for every cell of every row.

    Args:
        rows: The live rows.
        distributions: What their cells draw from; the draws that rounding decides are marked in it.
        rounding: How far a log-probability moves by rounding, nats.

    Returns:
        Token ids by place. A cell whose distribution is not finite gets none.
    """
    drawn: dict[Place, int] = {}
    greedy: dict[int, list[Place]] = defaultdict(list)
    sampled: dict[Truncation, dict[tuple[int, float], list[Place]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(rows):
        for place, branch in enumerate(row.branches):
            entry = distributions.entry(number, branch.cell.span)
            temperature = branch.cell.temperature
            if math.isnan(distributions.entropies[entry]):
                continue
            if temperature:
                key = truncation_key(row.job.request.sampling)
                sampled[key][entry, temperature].append((number, place))
            else:
                greedy[entry].append((number, place))
    logprobs = distributions.logprobs
    if greedy:
        tokens = logprobs[list(greedy)].argmax(-1).tolist()
        for token, cells in zip(tokens, greedy.values(), strict=True):
            drawn.update(dict.fromkeys(cells, token))
    for key, groups in sampled.items():
        uniforms = _uniforms(rows, list(groups.values())).to(logprobs.device)
        entries = [entry for entry, _ in groups]
        temperatures = torch.tensor([temperature for _, temperature in groups], device=logprobs.device)
        table, margins = draw_with_margins(logprobs[entries], temperatures, uniforms, truncation(key))
        ties = draw_ties(margins, temperatures, rounding)
        for line, tied, cells in zip(table.tolist(), ties, groups.values(), strict=True):
            drawn.update(zip(cells, line, strict=False))  # shorter groups were padded
            distributions.ties.update(cell for cell, tie in zip(cells, tied, strict=False) if tie)
    return drawn


def _uniforms(rows: Sequence[Row], groups: Sequence[Sequence[Place]]) -> Tensor:
    """The cells' uniforms for this step, ``[groups, cells of the largest group]``."""
    uniforms = torch.zeros(len(groups), max(map(len, groups)), dtype=torch.float64)
    for i, cells in enumerate(groups):
        for j, (number, place) in enumerate(cells):
            branch = rows[number].branches[place]
            uniforms[i, j] = branch.stream.uniform(len(branch.tokens))
    return uniforms
