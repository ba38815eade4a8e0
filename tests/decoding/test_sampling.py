"""Laws of the draws: the right distribution, transformers' own truncation, nothing impossible."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from lm_eval_eglr.decoding.config import SamplingConfig
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
