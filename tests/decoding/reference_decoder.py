"""Recursion written the slow and obvious way: whole sequences, no cache, the model's own forward.

A recursion at the newest position is the model's forward with the input of layer N - L replaced at that
position; since attention is causal, nothing else changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class ReferenceDecoder:
    def __init__(self, model: PreTrainedModel, span: int, **options: float | str) -> None:
        self.model = model
        decoder = model.get_decoder()
        depth = model.config.num_hidden_layers
        self.layers = next(m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m) == depth)
        names = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
        self.norm = next(getattr(decoder, name) for name in names if hasattr(decoder, name))
        self.span = span
        self.options = options

    @contextmanager
    def _replaced(self, module: nn.Module, values: dict[int, Tensor], seen: list[Tensor]) -> Iterator[None]:
        """Replaces a module's input at some positions and notes what it would have been."""

        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            hidden = args[0] if args else kwargs["hidden_states"]
            seen.append(hidden[0, -1])
            hidden = hidden.clone()
            for position, value in values.items():
                hidden[0, position] = value
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _forward(
        self, tokens: list[int], inputs: dict[int, Tensor], outputs: dict[int, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x_{N-L}, x_N and ln p at the last position, with layer inputs and final states replaced."""
        anchor: list[Tensor] = []
        final: list[Tensor] = []
        layer = self.layers[len(self.layers) - self.span]
        with self._replaced(layer, inputs, anchor), self._replaced(self.norm, outputs, final):
            logits = self.model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        return anchor[0], final[0], logits.log_softmax(-1)

    @torch.no_grad()
    def greedy(self, prompt: list[int], count: int, tau: float) -> tuple[list[int], list[int]]:
        """Tokens, and iterations per token, of greedy decoding."""
        options = self.options
        alpha = options.get("strength", 0.2)
        update = options.get("update", "anchored")
        tokens, iterations = list(prompt), []
        for _ in range(count):
            last = len(tokens) - 1
            anchor, hidden, logp = self._forward(tokens, {}, {})
            entropy = -(logp.exp() * logp).sum()
            done = 0
            while entropy > tau and done < options.get("max_recursions", 4):
                z = hidden
                if update == "anchored":
                    scale = anchor.square().mean().sqrt() / hidden.square().mean().sqrt()
                    z = (1 - alpha) * anchor + alpha * hidden * scale
                _, applied, new = self._forward(tokens, {last: z}, {})
                if update == "damped":
                    applied = hidden + alpha * (applied - hidden)
                    new = self._forward(tokens, {}, {last: applied})[2]
                moved = {
                    "kl": (new.exp() * (new - logp)).sum(),
                    "entropy": ((logp.exp() * logp).sum() - (new.exp() * new).sum()).abs(),
                    "latent": (applied - hidden).norm() / applied.norm(),
                    "none": math.inf,
                }[options.get("exit", "kl")]
                hidden, logp, done = applied, new, done + 1
                if moved < options.get("exit_threshold", options.get("tolerance", 1e-3)):
                    break
            tokens.append(int(logp.argmax()))
            iterations.append(done)
        return tokens[len(prompt) :], iterations
