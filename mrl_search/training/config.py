"""The settings of a training run: a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mrl_search.encoders.config import ModelConfig
from mrl_search.errors import require

__all__ = [
    "AugmentConfig",
    "AxesConfig",
    "DataConfig",
    "ObjectiveConfig",
    "ScheduleConfig",
    "TrainConfig",
]


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which images train and which validate.

    Attributes:
        min_side: images of which a side is not over so many pixels are left out (0: none).
        native: side of the images, where they are small: they are decoded to no more (0: to what trains, and a quarter more to cut from).
        validation: share that validates.
        split_seed: of the division.
        swap: train on the validation part and validate on the other; with `validation` 0.5, the second fold of a 5x2 cross-validation.
    """

    min_side: int = 0
    native: int = 0
    validation: float = 0.1
    split_seed: int = 0
    swap: bool = False

    def __post_init__(self) -> None:
        require(min(self.min_side, self.native, self.split_seed) >= 0, "data: nothing is below 0.")
        require(
            0 < self.validation < 1,
            f"data.validation is a share between 0 and 1, not {self.validation}.",
        )


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How a training view is drawn from an image: ranges of a random affine crop and of colour changes.

    Attributes:
        scale: share of the area that a crop keeps, from and to.
        aspect: width over height of a crop, from and to.
        rotate: at most so many degrees either way.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast, saturation (factor 1 ± value) and hue (± value of a full turn).
        blur: probability of a Gaussian blur, with a 3x3 kernel and a deviation of 0.1 to 2 pixels.
        jpeg: lowest quality of the JPEG file that a view is saved as in the end, the highest is 95; 0: it is not.
        outside: what is seen beyond the edges of the picture: `reflection` of it, or `zeros`, black.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.75, 1.333)
    rotate: float = 5.0
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.04)
    blur: float = 0.0
    jpeg: int = 0
    outside: str = "reflection"

    def __post_init__(self) -> None:
        (low, high), (narrow, wide) = self.scale, self.aspect
        require(
            0 < low <= high <= 1,
            f"A view's scale is shares of the area, from and to, not {list(self.scale)}.",
        )
        require(
            0 < narrow <= wide,
            f"A view's aspect is width over height, from and to, not {list(self.aspect)}.",
        )
        shares = self.rotate >= 0 and all(0 <= x <= 1 for x in (self.flip, self.blur, *self.jitter))
        require(
            shares,
            "A view's flip, blur and jitter are from 0 to 1, and its rotate is not negative.",
        )
        known = self.outside in ("reflection", "zeros") and 0 <= self.jpeg <= 95
        require(
            known,
            f"A view's outside is reflection or zeros, not {self.outside!r}; its jpeg is 0 to 95.",
        )

    @property
    def crops(self) -> bool:
        """Whether a view may show less than the whole picture."""
        return self.scale[0] < 1 or self.aspect != (1, 1)


@dataclass(frozen=True, slots=True)
class AxesConfig:
    """How the axes of the embedding are set in closed form when training is over (`mrl_search/axes.py`).

    Attributes:
        share: of the squared length of every prefix that goes to the classes, on average; the rest tells images apart.
        views: changed views of each training image, what an embedding should not mind.
        ridge: how much of the covariance between the views of an image is added to the regression that gives the class axes: the more,
            the less they mind changes, and the less far apart they set the classes.
    """

    share: float = 0.2
    views: tuple[AugmentConfig, ...] = (AugmentConfig(),)
    ridge: float = 1.0

    def __post_init__(self) -> None:
        require(
            0 <= self.share < 1 and self.ridge > 0 and self.views != (),
            "axes: share from 0 to below 1, ridge over 0, and a view.",
        )


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """What is minimised at every prefix: `label` x cross-entropy + `instance` x InfoNCE between two views of each image.

    Attributes:
        label: weight of classification by the prefix's linear head.
        instance: weight of instance similarity; 0 trains on one view and labels alone.
        instance_from: first epoch, from 0, that trains instance similarity; those before it train on one view and labels alone.
        temperature: of InfoNCE.
        memory: so many embeddings of earlier steps repel, too (cross-batch memory, arXiv 1912.06798, section 3.2).
        smoothing: label smoothing of the cross-entropy.
        distil: share of every label that is what the model in `init` says of the same view, at full length: classes that it knows are
            not forgotten while similarity is learnt (arXiv 1503.02531, section 2; arXiv 1606.09282).
        weights: relative importance c_m of each prefix (empty: 1 each; arXiv 2205.13147, section 3).
    """

    label: float = 1.0
    instance: float = 0.5
    instance_from: int = 0
    temperature: float = 0.1
    memory: int = 0
    smoothing: float = 0.0
    distil: float = 0.0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        least = min(
            self.label,
            self.instance,
            self.instance_from,
            self.memory,
            self.smoothing,
            self.distil,
            *self.weights,
        )
        right = least >= 0 and self.temperature > 0 and self.smoothing < 1 and self.distil <= 1
        require(
            right,
            "objective: nothing is below 0, temperature is positive, smoothing below 1, and distil a share of 1.",
        )

    def instance_in(self, epoch: int) -> float:
        """Weight of instance similarity in `epoch`."""
        return self.instance if epoch >= self.instance_from else 0.0


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """How long and how fast. `sizes` maps a first epoch to the side of the training images in pixels, so that a run can start small.

    Attributes:
        batch: images a step and process (two views of each, when instance similarity is trained).
        accumulate: steps whose gradients are added up before the weights move.
        lr: peak learning rate of AdamW; linear warm-up over `warmup` (share of all steps), then it falls as `decay` says.
        weight_decay: of AdamW, on weights alone: norms and biases are spared.
        decay: `cosine`, to zero; or `exponential`, times `gamma` after every epoch.
        gamma: see `decay`.
        embed_size: side of the pictures when the finished model embeds them, in pixels; 0: the largest trained on. A little more is
            better, because training crops show things larger than they are in whole pictures (FixRes, arXiv 1906.06423).
        keep: share of the weights in `init` in the mean of both that the run ends with; what it learnt and what it knew before are both
            in that mean (WiSE-FT, arXiv 2109.01903, section 3). The rest of training does not see it.
        precision: `auto` (bf16 where the GPU or processor has instructions for it, else no), `no`, `bf16` or `fp16`.
    """

    epochs: int = 18
    batch: int = 96
    accumulate: int = 1
    lr: float = 0.002
    weight_decay: float = 0.05
    warmup: float = 0.1
    decay: str = "cosine"
    gamma: float = 0.85
    sizes: Mapping[str, int] = field(default_factory=lambda: {"0": 128})
    embed_size: int = 0
    keep: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        known = "0" in self.sizes and all(
            e.isdecimal() and size > 0 for e, size in self.sizes.items()
        )
        require(
            known,
            f"schedule.sizes must say the size from epoch 0 on, not {dict(self.sizes)}.",
            'For example { "0" = 64, "8" = 128 }.',
        )
        least = min(
            self.epochs,
            self.accumulate - 1,
            self.batch - 2,
            self.weight_decay,
            self.embed_size,
            self.warmup,
            self.keep,
        )
        right = least >= 0 and self.lr > 0 and max(self.warmup, self.keep) < 1
        require(
            right,
            "schedule: accumulate is at least 1, batch 2, nothing else below 0, lr positive, warmup and keep shares below 1.",
        )
        known = self.decay in ("cosine", "exponential") and 0 < self.gamma <= 1
        require(
            known,
            f"schedule.decay is cosine or exponential, not {self.decay!r}; gamma is over 0 and at most 1.",
        )
        require(
            self.precision in ("auto", "no", "bf16", "fp16"),
            f"schedule.precision is auto, no, bf16 or fp16, not {self.precision!r}.",
        )

    def size(self, epoch: int) -> int:
        """Side of the training images in `epoch`, in pixels."""
        return self.sizes[max((e for e in self.sizes if int(e) <= epoch), key=int)]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A recipe: everything that decides what a training run does, besides the images themselves.

    Attributes:
        name: of the model.
        seed: of weights, order and views.
        init: run folder whose network the run starts from; empty: weights at random.
        weak: how one of two views is drawn, where that is not as `augment` says: nearer to the whole picture, as a corpus holds it.
        axes: how the axes of the embedding are set in the end; None leaves them as they were trained. Wants `model.pool` to be `stages`.
    """

    name: str = "default"
    seed: int = 0
    init: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    weak: AugmentConfig | None = None
    objective: ObjectiveConfig = ObjectiveConfig()
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    axes: AxesConfig | None = None

    def __post_init__(self) -> None:
        s, o, d = self.schedule, self.objective, len(self.model.dims)
        require(
            s.epochs > 0 or bool(self.axes and self.init),
            "schedule.epochs is at least 1, but where axes are set in a model in init.",
        )
        require(
            0 <= self.seed < 2**32,
            f"A seed is from 0 to below 2 to the power of 32, not {self.seed}.",
        )
        require(
            o.label + o.instance > 0 or not s.epochs,
            "objective.label and objective.instance are both 0: there is nothing to learn.",
        )
        begins = bool(o.label or not o.instance_from)
        require(
            begins,
            "objective.instance_from leaves the first epochs to the labels, and objective.label is 0.",
            "Make it 0, too.",
        )
        begins = not (s.epochs and o.instance) or o.instance_from < s.epochs
        require(
            begins,
            f"Similarity is learnt from epoch {o.instance_from} on, the last is {s.epochs - 1}.",
            "Set objective.instance_from.",
        )
        require(
            not o.distil or bool(self.init and o.label),
            "objective.distil wants a model to learn from in init, and objective.label.",
        )
        require(
            len(o.weights) in (0, d),
            f"objective.weights has {len(o.weights)} numbers for {d} dims: it wants one for each, or none.",
        )
        fits = bool(self.init and self.axes) or not s.keep
        require(
            fits,
            "schedule.keep is a share of the weights in init, and wants axes, which fit the mean.",
            "Without them, make it 0.",
        )
        require(
            self.axes is None or self.model.pool == "stages", "axes want model.pool to be stages."
        )
        one = self.model.backbone == "compact" or {
            *s.sizes.values(),
            s.embed_size or s.size(0),
        } == {s.size(0)}
        require(
            one,
            "The backbone four-conv is made for pictures of one size.",
            "Give schedule.sizes one value, and no embed_size.",
        )
