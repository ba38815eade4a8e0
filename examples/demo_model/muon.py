"""Muon, an optimizer for the matrices of hidden layers, in fp32.

torch's own computes in bf16, which takes twenty times as long on a processor without bf16 arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each matrix is made nearly orthogonal (Jordan et al. 2024).

    Updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that both take the same
    learning rate. Matrices of one shape are worked on together.

    Args:
        matrices: Parameters ``[rows, columns]``.
        lr: Learning rate.
        momentum: Decay of the momentum, which is Nesterov's.
        weight_decay: Decoupled from the gradient, as in AdamW.
    """

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient."""
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for matrix in group["params"]:
                of_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in of_shape.items():
                gradient = torch.stack([matrix.grad for matrix in matrices])
                state = self.state[matrices[0]]
                average = state.setdefault("average", torch.zeros_like(gradient))
                average.lerp_(gradient, 1 - group["momentum"])
                update = orthogonal(gradient.lerp(average, group["momentum"]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for matrix, change in zip(matrices, update, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=size)


def orthogonal(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Returns nearly orthogonal matrices with the same singular vectors, by a Newton–Schulz iteration.

    Args:
        matrices: ``[count, rows, columns]``.
        iterations: With Jordan's coefficients five leave singular values between about 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
