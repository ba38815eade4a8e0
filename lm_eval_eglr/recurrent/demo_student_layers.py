"""Sizes and layers of the recurrent-depth model that ships as ``demo-recurrent``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the rotary embedding, ``[batch or 1, 1, tokens, head_dim]``."""


@strict
class RecurrentStudentConfig(PreTrainedConfig):
    """Sizes, under Huginn's names where Huginn has them.

    Attributes:
        mean_recurrence: Iterations r that the model makes where nobody says otherwise.
        n_layers_in_prelude: Layers that embed the input.
        n_layers_in_recurrent_block: Layers of one iteration.
        n_layers_in_coda: Layers between the last state and the head.
    """

    model_type = "eglr_recurrent_student"
    keys_to_ignore_at_inference = ("past_key_values",)

    vocab_size: int = 747
    hidden_size: int = 128
    intermediate_size: int = 320
    num_attention_heads: int = 4
    mean_recurrence: int = 8
    n_layers_in_prelude: int = 1
    n_layers_in_recurrent_block: int = 2
    n_layers_in_coda: int = 1
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    @property
    def init_values(self) -> dict[str, float]:
        """Standard deviation of the first state, which Huginn's config gives here: it is zero."""
        return {"std": 0.0}


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    def __init__(self, config: RecurrentStudentConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, rotation: Rotation, block_idx: int, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Attends; ``block_idx`` is where the cache keeps the keys and values of this call."""
        batch, tokens, dim = x.shape
        projected = self.query_key_value(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, rotation), rotate(key, rotation)
        if cache is not None:
            key, value = cache.update(key, value, block_idx)
        width = key.shape[2]
        if mask is None and 1 < tokens < width:
            mask = torch.ones(tokens, width, dtype=torch.bool, device=x.device).tril(width - tokens)
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None and tokens > 1
        )
        return self.out(out.transpose(1, 2).reshape(batch, tokens, dim))


class MLP(nn.Module):
    """Gated by SiLU."""

    def __init__(self, config: RecurrentStudentConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Works token by token."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """Attention, then the MLP, each after a norm."""

    def __init__(self, config: RecurrentStudentConfig) -> None:
        super().__init__()
        self.norm_1 = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attn = Attention(config)
        self.norm_2 = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, rotation: Rotation, block_idx: int, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """The next residual stream, ``[batch, tokens, dim]``."""
        x = x + self.attn(self.norm_1(x), rotation, block_idx, mask, cache)
        return x + self.mlp(self.norm_2(x))


class Parts(nn.Module):
    """The parts of the model, under Huginn's names."""

    def __init__(self, config: RecurrentStudentConfig) -> None:
        super().__init__()
        dim, eps = config.hidden_size, config.rms_norm_eps

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(Block(config) for _ in range(count))

        self.wte = nn.Embedding(config.vocab_size, dim)
        self.prelude = blocks(config.n_layers_in_prelude)
        self.ln_prelude = nn.RMSNorm(dim, eps=eps)
        self.adapter = nn.Linear(2 * dim, dim, bias=False)
        self.core_block = blocks(config.n_layers_in_recurrent_block)
        self.ln_core = nn.RMSNorm(dim, eps=eps)
        self.coda = blocks(config.n_layers_in_coda)
        self.ln_f = nn.RMSNorm(dim, eps=eps)  # after the recurrence and after the coda

    @property
    def outer_layers(self) -> int:
        """Layers that run once per token."""
        return len(self.prelude) + len(self.coda)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotates queries or keys ``[batch, heads, tokens, head_dim]`` by their positions (arXiv 2104.09864)."""
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines
