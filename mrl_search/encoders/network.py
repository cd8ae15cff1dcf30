"""A backbone with a linear classifier on each prefix of its embedding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.encoders.backbones import build_backbone
from mrl_search.encoders.config import ModelConfig

__all__ = ["MatryoshkaHeads", "MatryoshkaNetwork", "to_network"]


class MatryoshkaHeads(nn.Module):
    """One classifier a prefix: (n, dim) embeddings to a list of (n, classes) logits.

    arXiv 2205.13147, section 3. A linear head takes the raw prefix. Tied heads take the first
    columns of one weight matrix (MRL-E). A cosine head returns `scale` times the cosine of the
    prefix and the weights of a class.
    """

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.dims = config.dims if classes else ()
        self.scale = config.scale if config.heads == "cosine" else None
        self.tied = config.heads == "tied"
        sizes = self.dims[-1:] if self.tied else self.dims
        self.heads = nn.ModuleList(nn.Linear(d, classes, bias=self.scale is None) for d in sizes)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        prefixes = [embedding[:, :d] for d in self.dims]
        if self.scale is not None:
            prefixes = [F.normalize(part.float(), dim=1) for part in prefixes]
        return [
            F.linear(part, *self.weights(d)) for d, part in zip(self.dims, prefixes, strict=True)
        ]

    def weights(self, dims: int) -> tuple[Tensor, Tensor]:
        """Weight (classes, dims) and bias (classes,) of one head, as they multiply its prefix."""
        head = self.heads[0 if self.tied else self.dims.index(dims)]
        assert isinstance(head, nn.Linear)
        if self.scale is None:
            return head.weight[:, :dims], head.bias
        weight = self.scale * F.normalize(head.weight, dim=1)
        return weight, torch.zeros(len(weight), device=weight.device)


class MatryoshkaNetwork(nn.Module):
    """Pictures of `side` pixels to an embedding (n, dim) and the logits of every prefix."""

    def __init__(self, config: ModelConfig, classes: int, side: int = 256) -> None:
        super().__init__()
        self.backbone = build_backbone(config, side)
        self.heads = MatryoshkaHeads(config, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        embedding = self.backbone(x)
        return embedding, self.heads(embedding)


def to_network(images: Tensor) -> Tensor:
    """(n, 3, h, w) uint8 to the input of a network: float32 in (-1, 1), channels last."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
