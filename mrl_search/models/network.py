"""A backbone with a linear head on each prefix of its embedding."""

from collections.abc import Sequence

from torch import Tensor, nn

from mrl_search.config import ModelConfig
from mrl_search.models.backbones import build_backbone

__all__ = ["MatryoshkaHeads", "MatryoshkaNetwork"]


class MatryoshkaHeads(nn.Module):
    """One linear classifier a prefix: (n, dim) embeddings to a list of (n, classes) logits (arXiv 2205.13147, section 3)."""

    def __init__(self, dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.dims = tuple(dims)
        self.heads = nn.ModuleList(nn.Linear(d, classes) for d in self.dims)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        return [head(embedding[:, :d]) for d, head in zip(self.dims, self.heads, strict=True)]


class MatryoshkaNetwork(nn.Module):
    """`forward` gives the embedding (n, dim) and the logits of every prefix; no heads where there are no classes."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.backbone = build_backbone(config)
        self.heads = MatryoshkaHeads(config.dims if classes else (), classes)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        embedding = self.backbone(x)
        return embedding, self.heads(embedding)
