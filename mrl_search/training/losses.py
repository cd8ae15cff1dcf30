"""Losses: `MatryoshkaLoss` sums a criterion over prefixes; `InfoNCE` compares views of images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.errors import require

__all__ = ["InfoNCE", "MatryoshkaLoss"]


class InfoNCE(nn.Module):
    """Two views of an image attract, all other images repel (NT-Xent, arXiv 2002.05709, 2.1).

    Takes (2n, d) rows of any norm: rows i and n + i are the two views of image i. With a second
    argument n, rows beyond 2n only repel, as in a cross-batch memory (arXiv 1912.06798, 3.2). In
    place of n, an (n + rest,) int64 tensor numbers the subject of each image and of each row
    beyond 2n: rows of one subject do not repel.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, rows: Tensor, pairs: int | Tensor | None = None) -> Tensor:
        """Mean cross-entropy of finding the other view among all other rows."""
        if isinstance(pairs, Tensor):
            n = len(rows) - len(pairs)
            subject = torch.cat((pairs[:n], pairs))
        else:
            n = len(rows) // 2 if pairs is None else pairs
            subject = torch.arange(len(rows), device=rows.device)
        unit = F.normalize(rows.float(), dim=1)
        similarity = unit[: 2 * n] @ unit.T / self.temperature
        every = torch.arange(2 * n, device=rows.device)
        other = every.roll(n)
        same = subject[: 2 * n, None] == subject
        same[every, other] = False
        return F.cross_entropy(similarity.masked_fill(same, -torch.inf), other)


class MatryoshkaLoss(nn.Module):
    """The weighted sum of a criterion over prefixes (arXiv 2205.13147, equation 1).

    Args:
        criterion: called as `criterion(part, target)` with the part of each prefix.
        dims: prefix lengths.
        weights: weight of each prefix (c_m in the paper); 1 each by default.
    """

    def __init__(
        self, criterion: nn.Module, dims: Sequence[int], weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        require(
            not weights or len(weights) == len(dims),
            f"{len(weights)} weights for {len(dims)} dims; each prefix needs one.",
        )
        self.criterion = criterion
        self.dims = tuple(dims)
        self.weights = tuple(weights) or (1.0,) * len(self.dims)

    def forward(
        self, parts: Sequence[Tensor] | Tensor, target: Tensor | int | None = None
    ) -> Tensor:
        """The loss of `parts`: one tensor a prefix, or an embedding (n, dim) to take them from."""
        weights = self.weights
        if isinstance(parts, Tensor):
            used = [(w, d) for w, d in zip(weights, self.dims, strict=True) if w]
            weights = tuple(w for w, _ in used)
            zero, parts = parts.sum() * 0, [parts[:, :d] for _, d in used]
        terms = [w * self.criterion(part, target) for w, part in zip(weights, parts, strict=True)]
        return torch.stack(terms).sum() if terms else zero
