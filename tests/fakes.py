"""A source in memory, drawn pictures, and an encoder without a network, shared by the tests."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mrl_search import files
from mrl_search.encoders.base import LinearHeads, Preprocessing
from mrl_search.errors import BrokenImage
from mrl_search.images.drawn import SPECIES, draw_animal


def png(grey: int, width: int = 20, height: int = 10) -> bytes:
    """A PNG file of one grey value."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (grey, grey, grey)).save(file, "PNG")
    return file.getvalue()


def write_corpus(folder: Path, per_species: int, seed: int = 0, size: int = 160) -> list[Path]:
    """Draw `per_species` cats and dogs as `folder/cat/cat-0000.jpg` and so on."""
    paths = []
    for species in SPECIES:
        (folder / species).mkdir(parents=True, exist_ok=True)
        for i in range(per_species):
            paths.append(folder / species / f"{species}-{i:04d}.jpg")
            image = draw_animal(species, seed * 1_000_000 + i, size)
            image.save(paths[-1], "JPEG", quality=90)
    return paths


@dataclass
class ListSource:
    """Images in memory; reading an entry that is an error raises it."""

    files: list[bytes | BrokenImage]
    name: str = "a list"
    paths: list[str] = field(init=False)
    labels: list[str | None] = field(init=False)
    notes: tuple[str, ...] = ()
    columns: pa.Table | None = None

    def __post_init__(self) -> None:
        self.paths = [f"image {i}" for i in range(len(self.files))]
        self.labels = [f"label {i % 2}" for i in range(len(self.files))]

    def read(self, i: int) -> bytes:
        data = self.files[i]
        if isinstance(data, BrokenImage):
            raise data
        return data

    def read_described(self, i: int) -> tuple[bytes, Mapping[str, object]]:
        return self.read(i), {}


@dataclass
class FakeEncoder:
    """The vector of a picture is its first pixel values. `batches` has the size of every call."""

    model: str = "bundled"
    name: str = "counting"
    fingerprint: str = "f00d" * 8
    dims: tuple[int, ...] = (8, 16, 64)
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(8))
    heads: LinearHeads = field(default_factory=LinearHeads)
    training: Mapping[str, Any] = field(default_factory=dict)
    axes: str = "none"
    device: str = "cpu"
    batches: list[int] = field(default_factory=list)

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        self.batches.append(len(pictures))
        return pictures.reshape(len(pictures), -1)[:, : self.dims[-1]].astype(np.float32)


def fail_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let every file that is written atomically fail with an errno after half a write."""

    def write(file: io.FileIO, data: bytes) -> int:
        io.FileIO.write(file, data[: len(data) // 2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files._OwnFile, "write", write)


COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1)}


@dataclass
class FakeJointEncoder(FakeEncoder):
    """The vector of a picture is its mean colour and a constant; of a text, of its colours."""

    name: str = "colours"
    texts: list[str] = field(default_factory=list)

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        self.batches.append(len(pictures))
        rows = np.zeros((len(pictures), self.dims[-1]), np.float32)
        rows[:, :3] = pictures.mean(axis=(1, 2))
        rows[:, 3] = 100
        return rows

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        rows = np.zeros((len(texts), self.dims[-1]), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:3] = np.sum([COLOURS.get(word, (0, 0, 0)) for word in text.split()], axis=0)
        return rows
