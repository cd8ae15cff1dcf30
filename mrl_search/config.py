"""The values that steer everything: a search `Plan`, an `IndexSpec`, and a `TrainConfig`; frozen, printable, stored as used."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

from mrl_search.errors import ConfigError
from mrl_search.mapping import from_mapping, to_mapping, to_toml

__all__ = [
    "SCAN", "AugmentConfig", "AxesConfig", "DataConfig", "IndexSpec", "ModelConfig", "ObjectiveConfig", "Plan", "ScheduleConfig", "Stage",
    "TrainConfig", "from_mapping", "to_mapping", "to_toml",
]  # fmt: skip

DIMS = (8, 16, 32, 64, 128, 256, 512, 1024)
STAGE = re.compile(r"(\d+)(?::(\d+))?(?:@(\d+))?")
SCAN, FLAT_UP_TO, LONGEST_CODED = "Scan", 50_000, 128
GRAPH_FROM = 16_384  # clusters from which on a graph finds the nearest faster than comparing with all


def _check(right: bool, message: str, hint: str = "") -> None:
    if not right:
        raise ConfigError(message, hint)


@dataclass(frozen=True, slots=True)
class Stage:
    """Score by the cosine of the first `dims` numbers and keep the best `keep`.

    `effort` is how hard a first stage looks where its index is approximate: clusters that are visited (nprobe of IVF; on average, where
    clusters are found exactly: each query visits what it needs), or candidates that a walk holds (ef of HNSW); 0 leaves it to the index.
    Written `DIMS:KEEP` or `DIMS:KEEP@EFFORT`.
    """

    dims: int
    keep: int
    effort: int = 0

    def __str__(self) -> str:
        return f"{self.dims}:{self.keep}" + (f"@{self.effort}" if self.effort else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search: the first stage searches the index of its prefix, each later one re-scores the survivors on a longer prefix.

    One stage is a plain search at that prefix (exact search at full length), two are adaptive retrieval, three or more funnel
    retrieval (Matryoshka Representation Learning, arXiv 2205.13147, section 4.3).

    Raises:
        ConfigError: no stage, dims that do not grow, a shortlist that grows, or keeps nothing.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        _check(bool(self.stages), "A plan needs at least one stage.", "For example 64:10, or 8:200,1024:10.")
        for stage in self.stages:
            reads = min(stage.dims, stage.keep) >= 1 and stage.effort >= 0
            _check(reads, f"Stage {stage} keeps nothing or reads nothing.", "Both numbers of a stage are at least 1.")
        for a, b in pairwise(self.stages):
            grow = f"Plan {self}: dims must grow from stage to stage, {b.dims} follows {a.dims}."
            _check(b.dims > a.dims, grow, "For example 8:200,64:50,1024.")
            _check(b.keep <= a.keep, f"Plan {self}: a stage cannot keep more than the one before, {b.keep} follows {a.keep}.")
            _check(not b.effort, f"Plan {self}: only the first stage asks an index, {b} cannot.", "Leave its @ out.")

    @classmethod
    def parse(cls, text: str, k: int) -> Self:
        """Read `8:200,64:50,1024` or `128:200@64,1024`; the last stage may leave its number out, and then keeps `k`.

        Raises:
            ConfigError: not of that form, or the last stage keeps fewer than `k`.
        """
        stages = []
        parts = text.replace(" ", "").split(",")
        for i, part in enumerate(parts):
            match = STAGE.fullmatch(part)
            if match is None or (match[2] is None and i < len(parts) - 1):
                raise ConfigError(f"{text!r} is not a plan: {part!r} should be DIMS:KEEP.", "For example 8:200,64:50,1024.")
            stages.append(Stage(int(match[1]), int(match[2] or k), int(match[3] or 0)))
        plan = cls(tuple(stages))
        short = f"Plan {plan} keeps {plan.keep} at the end, fewer than the {k} asked for."
        _check(plan.keep >= k, short, f"End it with :{k}, or ask for fewer with -k.")
        return plan

    @classmethod
    def single(cls, dims: int, k: int) -> Self:
        """The plan with one stage: search at one prefix."""
        return cls((Stage(dims, k),))

    @classmethod
    def adaptive(cls, dims: int, shortlist: int, full: int, k: int) -> Self:
        """A shortlist on a few dims, re-ranked at full length."""
        return cls((Stage(dims, max(shortlist, k)), Stage(full, k)))

    @classmethod
    def ladder(cls, dims: Sequence[int], shortlist: int, k: int) -> Self:
        """A stage at each of `dims`, ascending, that re-scores one shortlist; the last keeps `k`."""
        *early, last = dims
        return cls((*(Stage(d, max(shortlist, k)) for d in early), Stage(last, k)))

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(stage.dims for stage in self.stages)

    @property
    def keep(self) -> int:
        """How many answers come out at the end."""
        return self.stages[-1].keep

    def __str__(self) -> str:
        return ",".join(map(str, self.stages))


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """Which indexes to build over the stored vectors.

    A factory string is FAISS's, for the inner product of unit prefixes (`Flat`, `SQ8`, `HNSW16,SQ8`, `RR128,IVF4096,PQ128x4fsr`), or
    `Scan`: no index of its own, the stored vectors are compared one after another. `auto` chooses by the size of the corpus: `Flat` up
    to 50,000 vectors; above that clusters of compressed prefixes up to 128 dims, and `Scan` for longer ones, whose indexes would take
    more memory and time to build than they save.

    Attributes:
        dims: prefix lengths that can begin a plan, ascending.
        factory: for every prefix, `auto` or a factory string.
        factories: factory strings for single prefixes, by their length.
        dtype: how the full-length vectors are stored, `float16` or `float32`.
    """

    dims: tuple[int, ...] = DIMS
    factory: str = "auto"
    factories: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float16"

    def __post_init__(self) -> None:
        known = self.dtype in ("float16", "float32")
        _check(known, f"Vectors are stored as float16 or float32, not {self.dtype!r}.", "float16 is enough for nearly all.")
        lost = sorted(set(self.factories) - set(map(str, self.dims)))
        _check(not lost, f"A factory is given for {', '.join(lost)} dims, which get no index.", f"Dims: {', '.join(map(str, self.dims))}.")

    def factory_of(self, dims: int, count: int) -> str:
        """The factory string of one prefix in a corpus of `count` vectors."""
        chosen = self.factories.get(str(dims), self.factory)
        if chosen != "auto":
            return chosen
        if count <= FLAT_UP_TO:
            return "Flat"
        if dims > LONGEST_CODED:
            return SCAN
        lists = 1 << round(math.log2(4 * math.sqrt(count)))  # about 4·√n clusters: FAISS's guideline for inverted files
        clusters = f"IVF{lists}" if lists < GRAPH_FROM else f"IVF{lists}_HNSW16"
        return f"RR{dims},{clusters},PQ{dims}x4fsr" if dims >= 32 else f"{clusters},SQ8"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network.

    Attributes:
        backbone, widths: `compact`, or `four-conv`, the seed's; channels of its four stages.
        dims: prefixes that get a head; the last one is the length of the embedding.
        heads: `linear`; `tied`, one matrix of which each prefix uses the first columns (MRL-E, arXiv 2205.13147, section 3); or `cosine`,
            of unit prefixes and unit weights (NormFace, arXiv 1704.06369).
        scale: of the cosines before the softmax; the lower, the further apart a class must lie. Plays no part in linear heads.
        pool: what `compact` projects: `last`, means of its last stage's maps; or `stages`, standardised means and deviations of all stages.
        mirror: of `compact`: once trained, it embeds the mean of a picture and its mirror image, in twice the time.
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
        _check(compact or self.backbone == "four-conv", f"There is no backbone {self.backbone!r}.", "Backbones: compact, four-conv.")
        # torch 2.13's CPU kernels corrupt memory in the backward pass of convolutions with two channels
        fit = len(self.widths) == 4 and all(w >= 8 and w % 8 == 0 for w in self.widths)
        _check(fit, f"model.widths must be four multiples of 8, not {list(self.widths)}.", "For example [48, 96, 192, 320].")
        ascending = bool(dims) and dims[0] > 0 and dims == sorted(set(dims))
        _check(ascending, f"model.dims must be lengths that grow, not {dims}.", "For example [8, 64, 1024].")
        known = self.heads in ("linear", "tied", "cosine") and self.scale > 0
        _check(known, f"model.heads is linear, tied or cosine, not {self.heads!r}; model.scale is positive.")
        known = self.pool == "last" or (compact and self.pool == "stages")
        _check(known, f"model.pool is last, or with the backbone compact stages, not {self.pool!r}.")
        _check(compact or not self.mirror, "model.mirror is for the backbone compact.")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which images train and which validate.

    Attributes:
        min_side: images of which a side is not over so many pixels are left out (0: none).
        native: side of the images, where they are small: they are decoded to no more (0: to what trains, and a quarter more to cut from).
        validation, split_seed: share that validates, and seed of the division.
        swap: train on the validation part and validate on the other; with `validation` 0.5, the second fold of a 5x2 cross-validation.
        individual: regular expression whose group names the individual in a picture's path; `([^/]+)/[^/]+$` takes the folder. Pictures
            of one individual train or validate together. Without a match a picture shows its own.
    """

    min_side: int = 0
    native: int = 0
    validation: float = 0.1
    split_seed: int = 0
    swap: bool = False
    individual: str = ""

    def __post_init__(self) -> None:
        _check(min(self.min_side, self.native, self.split_seed) >= 0, "data: nothing is below 0.")
        _check(0 < self.validation < 1, f"data.validation is a share between 0 and 1, not {self.validation}.")


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How a training view is drawn from an image: ranges of a random affine crop and of colour changes.

    Attributes:
        scale, aspect: share of the area that a crop keeps, and its width over height, from and to.
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
        _check(0 < low <= high <= 1, f"A view's scale is shares of the area, from and to, not {list(self.scale)}.")
        _check(0 < narrow <= wide, f"A view's aspect is width over height, from and to, not {list(self.aspect)}.")
        shares = self.rotate >= 0 and all(0 <= x <= 1 for x in (self.flip, self.blur, *self.jitter))
        _check(shares, "A view's flip, blur and jitter are from 0 to 1, and its rotate is not negative.")
        known = self.outside in ("reflection", "zeros") and 0 <= self.jpeg <= 95
        _check(known, f"A view's outside is reflection or zeros, not {self.outside!r}; its jpeg is 0 to 95.")

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
        ridge: share of the covariance between views that regularises the class axes: the more, the less they mind changes.
    """

    share: float = 0.2
    views: tuple[AugmentConfig, ...] = (AugmentConfig(),)
    ridge: float = 1.0

    def __post_init__(self) -> None:
        _check(0 <= self.share < 1 and self.ridge > 0 and self.views != (), "axes: share from 0 to below 1, ridge over 0, and a view.")


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """What is minimised at every prefix: `label` x cross-entropy + (`instance` + `individual`) x InfoNCE.

    Attributes:
        label: weight of classification by the prefix's linear head.
        instance: weight of similarity between two views of each image.
        individual: weight of similarity between two pictures of one individual (`data.individual`).
        instance_from: first epoch, from 0, that trains similarity; those before it train on one view and labels alone.
        temperature, memory: of InfoNCE; so many embeddings of earlier steps repel, too (XBM, arXiv 1912.06798, section 3.2).
        smoothing: label smoothing of the cross-entropy.
        distil: share of every label that the model in `init` predicts at full length (arXiv 1503.02531, section 2; 1606.09282).
        weights: relative importance c_m of each prefix (empty: 1 each; arXiv 2205.13147, section 3).
        instance_weights: the same for `instance` alone (empty: `weights`); individual_weights: for `individual`.
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
        weights = (self.label, self.instance, self.individual, *self.weights, *self.instance_weights, *self.individual_weights)
        least = min(*weights, self.instance_from, self.memory, self.smoothing, self.distil)
        right = least >= 0 and self.temperature > 0 and self.smoothing < 1 and self.distil <= 1
        _check(right, "objective: nothing is below 0, temperature is positive, smoothing below 1, and distil a share of 1.")

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
        embed_size: side of the pictures that the finished model embeds, in pixels (0: the largest trained on; arXiv 1906.06423).
        keep: share of the weights in `init` in the mean of both that the run ends with (WiSE-FT, arXiv 2109.01903, section 3).
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
        known = "0" in self.sizes and all(e.isdecimal() and size > 0 for e, size in self.sizes.items())
        _check(known, f"schedule.sizes must say the size from epoch 0 on, not {dict(self.sizes)}.", 'For example { "0" = 64, "8" = 128 }.')
        least = min(self.epochs, self.accumulate - 1, self.batch - 2, self.weight_decay, self.embed_size, self.warmup, self.keep)
        right = least >= 0 and self.lr > 0 and max(self.warmup, self.keep) < 1
        _check(right, "schedule: accumulate is at least 1, batch 2, nothing else below 0, lr positive, warmup and keep shares below 1.")
        known = self.decay in ("cosine", "exponential") and 0 < self.gamma <= 1
        _check(known, f"schedule.decay is cosine or exponential, not {self.decay!r}; gamma is over 0 and at most 1.")
        _check(self.precision in ("auto", "no", "bf16", "fp16"), f"schedule.precision is auto, no, bf16 or fp16, not {self.precision!r}.")

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
        weak: how one of two views is drawn, where not by `augment`: nearer to the whole picture, as a corpus holds it.
        axes: how the axes of the embedding are set in the end; None leaves them as trained. Needs `model.pool` to be `stages`.
    """

    name: str = "default"
    seed: int = 0
    init: str = ""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    weak: AugmentConfig | None = None
    objective: ObjectiveConfig = ObjectiveConfig()
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    axes: AxesConfig | None = None

    def __post_init__(self) -> None:
        s, o, d = self.schedule, self.objective, len(self.model.dims)
        _check(s.epochs > 0 or bool(self.axes and self.init), "schedule.epochs is at least 1, but where axes are set in a model in init.")
        _check(0 <= self.seed < 2**32, f"A seed is from 0 to below 2 to the power of 32, not {self.seed}.")
        _check(o.label + o.instance + o.individual > 0 or not s.epochs, "objective: all weights are 0; make one positive.")
        _check(bool(self.data.individual) or not o.individual, "objective.individual needs data.individual.", "Set both, or neither.")
        begins = bool(o.label or not o.instance_from)
        _check(begins, "objective.instance_from leaves the first epochs to the labels, and objective.label is 0.", "Make it 0, too.")
        begins = not (s.epochs and o.instance + o.individual) or o.instance_from < s.epochs
        _check(begins, f"Similarity is learnt from epoch {o.instance_from} on, the last is {s.epochs - 1}.", "Set objective.instance_from.")
        _check(not o.distil or bool(self.init and o.label), "objective.distil wants a model to learn from in init, and objective.label.")
        for name in ("weights", "instance_weights", "individual_weights"):
            n = len(getattr(o, name))
            _check(n in (0, d), f"objective.{name} has {n} numbers for {d} dims: it wants one for each, or none.")
        fits = bool(self.init and self.axes) or not s.keep
        _check(fits, "schedule.keep is a share of the weights in init, and wants axes, which fit the mean.", "Without them, make it 0.")
        _check(self.axes is None or self.model.pool == "stages", "axes want model.pool to be stages.")
        one = self.model.backbone == "compact" or {*s.sizes.values(), s.embed_size or s.size(0)} == {s.size(0)}
        _check(one, "The backbone four-conv is made for pictures of one size.", "Give schedule.sizes one value, and no embed_size.")
