"""The settings of a network."""

from dataclasses import dataclass

from mrl_search.errors import require
from mrl_search.vectors import DIMS

__all__ = ["ModelConfig"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network.

    Attributes:
        backbone: `compact`, or `four-conv`, the seed's.
        widths: channels of its four stages.
        dims: prefixes that get a head; the last one is the length of the embedding.
        heads: `linear`; `tied`: one weight matrix, of which each prefix uses the first columns (MRL-E, arXiv 2205.13147, section 3);
            or `cosine`: of unit prefixes and unit weights, so that classes lie apart by angle, which is what search and neighbours
            go by (NormFace, arXiv 1704.06369).
        scale: of the cosines before the softmax; the lower, the further apart a class must lie. Plays no part in linear heads.
        pool: what `compact` projects: `last`, the means of its last stage's maps; or `stages`, the means of the maps of all its stages
            and the deviations of all but the last's, standardised: what tells photographs apart is in the earlier stages, too.
        mirror: of `compact`: once trained, it embeds the mean of a picture and its mirror image, in twice the time, so that mirrored
            copies are found as the picture itself.
    """

    backbone: str = "compact"
    widths: tuple[int, ...] = (48, 96, 192, 320)
    dims: tuple[int, ...] = DIMS
    heads: str = "linear"
    scale: float = 4.0
    pool: str = "last"
    mirror: bool = False

    def __post_init__(self) -> None:
        compact, dims = self.backbone == "compact", list(self.dims)
        require(
            compact or self.backbone == "four-conv",
            f"There is no backbone {self.backbone!r}.",
            "Backbones: compact, four-conv.",
        )
        # torch 2.13's CPU kernels corrupt memory in the backward pass of convolutions with two channels
        fit = len(self.widths) == 4 and all(w >= 8 and w % 8 == 0 for w in self.widths)
        require(
            fit,
            f"model.widths must be four multiples of 8, not {list(self.widths)}.",
            "For example [48, 96, 192, 320].",
        )
        ascending = bool(dims) and dims[0] > 0 and dims == sorted(set(dims))
        require(
            ascending,
            f"model.dims must be lengths that grow, not {dims}.",
            "For example [8, 64, 1024].",
        )
        known = self.heads in ("linear", "tied", "cosine") and self.scale > 0
        require(
            known,
            f"model.heads is linear, tied or cosine, not {self.heads!r}; model.scale is positive.",
        )
        known = self.pool == "last" or (compact and self.pool == "stages")
        require(
            known, f"model.pool is last, or with the backbone compact stages, not {self.pool!r}."
        )
        require(compact or not self.mirror, "model.mirror is for the backbone compact.")
