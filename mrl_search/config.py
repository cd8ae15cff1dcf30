"""The values that steer everything: a search `Plan`, an `IndexSpec`, and a `TrainConfig`; frozen, printable, stored as used."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from mrl_search.errors import ConfigError
from mrl_search.mapping import from_mapping, to_mapping, to_toml

__all__ = [
    "SCAN", "AugmentConfig", "AxesConfig", "DataConfig", "IndexSpec", "ModelConfig", "ObjectiveConfig", "Plan", "ScheduleConfig", "Stage",
    "TrainConfig", "from_mapping", "to_mapping", "to_toml",
]  # fmt: skip

DIMS = (8, 16, 32, 64, 128, 256, 512, 1024)
STAGE = re.compile(r"(\d+)(?::(\d+))?(?:@(\d+))?")
SCAN = "Scan"
FLAT_UP_TO, LONGEST_CODED = 50_000, 128
GRAPH_FROM = 16_384  # clusters from which on a graph finds the nearest faster than comparing with all


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
        if not self.stages:
            raise ConfigError("A plan needs at least one stage.", "For example 64:10, or 8:200,1024:10.")
        for stage in self.stages:
            if stage.dims < 1 or stage.keep < 1 or stage.effort < 0:
                raise ConfigError(f"Stage {stage} keeps nothing or reads nothing.", "Both numbers of a stage are at least 1.")
        for a, b in zip(self.stages, self.stages[1:], strict=False):
            if b.dims <= a.dims:
                raise ConfigError(
                    f"Plan {self}: dims must grow from stage to stage, {b.dims} follows {a.dims}.", "For example 8:200,64:50,1024."
                )
            if b.keep > a.keep:
                raise ConfigError(f"Plan {self}: a stage cannot keep more than the one before, {b.keep} follows {a.keep}.")
            if b.effort:
                raise ConfigError(f"Plan {self}: only the first stage asks an index, {b} cannot.", "Leave its @ out.")

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
        if plan.keep < k:
            raise ConfigError(
                f"Plan {plan} keeps {plan.keep} at the end, fewer than the {k} asked for.", f"End it with :{k}, or ask for fewer with -k."
            )
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
        if self.dtype not in ("float16", "float32"):
            raise ConfigError(f"Vectors are stored as float16 or float32, not {self.dtype!r}.", "float16 is enough for nearly all.")
        unknown = sorted(set(self.factories) - set(map(str, self.dims)))
        if unknown:
            raise ConfigError(f"A factory is given for {unknown[0]} dims, which get no index.", f"Dims: {', '.join(map(str, self.dims))}.")

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


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which images train and which validate.

    Attributes:
        min_side: images of which a side is not over so many pixels are left out (0: none).
        validation: share that validates.
        split_seed: of the division.
        swap: train on the validation part and validate on the other; with `validation` 0.5, the second fold of a 5x2 cross-validation.
    """

    min_side: int = 0
    validation: float = 0.1
    split_seed: int = 0
    swap: bool = False


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

    @property
    def crops(self) -> bool:
        """Whether a view may show less than the whole picture."""
        return self.scale[0] < 1


@dataclass(frozen=True, slots=True)
class AxesConfig:
    """How the axes of the embedding are set in closed form when training is over (`mrl_search/axes.py`).

    Attributes:
        share: of the squared length of every prefix that goes to the classes, on average; the rest tells images apart.
        views: changed views of each training image, what an embedding should not mind.
    """

    share: float = 0.2
    views: tuple[AugmentConfig, ...] = (AugmentConfig(),)


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
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    weak: AugmentConfig | None = None
    objective: ObjectiveConfig = ObjectiveConfig()
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    axes: AxesConfig | None = None

    def __post_init__(self) -> None:
        s, o = self.schedule, self.objective
        if not s.sizes or not all(e.isdecimal() and size > 0 for e, size in s.sizes.items()) or min(map(int, s.sizes)) != 0:
            raise ConfigError(
                f"schedule.sizes must say the size from epoch 0 on, not {dict(s.sizes)}.", 'For example { "0" = 64, "8" = 128 }.'
            )
        if min(s.epochs + bool(self.axes and self.init), s.batch, s.accumulate) < 1 or s.lr <= 0 or not 0 <= s.warmup < 1:
            raise ConfigError("schedule: epochs, batch and accumulate are at least 1, lr is positive, and warmup is a share below 1.")
        for view in (self.augment, *([self.weak] if self.weak else []), *(self.axes.views if self.axes else ())):
            if view.outside not in ("reflection", "zeros") or not 0 <= view.jpeg <= 95:
                raise ConfigError(f"A view's outside is reflection or zeros, not {view.outside!r}; its jpeg is 0 to 95.")
        if s.precision not in ("auto", "no", "bf16", "fp16"):
            raise ConfigError(f"schedule.precision is auto, no, bf16 or fp16, not {s.precision!r}.")
        if o.instance_from and not o.label:
            raise ConfigError("objective.instance_from leaves the first epochs to the labels, and objective.label is 0.")
        if not 0 <= o.distil <= 1 or (o.distil and not (self.init and o.label)):
            raise ConfigError("objective.distil is a share of 1, and wants a model to learn from in init, and objective.label.")
        if o.weights and len(o.weights) != len(self.model.dims):
            raise ConfigError(
                f"objective.weights has {len(o.weights)} numbers for {len(self.model.dims)} dims.", "Give one weight for each prefix."
            )
        if self.model.pool not in ("last", "stages") or (self.model.pool != "last" and self.model.backbone != "compact"):
            raise ConfigError(f"model.pool is last, or with the backbone compact stages, not {self.model.pool!r}.")
        if self.model.mirror and self.model.backbone != "compact":
            raise ConfigError("model.mirror is for the backbone compact.")
        if not 0 <= s.keep < 1 or (s.keep and not (self.init and self.axes)):
            raise ConfigError("schedule.keep is a share below 1 of the weights in init, and wants axes, which fit the mean.")
        if self.axes and (self.model.pool != "stages" or not self.axes.views or not 0 <= self.axes.share < 1):
            raise ConfigError("axes: share is from 0 to below 1, there is at least one view, and model.pool is stages.")
        if s.decay not in ("cosine", "exponential") or not 0 < s.gamma <= 1:
            raise ConfigError(f"schedule.decay is cosine or exponential, not {s.decay!r}; gamma is over 0 and at most 1.")
        if self.model.heads not in ("linear", "tied", "cosine") or self.model.scale <= 0:
            raise ConfigError(f"model.heads is linear, tied or cosine, not {self.model.heads!r}; model.scale is positive.")
        if self.model.backbone == "four-conv" and {*s.sizes.values(), s.embed_size or s.size(0)} != {s.size(0)}:
            raise ConfigError(
                "The backbone four-conv is made for one size of pictures.", "Give schedule.sizes one value, and no embed_size."
            )
        if not 0 < self.data.validation < 1:
            raise ConfigError(f"data.validation is a share between 0 and 1, not {self.data.validation}.")

    def resized(self, width: int | None = None, size: int | None = None) -> Self:
        """This recipe with a first stage of `width` channels, the others in proportion, and pictures of `size` pixels throughout."""
        model, schedule = self.model, self.schedule
        if width is not None:
            model = dataclasses.replace(model, widths=tuple(round(w * width / model.widths[0]) for w in model.widths))
        if size is not None:
            schedule = dataclasses.replace(schedule, sizes={"0": size}, embed_size=0)
        return dataclasses.replace(self, model=model, schedule=schedule)
