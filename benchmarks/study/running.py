"""Running a study: train, measure and record one job after another; continue where it stopped."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from definition import Job, Study, jobs_of
from measuring import images_of, measure
from records import read_part, record_file, write_records

from mrl_search.encoders.checkpoint import DESCRIPTION
from mrl_search.encoders.registry import load_encoder
from mrl_search.errors import ConfigError, DataError
from mrl_search.images.sources import Source, open_source
from mrl_search.mapping import from_mapping, to_mapping
from mrl_search.measure.environment import provenance
from mrl_search.training.config import TrainConfig
from mrl_search.training.loop import train_pixels
from mrl_search.training.pixels import Pixels, load_pixels, pixel_side
from mrl_search.training.records import Record
from mrl_search.training.run_folder import RECORDS

__all__ = ["Places", "State", "run_part", "state_of", "with_sources"]

Listener = Callable[[Job, Record | str], None]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a study lives: training runs in `runs` (not kept), `records` (kept)."""

    runs: Path = Path("runs/study")
    records: Path = Path("benchmarks/study/records")


@dataclass(frozen=True, slots=True)
class State:
    """How far a job is: `done`, `begun` or `open`."""

    job: Job
    state: str


@dataclass
class _Decoded:
    """Decoded pictures of the last job, which the next one often needs, too."""

    pixels: dict[tuple[str, int, int], Pixels] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)

    def source(self, path: str) -> Source:
        if path not in self.sources:
            self.sources[path] = open_source(path)
        return self.sources[path]

    def load(self, path: str, side: int, min_side: int) -> Pixels:
        key = (path, side, min_side)
        if key not in self.pixels:
            while len(self.pixels) > 1:  # more may not fit in memory
                del self.pixels[next(iter(self.pixels))]
            self.pixels[key] = load_pixels(self.source(path), side, min_side)
        return self.pixels[key]


def state_of(study: Study, part: str, places: Places) -> list[State]:
    """How far each job of a part is.

    Raises:
        DataError: records of a job with another recipe than the definition, or of no run in it.
    """
    recorded = {(r.job["run"], r.job["key"]): r.job for r in read_part(places.records, part)}
    jobs = jobs_of(study, part)
    for _, key in recorded.keys() - {(job.run.name, job.key) for job in jobs}:
        raise DataError(
            f"{record_file(places.records, part, key)} is of no run that the study has.",
            "Remove it, or define its run.",
        )
    states = []
    for job in jobs:
        known = recorded.get((job.run.name, job.key))
        file = record_file(places.records, part, job.key)
        if (
            known is not None
            and from_mapping(TrainConfig, known["recipe"], str(file)) != job.config
        ):
            raise DataError(
                f"{file} was made by another recipe than the study has now.",
                "Remove it, and its folder in the runs, to redo it.",
            )
        begun = (places.runs / part / job.key).exists()
        states.append(State(job, "done" if known is not None else "begun" if begun else "open"))
    return states


def run_part(
    study: Study, part: str, places: Places, only: str | None = None, notify: Listener | None = None
) -> Iterator[Job]:
    """Run the jobs of a part that are not done yet, and yield each when its records are written.

    Args:
        study: the definition.
        part: which part of it.
        places: where everything goes.
        only: the name of one run, to run nothing else.
        notify: called with every record of the training, and with `measuring` before that.

    Raises:
        ConfigError: no such part or run, or a run folder that holds another recipe's run.
        DataError: images that cannot be used, or records of another recipe.
    """
    if only is not None and only not in {run.name for run in study.part(part).runs}:
        raise ConfigError(
            f"Part {part} has no run {only!r}.",
            f"Its runs: {', '.join(run.name for run in study.part(part).runs)}.",
        )
    decoded = _Decoded()
    for state in state_of(study, part, places):
        done = record_file(
            places.records, part, state.job.key
        ).exists()  # by now: another process may be at work on the same part
        if not done and only in (None, state.job.run.name):
            _run(study, state.job, places, decoded, notify or _silent)
            yield state.job


def _run(study: Study, job: Job, places: Places, decoded: _Decoded, notify: Listener) -> None:
    spec = study.part(job.part)
    source = study.sources[spec.source]
    out = places.runs / job.part / job.key
    if not (out / DESCRIPTION).exists():
        pixels = decoded.load(source.path, pixel_side(job.config), job.config.data.min_side)
        report = lambda _, record: notify(job, record)  # noqa: E731
        train_pixels(pixels, job.config, out, source.path, on_record=report)
    notify(job, "measuring")
    start = time.perf_counter()
    encoder = load_encoder(str(out))
    trained = (
        from_mapping(TrainConfig, encoder.training["recipe"], str(out)),
        encoder.training["source"],
    )
    if trained != (job.config, source.path):
        raise DataError(
            f"The model in {out} was trained by another recipe or on another source.",
            "Remove it, to train it again.",
        )
    pixels = decoded.load(source.path, encoder.preprocessing.size, job.config.data.min_side)
    images = images_of(source, decoded.source(source.path), pixels)
    measured = list(measure(images, encoder, job.config, spec, job.run))
    lines = (
        (out / RECORDS).read_text().splitlines() if (out / RECORDS).exists() else []
    )  # axes alone have no epochs
    epochs = [{"kind": "epoch", **json.loads(line)} for line in lines]
    training = sum(epoch["seconds"] for epoch in epochs) + encoder.training.get("axes", {}).get(
        "seconds", 0
    )
    head: dict[str, Any] = {
        "kind": "job",
        "part": job.part,
        "run": job.run.name,
        "row": job.run.row or job.run.name,
        "key": job.key,
        "seed": job.config.seed,
        "repetition": job.repetition,
        "fold": job.fold,
        "source": source.path,
        "images": len(pixels.labels),
        "skipped": len(pixels.skipped),
        "recipe": to_mapping(job.config),
        **provenance(encoder),
        "seconds": round(training + time.perf_counter() - start, 1),
        "device": str(encoder.device),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    write_records(record_file(places.records, job.part, job.key), [head, *epochs, *measured])


def _silent(job: Job, record: Record | str) -> None:
    """A callback that does nothing."""


def with_sources(study: Study, places: list[str]) -> Study:
    """The study with other paths for some sources, each NAME=PATH.

    Raises:
        ConfigError: not of that form, or no source of that name.
    """
    sources = dict(study.sources)
    for text in places:
        name, equals, path = text.partition("=")
        if not equals or name not in sources:
            raise ConfigError(
                f"{text!r} is not NAME=PATH of a source of this study.",
                f"Sources: {', '.join(sources)}.",
            )
        sources[name] = replace(sources[name], path=path)
    return replace(study, sources=sources)
