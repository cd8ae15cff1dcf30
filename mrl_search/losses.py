"""Losses: `MatryoshkaLoss` sums any criterion over the prefixes of an embedding; `InfoNCE` is the criterion of instance similarity."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.errors import ConfigError

__all__ = ["InfoNCE", "MatryoshkaLoss"]


class InfoNCE(nn.Module):
    """Two views of an image attract, all other images of the batch repel (NT-Xent; SimCLR, arXiv 2002.05709, section 2.1).

    Takes (2n, d) rows, of any length: row i and row n + i are the two views of image i. With a second argument n, any rows beyond 2n are
    of other images and only repel, as those of a cross-batch memory do (XBM, arXiv 1912.06798, section 3.2). In place of n, what the n
    images and the rows beyond 2n show, an (n + rest,) int64 tensor: rows of the same number do not repel.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, rows: Tensor, pairs: int | Tensor | None = None) -> Tensor:
        """Mean cross-entropy of finding the other view among all other rows."""
        if isinstance(pairs, Tensor):
            n = len(rows) - len(pairs)
            shown = torch.cat((pairs[:n], pairs))
        else:
            n = len(rows) // 2 if pairs is None else pairs
            shown = torch.arange(len(rows), device=rows.device)
        unit = F.normalize(rows.float(), dim=1)
        similarity = unit[: 2 * n] @ unit.T / self.temperature
        other = torch.arange(2 * n, device=rows.device).roll(n)
        same = shown[: 2 * n, None] == shown
        same[torch.arange(2 * n, device=rows.device), other] = False
        return F.cross_entropy(similarity.masked_fill(same, -torch.inf), other)


class MatryoshkaLoss(nn.Module):
    """The weighted sum of a criterion over prefixes (arXiv 2205.13147, equation 1).

    Args:
        criterion: called as `criterion(part, target)` for the part that belongs to each prefix.
        dims: prefix lengths.
        weights: relative importance c_m of each prefix; 1 each by default.
    """

    def __init__(self, criterion: nn.Module, dims: Sequence[int], weights: Sequence[float] = ()) -> None:
        super().__init__()
        if weights and len(weights) != len(dims):
            raise ConfigError(f"{len(weights)} weights for {len(dims)} dims.", "Give one weight for each prefix.")
        self.criterion = criterion
        self.dims = tuple(dims)
        self.weights = tuple(weights) or (1.0,) * len(self.dims)

    def forward(self, parts: Sequence[Tensor] | Tensor, target: Tensor | int | None = None) -> Tensor:
        """`parts`: one tensor a prefix (the logits of its head, say), or an embedding (n, dim) to be cut into prefixes here."""
        if isinstance(parts, Tensor):
            parts = [parts[:, :d] for d in self.dims]
        terms = [c * self.criterion(part, target) for c, part in zip(self.weights, parts, strict=True)]
        return torch.stack(terms).sum()
