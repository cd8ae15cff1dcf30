"""Measure a trained system of a study: prefixes, controls, adaptive classification, shape."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from controls import plane, principal, shuffled, spectrum
from definition import PartSpec, RunSpec, SourceSpec
from numpy.typing import NDArray
from quality import Answers, Part, Representation, neighbours, probe_answers, quality
from records import bits_of

from mrl_search.encoders.base import Encoder
from mrl_search.encoders.embed import embed_pictures
from mrl_search.images.sources import Source, open_source
from mrl_search.measure.accuracy import Copies, finds_original
from mrl_search.measure.copies import PROTOCOLS, changed_copies
from mrl_search.search.cascade import trade_off
from mrl_search.store.collection import Heads
from mrl_search.training.config import TrainConfig
from mrl_search.training.pixels import Pixels
from mrl_search.training.split import split_rows
from mrl_search.vectors import sample

__all__ = ["Images", "images_of", "measure"]

SHUFFLES = 3
POINTS = 600  # of a scatter
BLOCK = 512


@dataclass(frozen=True, eq=False, slots=True)
class Images:
    """The usable images of a source, decoded at the encoder's size, with paths and groups.

    Groups may be empty.
    """

    source: Source
    pixels: Pixels
    paths: Sequence[str]
    groups: Sequence[str | None]


def images_of(spec: SourceSpec, source: Source, pixels: Pixels) -> Images:
    """`pixels` with the paths and groups of the same images."""
    groups = open_source(spec.path, spec.group).labels if spec.group else []
    return Images(
        source,
        pixels,
        [source.paths[i] for i in pixels.rows],
        [groups[i] for i in pixels.rows] if spec.group else [],
    )


def measure(
    images: Images, encoder: Encoder, config: TrainConfig, part: PartSpec, run: RunSpec
) -> Iterator[dict[str, Any]]:
    """All records of a trained system, without those of its job and epochs."""
    pixels, twins = images.pixels, encoder.training.get("twins")
    train_rows, held_out = split_rows(pixels.labels, pixels.hashes, config.data, (), twins)
    full = encoder.dims[-1]
    dims = tuple(d for d in part.dims if d <= full) if run.prefixes else (full,)
    heads = _heads(encoder, config, dims)
    train, validation = _part(images, encoder, train_rows), _part(images, encoder, held_out)
    own = Representation("own", train, validation, heads, encoder.heads.classes)
    copies = {
        name: changed_copies(
            images.source, encoder, {images.paths[i] for i in held_out}, PROTOCOLS[name]
        )[0]
        for name in part.instance
    }
    corpus = np.concatenate([train.rows, validation.rows])
    hashes = np.array(images.pixels.hashes, dtype=object)[np.concatenate([train_rows, held_out])]

    def recall(copies: Copies, d: int) -> float:
        hits = neighbours(corpus[:, :d], copies.rows[:, :d], 1)
        return float(finds_original(hits, hashes, copies.originals).mean())

    instance = {name: {d: recall(c, d) for d in dims} for name, c in copies.items()}
    yield from _prefixes(own, dims, instance)
    if run.controls:
        cuts = tuple(d for d in part.dims if d <= full)
        yield from _prefixes(principal(own, cuts), cuts, {})
        for seed in range(SHUFFLES):
            yield from _prefixes(shuffled(own, cuts, seed), cuts, {})
    yield {"kind": "spectrum", "values": [round(v, 6) for v in spectrum(train.rows).tolist()]}
    for d in part.scatter:
        if d <= full and (run.prefixes or d == full):
            some = sample(len(held_out), POINTS)
            points = plane(validation.rows[:, :d])[some]
            points = points / np.abs(points).max()
            x, y = (np.round(points[:, i], 4).tolist() for i in (0, 1))
            names = validation.groups if len(validation.groups) else validation.labels
            yield {"kind": "scatter", "dims": d, "x": x, "y": y, "label": names[some].tolist()}


def _part(images: Images, encoder: Encoder, rows: NDArray[np.int64]) -> Part:
    """The images at `rows`, embedded a block at a time."""
    blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
    embedded = [
        embed_pictures(encoder, images.pixels.images[block].permute(0, 2, 3, 1).numpy())
        for block in blocks
    ]
    labels = np.array(images.pixels.labels, dtype=object)[rows]
    groups = (
        np.array(images.groups, dtype=object)[rows] if images.groups else np.empty(0, dtype=object)
    )
    return Part(np.concatenate(embedded), labels, groups)


def _heads(encoder: Encoder, config: TrainConfig, dims: tuple[int, ...]) -> Heads:
    """The encoder's heads; a tied head serves every prefix, trained or not."""
    if config.model.heads == "tied" and encoder.heads.weights:
        weight, bias = encoder.heads.weights[encoder.dims[-1]]
        return {d: (np.ascontiguousarray(weight[:, :d]), bias) for d in dims}
    return encoder.heads.weights


def _prefixes(
    of: Representation, dims: tuple[int, ...], instance: Mapping[str, Mapping[int, float]]
) -> Iterator[dict[str, Any]]:
    """Records of each prefix, and of adaptive classification by heads and by neighbours."""
    probes = probe_answers(of, dims)
    by_name: dict[str, dict[int, Answers]] = {"head": {}, "nn20": {}}
    for d in dims:
        shares, answers = quality(of, d, probes[d])
        for name, answer in answers.items():
            by_name[name][d] = answer
        shares |= {f"instance_{name}": recall[d] for name, recall in instance.items()}
        yield {
            "kind": "prefix", "of": of.name, "dims": d, "n": len(of.validation.labels),
            "n_train": len(of.train.rows), "shares": shares,
            "right": {name: bits_of(answer.right) for name, answer in answers.items()},
        }  # fmt: skip
    if of.name == "own":
        for name, by_dims in by_name.items():
            yield from _cascades(name, by_dims)


def _cascades(by: str, answers: Mapping[int, Answers]) -> Iterator[dict[str, Any]]:
    """Adaptive classification: thresholds of one half of the images, measured on the other."""
    dims = sorted(answers)
    if not dims:
        return
    right = np.column_stack([answers[d].right for d in dims])
    confidence = np.column_stack([answers[d].confidence for d in dims])
    for each in trade_off(confidence, right, dims):
        yield {"kind": "cascade", "by": by, **each.record()}
