"""The settings of training: a recipe, and the run of each of its steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mrl_search.encoders.config import ModelConfig, is_pretrained
from mrl_search.errors import require

__all__ = [
    "AugmentConfig", "AxesConfig", "DataConfig", "ObjectiveConfig", "Recipe", "ScheduleConfig",
    "TrainConfig",
]  # fmt: skip

RULES: dict[str, Callable[[Any], bool]] = {
    "0 or more": lambda value: value >= 0,
    "0 or more, and below 1": lambda value: 0 <= value < 1,
    "from 0 to 1": lambda value: 0 <= value <= 1,
    "positive": lambda value: value > 0,
}


def _check(
    config: object, keys: str, allowed: str, test: Callable[[Any], bool] | None = None
) -> None:
    """Raise ConfigError unless each of `keys` has an allowed value; the default test is a rule."""
    section = type(config).__name__.removesuffix("Config").lower()
    for key in keys.split():
        value = getattr(config, key)
        value = list(value) if isinstance(value, tuple) else value
        valid = (test or RULES[allowed])(value)
        require(valid, f"{section}.{key} is {value!r}; it must be {allowed}.")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which images train and which validate.

    Attributes:
        min_side: skip images whose width or height is not above this, in pixels (0: none).
        native: side of small images, in pixels; they are not enlarged (0: no limit).
        validation: share of the images that validates.
        split_seed: seed of the split.
        swap: swap the two parts; with `validation` 0.5, the second fold of a cross-validation.
        individual: regular expression whose group names the individual in a picture's path, such as
            `([^/]+)/[^/]+$` for its folder. Pictures of an individual stay in one part. A picture
            without a match is an individual of its own.
    """

    min_side: int = 0
    native: int = 0
    validation: float = 0.1
    split_seed: int = 0
    swap: bool = False
    individual: str = ""

    def __post_init__(self) -> None:
        _check(self, "min_side native split_seed", "0 or more")
        _check(self, "validation", "a share over 0 and below 1", lambda v: 0 < v < 1)


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How a random view of an image is made.

    Attributes:
        scale: smallest and largest share of the area that a crop keeps.
        aspect: smallest and largest width / height of a crop.
        rotate: largest rotation either way, in degrees.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast, saturation (factor 1 ± value), hue (± share of a full turn).
        blur: probability of a Gaussian blur (3x3, deviation of 0.1 to 2 pixels).
        grey: probability that all colour goes.
        jpeg: lowest quality of a final JPEG compression; the highest is 95 (0: none).
        shrink: resize by up to this factor, and back (1: not at all).
        outside: what lies beyond the edges: `reflection` of the image, or `zeros` (black).
    """

    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.75, 1.333)
    rotate: float = 5.0
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.04)
    blur: float = 0.0
    grey: float = 0.0
    jpeg: int = 0
    shrink: float = 1.0
    outside: str = "reflection"

    def __post_init__(self) -> None:
        ascending = "two positive numbers, the smaller first"
        _check(self, "scale", f"{ascending}, up to 1", lambda v: 0 < v[0] <= v[1] <= 1)
        _check(self, "aspect", ascending, lambda v: 0 < v[0] <= v[1])
        _check(self, "rotate", "0 or more")
        _check(self, "flip blur grey", "from 0 to 1")
        _check(self, "jitter", "four numbers from 0 to 1", lambda v: 0 <= min(v) <= max(v) <= 1)
        _check(self, "jpeg", "from 0 to 95", lambda v: 0 <= v <= 95)
        _check(self, "shrink", "1 or more", lambda v: v >= 1)
        _check(self, "outside", "reflection or zeros", ("reflection", "zeros").__contains__)

    @property
    def crops(self) -> bool:
        """Whether a view can show less than the whole image."""
        return self.scale[0] < 1 or self.aspect != (1, 1)


@dataclass(frozen=True, slots=True)
class AxesConfig:
    """How the projection is set in closed form after training (`training/closed_form.py`).

    Attributes:
        share: mean share of the squared norm of every prefix that describes the class; with
            `after`, of the whole vector that its trained prefix has.
        views: changed views of a training image that an embedding should ignore.
        viewed: training images whose changed views are read, at even distances; 0: all.
        weights: factor of the dims that each prefix adds to the one before; empty: 1 each. Where
            the first are larger, shortlists by few dims hold more of the nearest by all dims, and
            fewer hard copies are found by all dims.
        ridge: weight of the covariance between views in the regression of the class axes. A higher
            ridge ignores changes more, and separates classes less.
        after: keep the trained projection of the first dims, as many as this; 0: set all.
    """

    share: float = 0.2
    views: tuple[AugmentConfig, ...] = (AugmentConfig(),)
    viewed: int = 0
    weights: tuple[float, ...] = ()
    ridge: float = 1.0
    after: int = 0

    def __post_init__(self) -> None:
        _check(self, "share", "0 or more, and below 1")
        _check(self, "ridge", "positive")
        _check(self, "views", "at least one view", bool)
        _check(self, "after viewed", "0 or more")
        _check(self, "weights", "positive each", lambda v: min(v, default=1) > 0)
        if self.after:
            _check(self, "share", "over 0 and below 1 with axes.after", lambda v: 0 < v < 1)


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """The loss at every prefix: `label` x cross-entropy + `instance` and `individual` x InfoNCE.

    Attributes:
        label: weight of classification by the head of the prefix.
        instance: weight of similarity between two views of an image; 0: none.
        individual: weight of similarity between two images of an individual (`data.individual`).
        instance_from: first epoch, from 0, with similarity; earlier ones train labels alone.
        temperature: temperature of InfoNCE.
        memory: number of earlier embeddings used as negatives (arXiv 1912.06798, section 3.2).
        smoothing: label smoothing of the cross-entropy.
        distil: share of each label taken from the model in `init` (arXiv 1503.02531, 1606.09282).
        weights: weight of each prefix; empty: 1 each (c_m in arXiv 2205.13147, section 3).
        instance_weights: weight of each prefix in `instance`; empty: `weights`.
        individual_weights: weight of each prefix in `individual`; empty: `weights`.
    """

    label: float = 1.0
    instance: float = 0.5
    individual: float = 0.0
    instance_from: int = 0
    temperature: float = 0.1
    memory: int = 0
    smoothing: float = 0.0
    distil: float = 0.0
    weights: tuple[float, ...] = ()
    instance_weights: tuple[float, ...] = ()
    individual_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check(self, "label instance individual instance_from memory", "0 or more")
        _check(self, "temperature", "positive")
        _check(self, "smoothing", "0 or more, and below 1")
        _check(self, "distil", "from 0 to 1")
        every = "weights instance_weights individual_weights"
        _check(self, every, "0 or more each", lambda v: min(v, default=0) >= 0)

    def similarity_in(self, epoch: int) -> tuple[float, float]:
        """Weights of `instance` and `individual` similarity in `epoch`."""
        return (self.instance, self.individual) if epoch >= self.instance_from else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """How long and how fast.

    Attributes:
        epochs: passes over the training images.
        batch: images an optimizer step and process.
        accumulate: batches whose gradients are summed before the weights change.
        lr: highest learning rate of AdamW.
        weight_decay: of AdamW, for matrices and kernels; norms and biases have none.
        clip: largest norm of the gradient; 0: no limit.
        warmup: share of all steps in which the learning rate rises linearly.
        decay: how it falls: `cosine`, to zero; or `exponential`, times `gamma` after every epoch.
        gamma: factor of the exponential decay.
        sizes: side of the training images in pixels, by the first epoch that uses it.
        embed_size: side of the images that the finished model embeds, in pixels; 0: the largest of
            `sizes`. A little more is better (FixRes, arXiv 1906.06423).
        keep: share of the weights in `init` in the final mean (WiSE-FT, arXiv 2109.01903).
        precision: `auto` (bf16 where the hardware has it, else no), `no`, `bf16` or `fp16`.
    """

    epochs: int = 18
    batch: int = 96
    accumulate: int = 1
    lr: float = 0.002
    weight_decay: float = 0.05
    clip: float = 0.0
    warmup: float = 0.1
    decay: str = "cosine"
    gamma: float = 0.85
    sizes: Mapping[str, int] = field(default_factory=lambda: {"0": 128})
    embed_size: int = 0
    keep: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        _check(self, "epochs weight_decay clip embed_size", "0 or more")
        _check(self, "batch", "2 or more", lambda v: v >= 2)
        _check(self, "accumulate", "1 or more", lambda v: v >= 1)
        _check(self, "lr", "positive")
        _check(self, "warmup keep", "0 or more, and below 1")
        _check(self, "decay", "cosine or exponential", ("cosine", "exponential").__contains__)
        _check(self, "gamma", "over 0 and up to 1", lambda v: 0 < v <= 1)
        _check(
            self,
            "sizes",
            'positive sides by epoch, from epoch 0 on, for example { "0" = 64, "8" = 128 }',
            lambda v: "0" in v and all(e.isdecimal() and side > 0 for e, side in v.items()),
        )
        precisions = ("auto", "no", "bf16", "fp16")
        _check(self, "precision", f"one of {', '.join(precisions)}", precisions.__contains__)

    def size(self, epoch: int) -> int:
        """Side of the training images in `epoch`, in pixels."""
        return self.sizes[max((e for e in self.sizes if int(e) <= epoch), key=int)]

    @property
    def largest(self) -> int:
        """The largest side of the training images, in pixels."""
        return max(self.sizes.values())


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run: everything that decides its result, besides the images.

    Attributes:
        name: of the model.
        seed: of weights, order and views.
        init: what the run starts from: a run folder, whose whole network it takes; `general`,
            `timm:NAME` or `timm:NAME@FILE`, for the layers below the projection; empty: random
            weights.
        model: the network.
        data: which images train.
        augment: the first view of an image.
        weak: the second view; None: made as the first.
        objective: the loss.
        schedule: how long and how fast.
        axes: set the projection in closed form at the end; needs `model.pool` = `stages`, or a
            pretrained backbone.
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
        s, o, m = self.schedule, self.objective, self.model
        require(0 <= self.seed < 2**32, f"seed is {self.seed}; it must be from 0 to below 2**32.")
        message = "schedule.epochs is 0; it must be positive unless axes and init are set."
        require(s.epochs > 0 or bool(self.axes and self.init), message)
        message = "objective.label, instance and individual are all 0; one must be positive."
        require(o.label + o.instance + o.individual > 0 or not s.epochs, message)
        message = f"objective.individual is {o.individual}; it needs data.individual."
        require(bool(self.data.individual) or not o.individual, message)
        first, similar = o.instance_from, bool(s.epochs and o.instance + o.individual)
        message = f"objective.instance_from is {first}; it must be"
        require(bool(o.label or not first), f"{message} 0 where objective.label is 0.")
        below = f"below schedule.epochs, {s.epochs}."
        require(not similar or first < s.epochs, f"{message} {below}")
        message = f"objective.distil is {o.distil}; it needs init and a positive objective.label."
        require(not o.distil or bool(self.init and o.label), message)
        for key in ("weights", "instance_weights", "individual_weights"):
            count, wanted = len(getattr(o, key)), f"one for each of {len(m.dims)} dims, or none."
            message = f"objective.{key} has {count} values; it must have {wanted}"
            require(count in (0, len(m.dims)), message)
        message = f"schedule.keep is {s.keep}; it needs init and axes."
        require(not s.keep or bool(self.init and self.axes), message)
        message = f"model.pool is {m.pool!r}; axes need 'stages'."
        require(self.axes is None or m.standardised, message)
        if is_pretrained(self.init):
            wanted = self.init.partition("@")[0]
            message = f"init is {self.init!r}; model.backbone is {m.backbone!r}; it must be"
            require(m.backbone == wanted, f"{message} {wanted!r}.", f"Use --init {self.init}.")
            message = f"objective.distil is {o.distil}; it needs a run folder in init."
            require(not o.distil, message)
        if self.axes:
            added = len([d for d in m.dims if d > self.axes.after])
            message = f"axes.weights has {len(self.axes.weights)} values; it must have one for each"
            valid = len(self.axes.weights) in (0, added)
            require(valid, f"{message} of {added} dims, or none.")
        if self.axes and self.axes.after:
            message = f"axes.after is {self.axes.after}; it must be one of the dims but the last."
            require(self.axes.after in m.dims[:-1], message)
        sides = {*s.sizes.values(), s.embed_size or s.largest}
        message = f"schedule.sizes and embed_size are {sorted(sides)}"
        one = m.backbone != "four-conv" or len(sides) == 1
        require(one, f"{message}; the backbone four-conv needs one size.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Training runs, one after the other; each starts from the result of the one before.

    Attributes:
        name: of the recipe.
        steps: one run or more. `init` of all but the first is set when the recipe runs.
    """

    name: str
    steps: tuple[TrainConfig, ...]
