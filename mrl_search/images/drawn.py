"""Drawn animals in three levels: species, breed and individual; for the demo and the tests.

One generator fixes what an individual keeps (coat, marks, eyes, scarf, proportions), a second one
what a picture changes (pose, scene, light, size, noise). The same arguments give the same pixels.
An animal looks to the right (x), stands at y = 0, and is about 1 long. Pictures are drawn at twice
their size, then halved.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mrl_search.errors import ConfigError, DataError
from mrl_search.files import make_folder, reading, write_atomically
from mrl_search.images.drawing import (
    ANIMALS,
    BLACK,
    BREEDS,
    GREY,
    PINK,
    SLATE,
    SPECIES,
    WHITE,
    Breed,
    Colour,
    Pen,
    Shape,
    any_colour,
    limb,
    oval,
    scene,
    tint,
    vivid_colour,
)

__all__ = ["BREEDS", "INDIVIDUAL", "SPECIES", "draw_animal", "write_individuals"]

INDIVIDUAL = r"([a-z]+-\d+)-\d+\.jpg$"  # names the individual in a path of `write_individuals`
_STAMP = b"mrl-search drawn animal, version 2"  # count up when the drawing changes
_POOL_FROM = 400  # pictures from which several processes draw faster than one


@dataclass(frozen=True)
class Animal:
    """One individual: everything that stays the same in all its pictures."""

    breed: Breed
    coat: Colour
    marks: Colour
    iris: Colour
    scarf: Colour
    border: Colour  # second half of the scarf
    ear: float  # size, 1 on average
    build: float
    legs: float
    socks: bool  # feet in the colour of the marks
    bib: bool  # chest in the colour of the marks
    tip: bool  # tail in the colour of the marks
    layout: int  # seed of the marks on trunk and head

    @classmethod
    def of(cls, species: str, number: int) -> "Animal":
        """The individual with this number; breeds take turns."""
        rng = np.random.default_rng([SPECIES.index(species), number])
        breed = ANIMALS[species][number % len(ANIMALS[species])]
        pair = breed.coats[rng.integers(len(breed.coats))]
        coat, marks = (tint(c, rng.uniform(0.85, 1.12) * rng.uniform(0.94, 1.06, 3)) for c in pair)
        irises = ((122, 186, 84), (236, 190, 60), (92, 170, 226), (204, 130, 52))
        iris = (
            irises[rng.integers(4)] if species == "cat" or breed.ears == "pricked" else (70, 42, 26)
        )
        scarf, border = vivid_colour(rng), vivid_colour(rng)
        build, legs = breed.build * rng.uniform(0.9, 1.12), breed.legs * rng.uniform(0.9, 1.1)
        socks, bib, tip = (rng.random(3) < 0.4).tolist()
        return cls(
            breed, coat, marks, iris, scarf, border, rng.uniform(0.85, 1.2), build, legs,
            socks, bib, tip, int(rng.integers(2**31)),
        )  # fmt: skip


# number, smallest and largest size, height
_MARKS = {
    "striped": (11, 0.12, 0.2, 6.0),
    "spotted": (26, 0.1, 0.26, 0.8),
    "patched": (4, 0.4, 0.9, 0.7),
}
# of a cat's ears; thickness of tails at their root and end
_TIPS = {"pointed": -0.82 + 1.4j, "large": -1.12 + 1.6j, "small": -0.85 + 1j, "folded": -1 + 0.55j}
_TAILS = {
    "thin": (0.035, 0.035),
    "tapered": (0.05, 0.02),
    "bushy": (0.08, 0.1),
    "curled": (0.09, 0.08),
}


def _pattern(kind: str, seed: int, low: complex, high: complex, size: float) -> list[Shape]:
    """The marks of one individual in the box between two corners, for shapes about `size` thick."""
    if kind not in _MARKS:
        return []
    rng, (count, small, large, tall) = np.random.default_rng(seed), _MARKS[kind]
    across, up = rng.random(count), rng.random(count)
    if kind == "striped":
        across, up = (np.arange(count) + 0.6 * across - 0.3) / count, 0.75 + 0.25 * up
    centres = low + across * (high - low).real + 1j * up * (high - low).imag
    radii, turns = size * rng.uniform(small, large, count), rng.uniform(-0.2, 0.2, count)
    parts = zip(centres.tolist(), radii.tolist(), turns.tolist(), strict=True)
    return [oval(centre, r, r * tall, turn) for centre, r, turn in parts]


def _cat_head(pen: Pen, rng: np.random.Generator, cat: Animal) -> None:
    """A round face from the front, about 2 wide: pointed ears, slit pupils, whiskers."""
    coat, marks, kind = cat.coat, cat.marks, cat.breed.pattern
    ear = np.array([-0.98 + 0.15j, _TIPS[cat.breed.ears] * cat.ear, -0.1 + 0.85j])
    inner = 0.62 * ear + 0.38 * ear.mean()
    face = oval(0, rng.uniform(1.02, 1.1), rng.uniform(0.84, 0.9))
    cheeks = (-1.25 - 0.35j, -0.9 + 0.2j, 0.9 + 0.2j, 1.25 - 0.35j, 0.4 - 0.7j, -0.4 - 0.7j)
    look = complex(rng.uniform(-0.05, 0.25), rng.uniform(-0.08, 0.05))
    pen.fill(coat, ear, -ear.conj(), face, cheeks, outline=True)
    pen.fill(marks if kind == "points" else PINK, inner, -inner.conj())
    spots = [limb(x + 0.95j, 0.8 * x + 0.6j, 0.7 * x + 0.4j, 0.1, 0.04) for x in (-0.4, 0, 0.4)]
    spots += [
        limb(s * (1.1 + y), s * 0.9 + y, s * 0.65 + y, 0.09, 0.03)
        for s in (-1, 1)
        for y in (-0.1j, -0.35j)
    ]
    mask = {"striped": spots, "points": [oval(look - 0.3j, 0.75, 0.62)]}
    pen.mark(marks, mask.get(kind) or _pattern(kind, cat.layout, -1 + 0.1j, 1 + 1j, 0.7), [face])
    muzzle = tint(marks, 1.3) if kind == "points" else WHITE
    pen.fill(muzzle, *(oval(look + s - 0.38j, 0.3, cat.breed.muzzle) for s in (-0.22, 0.22)))
    pupil, sleepy = rng.uniform(0.06, 0.16), rng.random() < 0.1
    for eye in (look - 0.44, look + 0.44):
        if sleepy:
            pen.line(BLACK, eye - 0.2 + 0.1j, eye, eye + 0.2 + 0.1j, width=3)
            continue
        pen.fill(cat.iris, oval(eye + 0.08j, 0.25, 0.22), outline=True)
        pen.fill(BLACK, oval(eye + 0.08j, pupil, 0.2))
        pen.fill(WHITE, oval(eye + 0.07 + 0.15j, 0.05, 0.05))
    nose = tint(PINK, rng.uniform(0.5, 1))
    pen.fill(nose, (look - 0.13 - 0.16j, look + 0.13 - 0.16j, look - 0.32j))
    whiskers = WHITE if sum(coat) < 600 else SLATE
    for s in (-1, 1):
        pen.line(BLACK, look - 0.32j, look + s * 0.05 - 0.5j, look + s * 0.25 - 0.55j)
        for rise in (-0.6j, -0.4j, -0.2j):
            pen.line(whiskers, look + s * 0.35 - 0.4j, look + s * 1.45 + rise, width=1)


def _dog_head(pen: Pen, rng: np.random.Generator, dog: Animal) -> None:
    """A long muzzle, from the side or the front, a big nose, mostly floppy ears. About 1.6 wide."""
    coat, marks, kind, long = dog.coat, dog.marks, dog.breed.pattern, dog.breed.muzzle
    pricked = dog.breed.ears == "pricked"
    front, lift = rng.random() < 0.35, rng.uniform(-0.15, 0.25)
    skull, snout, nose = oval(0.05j, 0.82, 0.82), oval(-0.5j, 0.48, 0.3 + 0.35 * long), -0.35j
    if not front:
        snout = limb(0.2 - 0.15j, 0.3 - 0.3j, 0.35 + long - 0.36j, 0.5, 0.32)
        nose = 0.6 + long - 0.15j
    drop = -0.6 * dog.ear
    ears = [limb(-0.5 + 0.6j, -1.05 + (0.5 + lift) * 1j, -0.85 + (lift + drop) * 1j, 0.2, 0.33)]
    if pricked:
        ears = [np.array([-0.75 + 0.3j, -0.6 + 1.45j * dog.ear, 0.02 + 0.75j])]
    ears += [-ears[0].conj()] if front or pricked else []
    ear_colour = marks if kind in ("points", "patched") else tint(coat, 0.78)
    if pricked:
        pen.fill(ear_colour, *ears, outline=True)
    if rng.random() < 0.5:
        tongue = limb(nose - 0.1 - 0.35j, nose - 0.1 - 0.6j, nose - 0.05 - 0.85j, 0.15, 0.17)
        pen.fill((226, 104, 116), tongue, outline=True)
    pen.fill(coat, skull, snout, outline=True)
    layout = _pattern(kind, dog.layout, -0.8 - 0.1j, 0.8 + 0.9j, 0.6)
    pen.mark(marks, [snout] if kind == "points" else layout, [snout, skull])
    for eye in (-0.35 + 0.2j, 0.35 + 0.2j) if front else (0.28 + 0.2j,):
        pen.fill(WHITE, oval(eye, 0.15, 0.17))
        pen.fill(dog.iris, oval(eye + 0.03, 0.12, 0.14))
        pen.fill(WHITE, oval(eye + 0.07 + 0.05j, 0.04, 0.04))
        pen.line(tint(coat, 0.5), eye - 0.14 + 0.27j, eye + 0.1 + 0.32j, width=3)
    pen.fill(BLACK, oval(nose, 0.22, 0.16))
    pen.fill(GREY, oval(nose + 0.05 + 0.05j, 0.06, 0.03))
    pen.line(BLACK, nose - 0.12j, nose - 0.05 - 0.38j, nose - 0.4 - 0.42j)
    if not pricked:
        pen.fill(ear_colour, *ears, outline=True)


_Body = tuple[list[Shape], list[Shape], list[Shape], complex, complex]


def _leg(top: complex, knee: complex, foot: complex) -> list[Shape]:
    return [limb(top, knee, foot + 0.05j, 0.1, 0.06), oval(foot + 0.04 + 0.04j, 0.1, 0.05)]


def _body(pose: str, build: float, leg: float, sway: float) -> _Body:
    """Legs on the far side, trunk, near legs, the middle of the head, the root of the tail."""
    if pose == "standing":
        hip, head = (leg + build) * 1j, 0.55 + (leg + build + 0.35 + sway) * 1j
        feet = {-0.32: -0.33 - sway, 0.3: 0.31 + sway, -0.2: -0.2 + sway, 0.42: 0.41 - sway}
        legs = [_leg(x + hip, 1.1 * x + hip / 2, at) for x, at in feet.items()]
        neck = limb(0.28 + hip, 0.4 + hip, head, build, 0.13)
        trunk = [oval(hip, 0.46, build), oval(0.24 + hip, 0.22, build * 1.12), neck]
        return legs[2] + legs[3], trunk, legs[0] + legs[1], head, hip - 0.42 + 0.06j
    if pose == "sitting":
        head = 0.2 + (0.78 + leg / 2 + sway) * 1j
        back = limb(-0.14 + 1.4j * build, -0.08 + 0.5j, 0.1 + 0.6j, build * 1.4, build)
        trunk = [back, limb(0.1 + 0.6j, 0.15 + 0.7j, head, build, 0.13)]
        legs = [_leg(x + 0.5j, x + 0.08 + 0.3j, x + 0.04 + 0j) for x in (0.14, 0.26)]
        thigh = [oval(-0.1 + 0.2j, 0.14 + build / 2, 0.2), oval(0.06 + 0.05j, 0.15, 0.055)]
        return legs[1], trunk, legs[0] + thigh, head, -0.14 - build + 0.1j
    head, middle = 0.5 + (build + 0.3 + sway) * 1j, 1j * build
    trunk = [oval(middle + 0.02j, 0.5, build), limb(0.28 + middle, 0.4 + middle, head, build, 0.14)]
    paws = [
        limb(x + 0.1j, x + 0.1 + 0.02j, x + 0.34 + 0.06j, 0.09, 0.06) for x in (0.3, 0.42 + sway)
    ]
    near = [paws[0], oval(-0.28 + 0.16j, 0.21, 0.16), oval(-0.1 + 0.05j, 0.17, 0.055)]
    return paws[1:], trunk, near, head, -0.46 + 0.12j


def draw_animal(species: str, number: int, size: int = 160, picture: int = 0) -> Image.Image:
    """Draw picture `picture` of individual `number`: RGB, `size` x `size`; breeds take turns.

    Raises:
        ConfigError: the species is not one of `SPECIES`, a number is below 0, or the size below 16.
    """
    if species not in SPECIES:
        known = f"Choose one of: {', '.join(SPECIES)}."
        raise ConfigError(f"There is no drawing of a {species!r}.", hint=known)
    if min(number, picture) < 0 or size < 16:
        what = f"Picture {picture} of animal {number} at size {size} cannot be drawn."
        raise ConfigError(what, hint="Numbers start at 0, sizes at 16.")
    one = Animal.of(species, number)
    rng, n = np.random.default_rng([SPECIES.index(species), number, picture, 1]), 2 * size
    image, horizon = scene(rng, n)
    breed, coat, marks, kind = one.breed, one.coat, one.marks, one.breed.pattern
    pose = ("standing", "sitting", "lying")[rng.integers(3)]
    far, trunk, near, head, root = _body(pose, one.build, one.legs, rng.uniform(-0.08, 0.08))

    ground = rng.uniform(max(0.76, horizon / n + 0.06), 0.95)
    scale = min(rng.uniform(0.58, 0.72), ground / (head.imag + 0.5))  # the ears stay in the picture
    at = complex(rng.uniform(0.38, 0.46), ground) * n
    unit = scale * n * np.exp(1j * rng.uniform(-0.06, 0.06))
    side = 1 if rng.random() < 0.5 else -1
    pen = Pen(image, at if side > 0 else n - at.conjugate(), unit, side)
    shadow = [oval(0.03, 0.62, 0.07)]
    pen.mark((20, 20, 30), shadow, shadow, strength=90)
    bend = -0.34 + rng.uniform(-0.05, 0.1) * 1j
    end = -0.45 + (0.15 if pose == "lying" else 0.6) * rng.random() * 1j
    if breed.tail == "curled":
        bend, end = -0.1 + 0.42j, 0.14 + 0.3j
    tail = limb(root, root + bend, root + end, *_TAILS[breed.tail])
    pen.fill(marks if one.tip or kind == "points" else coat, tail, outline=True)
    pen.fill(tint(coat, 0.8), *far, outline=True)
    pen.fill(coat, *trunk, outline=True)
    pen.fill(coat, *near, outline=True)
    if one.bib:
        pen.mark(marks, [oval(head - 0.1 - 0.5j, 0.2, 0.3)], trunk)
    box = -0.5 + 0.6j * one.legs, complex(0.45, head.imag - 0.15)
    pen.mark(marks, _pattern(kind, one.layout, *box, one.build), trunk)
    if one.socks or kind == "points":
        pen.mark(marks, [oval(x + 0j, 0.2, 0.14) for x in (-0.3, 0.05, 0.35, 0.65)], near)
    knot, tip = head - 0.3 - 0.12j, head - 0.1 - 0.75j
    scarf = np.array([knot, head + 0.3 - 0.3j, tip])
    pen.fill(one.scarf, scarf, outline=True)
    pen.fill(one.border, (tip, scarf[1], 0.5 * (scarf[1] + knot)))
    nod = 0.33 * rng.uniform(0.94, 1.08) * np.exp(1j * rng.uniform(-0.2, 0.2))
    (_cat_head if species == "cat" else _dog_head)(pen.moved(head, nod), rng, one)
    if rng.random() < 0.25:
        pen.fill(any_colour(rng), oval(rng.uniform(-0.8, 0.9) + 0.08j, 0.11, 0.11), outline=True)

    light = rng.uniform(0.85, 1.06) * rng.uniform(0.96, 1.04, 3)
    pixels = np.asarray(image.reduce(2), dtype=np.float32) * light.astype(np.float32)
    noise = rng.random(pixels.shape, dtype=np.float32) - 0.5
    pixels += noise * np.float32(rng.uniform(4, 12))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


_Job = tuple[Path, str, int, int, int]  # path, species, number, picture, size


def write_individuals(
    folder: Path, per_breed: int, pictures: range, seed: int = 0, size: int = 160
) -> list[Path]:
    """Write pictures of `per_breed` individuals of each breed, `folder/cat/tabby/tabby-0007-1.jpg`.

    Returns the paths, breed by breed; `INDIVIDUAL` finds the individual in each. A comment in a
    file says what it shows: a complete file stays, one of another seed or size is drawn again.
    Other files in the folder stay.

    Raises:
        ConfigError: from `draw_animal`.
        DataError: a file of that name is not a drawn animal, or a folder cannot be made.
        MrlSearchError: the disk is full, or the place cannot be written.
    """
    breeds = [(s, turn, b.name) for s in SPECIES for turn, b in enumerate(ANIMALS[s])]
    jobs: list[_Job] = [
        (
            folder / species / breed / f"{breed}-{i:04d}-{picture}.jpg",
            species, seed * 1_000_002 + i * len(ANIMALS[species]) + turn, picture, size,
        )
        for species, turn, breed in breeds
        for i in range(per_breed)
        for picture in pictures
    ]  # fmt: skip
    workers = min(os.cpu_count() or 1, len(jobs) // _POOL_FROM)
    if workers < 2:
        return list(map(_write_one, jobs))
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(workers, context) as pool:
        return list(pool.map(_write_one, jobs, chunksize=64))


def _write_one(job: _Job) -> Path:
    path, species, number, picture, size = job
    comment = _STAMP + f": {species} {number}, picture {picture}, {size} pixels;".encode()
    with reading(path):
        found = path.read_bytes() if path.exists() else b""
    if found and _STAMP.split(b",")[0] not in found:
        hint = "Choose an empty folder for the drawn animals."
        raise DataError(f"{path} is there already and is not a drawn animal.", hint=hint)
    if comment in found and found.endswith(b"\xff\xd9"):
        return path
    make_folder(path.parent)
    image = draw_animal(species, number, size, picture)
    with write_atomically(path, flushed=False) as file:  # one that is lost is drawn again
        image.save(file, "JPEG", quality=90, comment=comment)
    return path
