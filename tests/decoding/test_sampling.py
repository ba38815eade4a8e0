"""Laws of the draws: the right distribution, transformers' own truncation, nothing impossible."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from lm_eval_eglr.decoding import sampling
from lm_eval_eglr.decoding.config import SamplingConfig
from lm_eval_eglr.decoding.numerics import CHUNK
from lm_eval_eglr.decoding.sampling import draw_tokens, truncation_of, warpers


def distribution(vocabulary=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(1, vocabulary, generator=generator)).log_softmax(-1)


def shares(logprobs, temperature, **options):
    """How often evenly spaced uniforms draw each token."""
    count = 200_000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5)[None] / count
    warp = warpers(truncation_of(SamplingConfig(**options)))
    tokens = draw_tokens(logprobs, torch.tensor([temperature]), uniforms, warp)[0]
    return torch.bincount(tokens[0], minlength=logprobs.shape[-1]) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 9, "top_p": 0.7, "min_p": 0.05}]
)
def test_draws_follow_what_transformers_would_sample_from(temperature, options, llama):
    logprobs = distribution()
    config = GenerationConfig(do_sample=True, temperature=temperature, **{"top_k": 0, **options})
    processors: LogitsProcessorList = llama._get_logits_processor(config, input_ids_seq_length=1)
    wanted = processors(torch.tensor([[0]]), logprobs.clone()).softmax(-1)[0]
    assert torch.allclose(shares(logprobs, temperature, **options), wanted, atol=2e-5)


def test_the_edges_of_the_unit_interval_draw_possible_tokens():
    logprobs = torch.tensor([[-torch.inf, 0.5, -torch.inf, 0.5, -torch.inf]]).log_softmax(-1)
    edges = torch.tensor([[0.0, 1 - 2.0**-53]], dtype=torch.float64)
    tokens = draw_tokens(logprobs, torch.tensor([1.0]), edges, warpers((0, 1.0, 0.0)))[0]
    assert tokens.tolist() == [[1, 3]]


def test_rows_have_temperatures_of_their_own():
    logprobs = distribution().expand(2, -1)
    uniforms = torch.linspace(0, 0.999, 1000, dtype=torch.float64).expand(2, -1)
    warp = warpers((0, 1.0, 0.0))
    cold, hot = draw_tokens(logprobs, torch.tensor([0.05, 5.0]), uniforms, warp)[0]
    assert len(set(cold.tolist())) < 5 < len(set(hot.tolist()))


def wide_rows():
    """Even ones, sorted ones, ones whose tokens are mostly impossible, and a single possible token."""
    rows = 3 * torch.randn(4, 70_001, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[1] = rows[1].sort().values
    rows[2, torch.arange(70_001) % 500 != 3] = -torch.inf
    rows[3] = -torch.inf
    rows[3, -1] = 0.0
    return rows.log_softmax(-1)


@pytest.mark.parametrize("options", [(0, 1.0, 0.0), (40, 0.9, 0.0)])
def test_a_large_vocabulary_is_drawn_from_as_a_small_one(options, monkeypatch):
    """By chunks, or by what is cumulative over all."""
    uniforms = torch.rand(4, 500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    uniforms[:, :2] = torch.tensor([0.0, 1 - 2.0**-53])
    given = wide_rows(), torch.tensor([0.7, 1.0, 1.3, 1.0], dtype=torch.float64), uniforms, warpers(options)
    tokens, margins, drawn = draw_tokens(*given)
    monkeypatch.setattr(sampling, "LARGE_ON_CPU", 1 << 40)
    others, their_margins, theirs = draw_tokens(*given)
    assert torch.equal(tokens, others)
    assert torch.allclose(drawn, theirs)
    near = their_margins < 1e-2
    assert near.any()
    assert torch.allclose(margins[near], their_margins[near], rtol=1e-6, atol=1e-11)
    assert not (margins < 9e-3)[:, 2:][~near[:, 2:]].any()


def test_of_a_large_vocabulary_nothing_impossible_is_drawn_whatever_rounding_does():
    """At the ends of the unit interval, and where a chunk ends, perhaps with impossible tokens."""
    logprobs = wide_rows().float()
    weights = (logprobs.double() / 0.3).exp()
    ends = weights.cumsum(-1)[:, CHUNK - 1 :: CHUNK] / weights.sum(-1, keepdim=True)
    steps = [ends + number * 1e-8 for number in range(-12, 13)]
    uniforms = torch.cat([torch.tensor([[0.0, 1.0]]).expand(4, -1), *steps], -1).clamp(0, 1 - 2.0**-53)
    uniforms = uniforms.sort().values
    tokens, _, drawn = draw_tokens(logprobs, torch.full((4,), 0.3), uniforms, warpers((0, 1.0, 0.0)))
    assert logprobs.gather(-1, tokens).isfinite().all()
    assert drawn.isfinite().all()
    assert (tokens.diff() >= 0).all()
