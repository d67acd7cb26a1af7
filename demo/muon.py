"""Muon (Jordan et al., 2024) in float32; PyTorch's own rounds to bfloat16, which is eight times slower on a CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Approximate the nearest semi-orthogonal matrices by a quintic Newton-Schulz iteration.

    Args:
        matrices: shape (matrices, rows, columns), rows at most columns.
        iterations: five bring every singular value near 1.
    """
    a, b, c = _COEFFICIENTS
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon:
    """Momentum, orthogonalised, for the weight matrices of a transformer's layers."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        self.groups: dict[tuple[int, int], list[torch.nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            self.groups[(min(parameter.shape), max(parameter.shape))].append(parameter)
        self.velocity = {id(p): torch.zeros_like(p) for p in parameters}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update once with Nesterov momentum; the shape scales ``lr``, as Jordan does."""
        for parameters in self.groups.values():
            updates = []
            for p in parameters:
                velocity = self.velocity[id(p)]
                velocity.lerp_(p.grad, 1 - self.momentum)
                update = p.grad.lerp(velocity, self.momentum)
                updates.append(update.mT if update.shape[0] > update.shape[1] else update)
            for p, update in zip(parameters, orthogonalise(torch.stack(updates)), strict=True):
                tall = p.shape[0] > p.shape[1]
                p.add_(update.mT if tall else update, alpha=-lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
