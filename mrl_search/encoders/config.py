"""The settings of a network."""

from dataclasses import dataclass

from mrl_search.errors import require
from mrl_search.vectors import DIMS

__all__ = ["ModelConfig"]

BACKBONES, HEADS, POOLS = ("compact", "four-conv"), ("linear", "tied", "cosine"), ("last", "stages")
ACTIVATIONS = ("relu", "none")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network.

    Attributes:
        backbone: `compact`, or `four-conv`, the network of the original study.
        widths: channels of its four stages.
        dims: prefix lengths that get a head; the last one is the dimension of the embedding.
        heads: `linear`; `tied`: linear heads that share one weight matrix (MRL-E, arXiv 2205.13147,
            section 3); or `cosine`: heads of unit prefixes and unit weights (arXiv 1704.06369).
        scale: factor of the cosines before the softmax, for cosine heads. A lower scale pushes
            classes further apart.
        pool: what `compact` projects. `last`: the means of the last stage's maps. `stages`: the
            means of all stages' maps and the deviations of all but the last, standardised.
        mirror: for `compact`: after training, embed the mean of the picture and its mirror image.
            Takes twice the time and finds mirrored copies.
        activation: of `four-conv`, between convolution and pooling: `relu`, or `none` as in the
            published code of the original study.
    """

    backbone: str = "compact"
    widths: tuple[int, ...] = (48, 96, 192, 320)
    dims: tuple[int, ...] = DIMS
    heads: str = "linear"
    scale: float = 4.0
    pool: str = "last"
    mirror: bool = False
    activation: str = "relu"

    def __post_init__(self) -> None:
        choices = {
            "backbone": BACKBONES, "heads": HEADS, "pool": POOLS, "activation": ACTIVATIONS,
        }  # fmt: skip
        for key, allowed in choices.items():
            value = getattr(self, key)
            message = f"model.{key} is {value!r}; it must be one of {', '.join(allowed)}."
            require(value in allowed, message)
        # torch 2.13's CPU kernels corrupt memory in the backward pass of two-channel convolutions
        require(
            len(self.widths) == 4 and all(w >= 8 and w % 8 == 0 for w in self.widths),
            f"model.widths is {list(self.widths)}; it must be four positive multiples of 8.",
            "For example [48, 96, 192, 320].",
        )
        dims = list(self.dims)
        message = f"model.dims is {dims}; it must be positive and ascending."
        hint = "For example [8, 64, 1024]."
        require(bool(dims) and dims[0] > 0 and dims == sorted(set(dims)), message, hint)
        require(self.scale > 0, f"model.scale is {self.scale}; it must be positive.")
        message = "model.pool = 'stages' and model.mirror need model.backbone = 'compact'."
        require(self.backbone == "compact" or (self.pool == "last" and not self.mirror), message)
        message = "model.activation = 'none' needs model.backbone = 'four-conv'."
        require(self.backbone == "four-conv" or self.activation == "relu", message)
