"""What backbones have in common whose embedding is a linear function of pooled features."""

from torch import Tensor, nn

__all__ = ["PooledBackbone"]


class PooledBackbone(nn.Module):
    """Pooled features of maps, standardised if wanted, projected and batch-normalised.

    The batch norm makes every dimension count in the cosine from the first step of training.
    A backbone of this kind calls `set_projection` last in `__init__`, and has `statistics`.
    """

    standard: nn.Module
    project: nn.Linear
    norm: nn.BatchNorm1d

    def __init__(self, mirror: bool) -> None:
        super().__init__()
        self.mirror = mirror

    def set_projection(self, features: int, dim: int, standard: bool) -> None:
        """Make the layers above the pooling."""
        self.standard = nn.BatchNorm1d(features, affine=False) if standard else nn.Identity()
        self.project = nn.Linear(features, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim)

    def statistics(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) to (n, features): statistics of maps, as `ModelConfig.pool` says."""
        raise NotImplementedError

    def pooled(self, x: Tensor) -> Tensor:
        """`statistics`; in evaluation mode with `mirror`, their mean with those of the mirror."""
        if self.mirror and not self.training:
            return (self.statistics(x) + self.statistics(x.flip(3))) / 2
        return self.statistics(x)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) float32 in (-1, 1) to (n, dim) float32."""
        embedding: Tensor = self.norm(self.project(self.standard(self.pooled(x))))
        return embedding
