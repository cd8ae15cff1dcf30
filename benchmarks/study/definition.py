"""The definition of a study, read from a TOML file: parts, their runs, and the jobs of these."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mrl_search.errors import ConfigError
from mrl_search.mapping import from_mapping
from mrl_search.measure.copies import PROTOCOLS
from mrl_search.training.config import TrainConfig
from mrl_search.training.recipes import load_recipe
from mrl_search.vectors import DIMS

__all__ = ["Job", "PartSpec", "RunSpec", "SourceSpec", "Study", "jobs_of", "load_study"]

REPETITIONS = 5  # of a 5x2 cross-validation


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Where images are: `path` as for `train`; `group` is the column of a coarse label."""

    path: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One system of a part.

    Attributes:
        name: of the system.
        recipe: it is trained by; a name ending in .toml is a file beside the definition.
        row: its row in the tables; default: `name`. Systems of different dims may share one.
        set: values of the recipe that are replaced, as for `train --set`.
        width: as for `train --width`; 0: that of the recipe.
        size: as for `train --size`; 0: that of the recipe.
        prefixes: measure every prefix; false: only the full length.
        controls: also measure what is left of it when it is cut along principal axes, or at random.
    """

    name: str
    recipe: str
    row: str = ""
    set: tuple[str, ...] = ()
    width: int = 0
    size: int = 0
    prefixes: bool = True
    controls: bool = False


@dataclass(frozen=True, slots=True)
class PartSpec:
    """Runs on one source that belong in the same tables.

    Attributes:
        about: a sentence for the tables.
        source: name of the source.
        runs: the systems.
        seeds: each system is trained once for each of them.
        dims: prefixes that are measured, trained or not.
        cross_validate: train on each half of five random halvings instead, with seeds 0 to 4.
        compare: pairs of systems to test: the first at full length, the second at every prefix.
        instance: protocols by which instance recall is measured, `standard` and `hard`.
        scatter: prefixes whose principal plane is recorded.
    """

    about: str
    source: str
    runs: tuple[RunSpec, ...]
    seeds: tuple[int, ...] = (0,)
    dims: tuple[int, ...] = DIMS
    cross_validate: bool = False
    compare: tuple[tuple[str, str], ...] = ()
    instance: tuple[str, ...] = ()
    scatter: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """All parts by name, in the order of the file, and the sources they use."""

    sources: Mapping[str, SourceSpec]
    parts: Mapping[str, PartSpec] = field(default_factory=dict)

    def part(self, name: str) -> PartSpec:
        """The part of that name. Raises ConfigError if there is none."""
        if name not in self.parts:
            raise ConfigError(
                f"The study has no part {name!r}.", f"Parts: {', '.join(self.parts)}."
            )
        return self.parts[name]


@dataclass(frozen=True, slots=True)
class Job:
    """One training run and its measurement; `key` names its files.

    `repetition` and `fold` are -1 outside a cross-validation.
    """

    part: str
    run: RunSpec
    config: TrainConfig
    repetition: int = -1
    fold: int = -1

    @property
    def key(self) -> str:
        where = (
            f"seed{self.config.seed}" if self.fold < 0 else f"rep{self.repetition}-fold{self.fold}"
        )
        return f"{self.run.name}-{where}"


def load_study(path: Path) -> Study:
    """Read the definition of a study.

    Raises:
        ConfigError: a file that is missing or not TOML, an unknown key, source, recipe or run, or
            a name that is not unique.
    """
    try:
        study = from_mapping(Study, tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}.",
            "Name a study's definition, such as study.toml.",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    parts = {
        name: replace(part, runs=tuple(_beside(path, run) for run in part.runs))
        for name, part in study.parts.items()
    }
    study = replace(study, parts=parts)
    for name, part in study.parts.items():
        names = [run.name for run in part.runs]
        if part.source not in study.sources:
            raise ConfigError(
                f"{path}: part {name} wants the source {part.source!r}.",
                f"Sources: {', '.join(study.sources)}.",
            )
        if len(set(names)) != len(names) or not names:
            raise ConfigError(
                f"{path}: the runs of part {name} need names, each its own, not {names}."
            )
        unknown = [run for pair in part.compare for run in pair if run not in names]
        if unknown:
            raise ConfigError(
                f"{path}: part {name} compares {unknown[0]!r}.", f"Its runs: {', '.join(names)}."
            )
        if set(part.instance) - set(PROTOCOLS):
            raise ConfigError(
                f"{path}: part {name} has other protocols than {', '.join(PROTOCOLS)}: "
                f"{', '.join(part.instance)}."
            )
        jobs_of(study, name)
    return study


def _beside(path: Path, run: RunSpec) -> RunSpec:
    return (
        replace(run, recipe=str(path.parent / run.recipe)) if run.recipe.endswith(".toml") else run
    )


def jobs_of(study: Study, part: str) -> list[Job]:
    """All jobs of a part; a cross-validation goes repetition by repetition.

    Raises:
        ConfigError: no such part, or a recipe that does not exist or makes no sense.
    """
    spec = study.part(part)
    jobs = []
    if spec.cross_validate:
        for repetition in range(REPETITIONS):
            for fold in (0, 1):
                data = [
                    "data.validation=0.5",
                    f"data.split_seed={repetition}",
                    f"data.swap={str(fold == 1).lower()}",
                ]
                jobs += [
                    Job(
                        part,
                        run,
                        _config(part, run, [*data, f"seed={repetition}"]),
                        repetition,
                        fold,
                    )
                    for run in spec.runs
                ]
    else:
        jobs = [
            Job(part, run, _config(part, run, [f"seed={seed}"]))
            for seed in spec.seeds
            for run in spec.runs
        ]
    return jobs


def _config(part: str, run: RunSpec, more: list[str]) -> TrainConfig:
    overrides = [*run.set, *more, f"name={part}-{run.name}"]
    recipe = load_recipe(run.recipe, overrides, run.width or None, run.size or None)
    if len(recipe.steps) > 1:
        raise ConfigError(
            f"The recipe {run.recipe} has several steps; a run has one.",
            f"Name one: {run.recipe}:STEP.",
        )
    return recipe.steps[0]
