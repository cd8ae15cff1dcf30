"""The settings of a network."""

from dataclasses import dataclass

from mrl_search.errors import require
from mrl_search.vectors import DIMS

__all__ = ["WIDTHS", "ModelConfig", "is_pretrained"]

BACKBONES, HEADS, POOLS = ("compact", "four-conv"), ("linear", "tied", "cosine"), ("last", "stages")
ACTIVATIONS = ("relu", "none")
WIDTHS = (48, 96, 192, 320)


def is_pretrained(name: str) -> bool:
    """Whether `general` or `timm:NAME` is meant, a network with pretrained weights."""
    return name == "general" or (name.startswith("timm:") and len(name) > len("timm:"))


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network.

    Attributes:
        backbone: `compact`; `four-conv`, the network of the original study; or the architecture of
            a pretrained network, `general` or `timm:NAME`.
        widths: channels of the four stages of `compact` and `four-conv`.
        dims: prefix lengths that get a head; the last one is the dimension of the embedding.
        heads: `linear`; `tied`: linear heads that share one weight matrix (MRL-E, arXiv 2205.13147,
            section 3); or `cosine`: heads of unit prefixes and unit weights (arXiv 1704.06369).
        scale: factor of the cosines before the softmax, for cosine heads. A lower scale pushes
            classes further apart.
        pool: what is projected, except by `four-conv`. `last`: the means of the last stage's maps.
            `stages`: the means of all stages' maps and the deviations of all but the last,
            standardised. Pretrained networks have their own features (`encoders/pretrained.py`):
            `last` those that timm pools, `stages` also statistics of the maps; both standardised.
        mirror: after training, embed the mean of the picture and its mirror image, except by
            `four-conv`. Takes twice the time and finds mirrored copies.
        activation: of `four-conv`, between convolution and pooling: `relu`, or `none` as in the
            published code of the original study.
    """

    backbone: str = "compact"
    widths: tuple[int, ...] = WIDTHS
    dims: tuple[int, ...] = DIMS
    heads: str = "linear"
    scale: float = 4.0
    pool: str = "last"
    mirror: bool = False
    activation: str = "relu"

    @property
    def standardised(self) -> bool:
        """Whether the features below the projection are standardised, as axes need them."""
        return self.pool == "stages" or is_pretrained(self.backbone)

    def __post_init__(self) -> None:
        choices = {
            "backbone": BACKBONES, "heads": HEADS, "pool": POOLS, "activation": ACTIVATIONS,
        }  # fmt: skip
        for key, allowed in choices.items():
            value = getattr(self, key)
            known = (*allowed, "general", "timm:NAME") if key == "backbone" else allowed
            message = f"model.{key} is {value!r}; it must be one of {', '.join(known)}."
            pretrained = key == "backbone" and is_pretrained(value)
            require(value in allowed or pretrained, message)
        message = f"model.backbone is {self.backbone!r}; a file of weights belongs to init."
        require("@" not in self.backbone, message, "Use --init timm:NAME@FILE.")
        message = f"model.widths is {list(self.widths)}; {self.backbone} has widths of its own."
        require(not is_pretrained(self.backbone) or self.widths == WIDTHS, message, "Leave it out.")
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
        message = "model.pool = 'stages' and model.mirror do not work with the backbone four-conv."
        require(self.backbone != "four-conv" or (self.pool == "last" and not self.mirror), message)
        message = "model.activation = 'none' needs model.backbone = 'four-conv'."
        require(self.backbone == "four-conv" or self.activation == "relu", message)
