"""Drawn animals in three levels: species, breed and individual; for the demo and the tests.

One generator fixes what an individual keeps (coat, marks, eyes, collar, proportions); a second one
fixes what a picture changes (pose, scene, light, size, noise). The same arguments give the same pixels.
Points are complex numbers (x to the nose, y up, ground at 0; a body is about 1 long), so one product
turns and scales a shape. Pictures are drawn at twice their size, then halved.
"""

import colorsys
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from mrl_search.errors import ConfigError, DataError
from mrl_search.storage import writing

__all__ = ["BREEDS", "INDIVIDUAL", "SPECIES", "draw_animal", "write_corpus", "write_individuals"]

Colour = tuple[int, int, int]
Shape = NDArray[np.complex128]
INDIVIDUAL = r"([a-z]+-\d+)-\d+\.jpg$"  # names the individual in a path of `write_individuals`
_STAMP = b"mrl-search drawn animal, version 2"  # count up when the drawing changes
_POOL_FROM = 400  # pictures from which several processes draw faster than one
_WHITE, _BLACK, _PINK = (246, 244, 238), (38, 36, 40), (232, 140, 146)
_CREAM, _GOLD, _BROWN, _ORANGE = (240, 222, 190), (206, 164, 98), (108, 72, 48), (222, 138, 62)
_GREY, _SLATE, _BLUE = (146, 148, 156), (80, 82, 92), (116, 126, 146)


@dataclass(frozen=True)
class Breed:
    """What individuals of a breed share: (coat, marks) colours, pattern, and measures in body lengths."""

    name: str
    pattern: str  # plain, spotted, striped, patched, or points: dark face, feet and tail
    ears: str
    muzzle: float
    build: float  # half the thickness of the trunk
    legs: float
    tail: str
    coats: tuple[tuple[Colour, Colour], ...]


_BREEDS: dict[str, tuple[Breed, ...]] = {
    "cat": (
        Breed("tabby", "striped", "pointed", 0.26, 0.17, 0.30, "thin",
              ((_ORANGE, (164, 84, 34)), (_GREY, _SLATE), (_GOLD, _BROWN))),
        Breed("siamese", "points", "large", 0.30, 0.13, 0.36, "thin",
              ((_CREAM, (84, 62, 54)), (_WHITE, _BLUE), (_WHITE, _BLACK))),
        Breed("persian", "plain", "small", 0.18, 0.24, 0.18, "bushy",
              ((_WHITE, _GOLD), (_BLUE, _WHITE), (_CREAM, _ORANGE), (_ORANGE, _WHITE))),
        Breed("bengal", "spotted", "pointed", 0.28, 0.15, 0.34, "thin",
              ((_GOLD, (70, 46, 30)), ((196, 180, 158), _BLACK), (_ORANGE, _BROWN))),
        Breed("bicolour", "patched", "pointed", 0.26, 0.16, 0.30, "thin",
              ((_BLACK, _WHITE), (_WHITE, _BLACK), (_WHITE, _ORANGE), (_WHITE, _BLUE))),
        Breed("fold", "plain", "folded", 0.22, 0.20, 0.24, "bushy",
              ((_BLUE, _SLATE), (_GREY, _WHITE), (_CREAM, _BROWN), (_BLACK, _GREY))),
    ),
    "dog": (
        Breed("labrador", "plain", "floppy", 0.75, 0.19, 0.38, "tapered",
              ((_GOLD, _BROWN), (_BLACK, _GREY), (_CREAM, _GOLD), (_BROWN, _GOLD))),
        Breed("dalmatian", "spotted", "floppy", 0.80, 0.17, 0.44, "tapered",
              ((_WHITE, _BLACK), (_WHITE, _BROWN), (_WHITE, _BLUE))),
        Breed("beagle", "patched", "floppy", 0.65, 0.18, 0.30, "tapered",
              ((_WHITE, (164, 96, 52)), (_WHITE, _BLACK), (_GOLD, _WHITE))),
        Breed("dachshund", "points", "floppy", 0.95, 0.15, 0.12, "tapered",
              ((_BROWN, _GOLD), (_BLACK, _ORANGE), (_SLATE, _CREAM))),
        Breed("husky", "patched", "pricked", 0.70, 0.20, 0.40, "curled",
              ((_GREY, _WHITE), (_WHITE, _BLUE), (_BLACK, _WHITE))),
        Breed("boxer", "striped", "floppy", 0.40, 0.22, 0.36, "tapered",
              ((_GOLD, _BLACK), (_ORANGE, _BROWN), (_GREY, _BLACK))),
    ),
}  # fmt: skip
SPECIES: tuple[str, ...] = tuple(_BREEDS)
BREEDS: dict[str, str] = {b.name: species for species in SPECIES for b in _BREEDS[species]}

# A prop: shape, how many at most, where (0 the top, 1 the horizon, 2 the bottom), size, colour.
_Prop = tuple[str, int, float, float, float, float, Colour | None]  # None: any colour
_CLOUDS: _Prop = ("cloud", 4, 0.0, 0.7, 0.05, 0.12, _WHITE)
_HILLS: _Prop = ("disc", 4, 1.1, 1.2, 0.15, 0.40, (92, 136, 88))
_TREES: _Prop = ("tree", 4, 0.95, 1.15, 0.08, 0.18, (74, 134, 62))
_FIRS: _Prop = ("fir", 7, 0.95, 1.15, 0.15, 0.40, (44, 94, 76))
_FRAMES: _Prop = ("frame", 4, 0.3, 0.8, 0.12, 0.30, None)
_RUG: _Prop = ("cloud", 1, 1.4, 1.9, 0.15, 0.28, None)
_DOTS: _Prop = ("disc", 14, 1.0, 2.0, 0.006, 0.02, None)
_HOUSES: _Prop = ("house", 9, 1.0, 1.0, 0.15, 0.40, None)
_STARS: _Prop = ("disc", 40, 0.0, 1.0, 0.003, 0.006, _WHITE)
_MOON: _Prop = ("disc", 1, 0.1, 0.5, 0.04, 0.09, _CREAM)
_SUN: _Prop = ("disc", 1, 0.3, 1.0, 0.06, 0.12, _CREAM)
_SEA: _Prop = ("band", 1, 1.0, 1.0, 0.08, 0.25, (52, 132, 184))
_SAILS: _Prop = ("fir", 3, 0.85, 0.95, 0.05, 0.25, _WHITE)
# A scene: colours of the upper and lower edges of sky and ground, then props from back to front.
_SCENES: tuple[tuple[tuple[Colour, Colour, Colour, Colour], tuple[_Prop, ...]], ...] = (
    (((120, 180, 236), (214, 234, 246), (136, 184, 84), (76, 138, 58)), (_CLOUDS, _HILLS, _TREES, _DOTS)),
    (((226, 206, 180), (214, 190, 162), (172, 124, 84), (140, 94, 62)), (_FRAMES, _RUG)),
    (((128, 178, 176), (148, 196, 192), (190, 168, 146), (150, 126, 110)), (_FRAMES, _RUG)),
    (((96, 176, 232), (220, 238, 246), (238, 216, 164), (214, 184, 126)), (_CLOUDS, _SEA, _SAILS, _DOTS)),
    (((18, 24, 62), (60, 62, 116), (54, 76, 84), (30, 44, 56)), (_STARS, _MOON, _FIRS)),
    (((176, 196, 220), (236, 238, 242), (244, 246, 250), (206, 216, 232)), (_CLOUDS, _FIRS)),
    (((242, 150, 96), (252, 214, 150), (132, 122, 118), (96, 90, 96)), (_SUN, _HOUSES)),
)  # fmt: skip


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
        breed = _BREEDS[species][number % len(_BREEDS[species])]
        pair = breed.coats[rng.integers(len(breed.coats))]
        coat, marks = (_tint(c, rng.uniform(0.85, 1.12) * rng.uniform(0.94, 1.06, 3)) for c in pair)
        irises = ((122, 186, 84), (236, 190, 60), (92, 170, 226), (204, 130, 52))
        iris = irises[rng.integers(4)] if species == "cat" or breed.ears == "pricked" else (70, 42, 26)
        scarf, border = _vivid(rng), _vivid(rng)
        build, legs = breed.build * rng.uniform(0.9, 1.12), breed.legs * rng.uniform(0.9, 1.1)
        socks, bib, tip = (rng.random(3) < 0.4).tolist()
        return cls(
            breed, coat, marks, iris, scarf, border, rng.uniform(0.85, 1.2), build, legs,
            socks, bib, tip, int(rng.integers(2**31)),
        )  # fmt: skip


def _tint(colour: Colour, light: float | NDArray[np.float64]) -> Colour:
    red, green, blue = np.minimum(np.array(colour) * light, 255).astype(int).tolist()
    return red, green, blue


def _vivid(rng: np.random.Generator) -> Colour:
    hsv = rng.random(), rng.uniform(0.7, 1), rng.uniform(0.6, 1)
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(*hsv))
    return red, green, blue


def _any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(40, 250, 3).tolist()
    return red, green, blue


def _scene(rng: np.random.Generator, n: int) -> tuple[Image.Image, int]:
    """A background of n x n pixels, and the row of its horizon."""
    edges, props = _SCENES[rng.integers(len(_SCENES))]
    horizon = int(rng.uniform(0.35, 0.68) * n)
    light = rng.uniform(0.75, 1.05, (4, 1)) * np.repeat(rng.uniform(0.7, 1.2, (2, 3)), 2, axis=0)
    top, far, near, bottom = np.array(edges) * light
    ramps = [np.linspace(top, far, horizon), np.linspace(near, bottom, n - horizon)]
    rows = np.concatenate(ramps).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(rows[:, None]).resize((n, n), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for shape, most, high, low, small, large, colour in props:
        for _ in range(rng.integers((most + 1) // 2, most + 1)):
            x, r = rng.uniform(0, n), rng.uniform(small, large) * n
            where = rng.uniform(high, low)
            y = where * horizon if where < 1 else horizon + (where - 1) * (n - horizon)
            paint = _any_colour(rng) if colour is None else _tint(colour, rng.uniform(0.8, 1.1))
            match shape:
                case "disc":
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=paint)
                case "cloud":
                    draw.ellipse((x - 2 * r, y - 0.6 * r, x + r, y + 0.4 * r), fill=paint)
                    draw.ellipse((x - r, y - 0.4 * r, x + 2 * r, y + 0.6 * r), fill=paint)
                case "tree":
                    draw.rectangle((x - r / 6, y - r, x + r / 6, y), fill=_BROWN)
                    draw.ellipse((x - r, y - 2.4 * r, x + r, y - 0.4 * r), fill=paint)
                case "fir":
                    draw.polygon((x - r / 3, y, x, y - r, x + r / 3, y), fill=paint)
                case "band":
                    draw.rectangle((0, y - r, n, y), fill=paint)
                case "frame":
                    box = (x - r / 2, y - rng.uniform(0.6, 1.4) * r, x + r / 2, y)
                    draw.rectangle(box, fill=paint, outline=_BROWN, width=n // 50)
                case "house":
                    draw.rectangle((x - 0.1 * n, y - r, x + 0.1 * n, y), fill=paint)
                    for left in (x - 0.06 * n, x + 0.02 * n):
                        box = (left, y - 0.8 * r, left + 0.04 * n, y - 0.4 * r)
                        draw.rectangle(box, fill=(252, 226, 140))
    return image, horizon


def _oval(centre: complex, rx: float, ry: float, turn: float = 0.0) -> Shape:
    angle = np.arange(28) * (np.pi / 14)
    oval: Shape = centre + (rx * np.cos(angle) + 1j * ry * np.sin(angle)) * np.exp(1j * turn)
    return oval


def _limb(start: complex, bend: complex, end: complex, thick: float, thin: float) -> Shape:
    """A tapered curve with round ends: a leg, a tail, a neck, a tongue."""
    t = np.arange(10) / 9
    spine = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    ahead = (1 - t) * (bend - start) + t * (end - bend) + 1e-9
    side = 1j * ahead / np.abs(ahead) * (thick + (thin - thick) * t)
    cap = np.exp(-0.1j * np.pi * np.arange(11))
    ends = spine[-1] + side[-1] * cap, spine[0] - side[0] * cap
    return np.concatenate([spine + side, ends[0], (spine - side)[::-1], ends[1]])


_MARKS = {"striped": (11, 0.12, 0.2, 6.0), "spotted": (26, 0.1, 0.26, 0.8), "patched": (4, 0.4, 0.9, 0.7)}


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
    return [_oval(centre, r, r * tall, turn) for centre, r, turn in parts]


@dataclass(frozen=True)
class _Pen:
    """Draws shapes on `image`: `unit` turns and scales them, `side` is -1 for one that looks left."""

    image: Image.Image
    origin: complex  # in pixels
    unit: complex
    side: int

    def moved(self, to: complex, unit: complex) -> "_Pen":
        step = to * self.unit
        origin = self.origin + complex(self.side * step.real, -step.imag)
        return _Pen(self.image, origin, self.unit * unit, self.side)

    def pixels(self, shape: Shape | Sequence[complex]) -> list[float]:
        placed = np.asarray(shape, dtype=np.complex128) * self.unit
        points = self.origin + (placed.conj() if self.side > 0 else -placed)
        flat: list[float] = points.view(np.float64).tolist()
        return flat

    def fill(self, colour: Colour, *shapes: Shape | Sequence[complex], outline: bool = False) -> None:
        """Paint shapes as one body: the outline runs around all of them, not between them."""
        draw, paths = ImageDraw.Draw(self.image), [self.pixels(shape) for shape in shapes]
        width = max(2, self.image.width // 64)
        for path in paths if outline else []:
            draw.line(path + path[:4], fill=_tint(colour, 0.55), width=width)
        for path in paths:
            draw.polygon(path, fill=colour)

    def line(self, colour: Colour, *points: complex, width: int = 2) -> None:
        thick = max(1, width * self.image.width // 320)
        ImageDraw.Draw(self.image).line(self.pixels(points), fill=colour, width=thick)

    def mark(
        self, colour: Colour, marks: Sequence[Shape], within: Sequence[Shape], strength: int = 255
    ) -> None:
        """Paint marks, but only where they lie on the shapes of `within`."""
        masks = [Image.new("L", self.image.size) for _ in range(2)]
        for mask, shapes, value in zip(masks, (marks, within), (strength, 255), strict=True):
            for shape in shapes:
                ImageDraw.Draw(mask).polygon(self.pixels(shape), fill=value)
        both = ImageChops.darker(*masks)
        if box := both.getbbox():
            self.image.paste(colour, box, both.crop(box))


def _cat_head(pen: _Pen, rng: np.random.Generator, cat: Animal) -> None:
    """A round face from the front: pointed ears, slit pupils, whiskers. The head is about 2 wide."""
    coat, marks, kind = cat.coat, cat.marks, cat.breed.pattern
    tips = {"pointed": -0.82 + 1.4j, "large": -1.12 + 1.6j, "small": -0.85 + 1.0j, "folded": -1 + 0.55j}
    ear = np.array([-0.98 + 0.15j, tips[cat.breed.ears] * cat.ear, -0.1 + 0.85j])
    inner = 0.62 * ear + 0.38 * ear.mean()
    face = _oval(0, rng.uniform(1.02, 1.1), rng.uniform(0.84, 0.9))
    cheeks = (-1.25 - 0.35j, -0.9 + 0.2j, 0.9 + 0.2j, 1.25 - 0.35j, 0.4 - 0.7j, -0.4 - 0.7j)
    look = complex(rng.uniform(-0.05, 0.25), rng.uniform(-0.08, 0.05))
    pen.fill(coat, ear, -ear.conj(), face, cheeks, outline=True)
    pen.fill(marks if kind == "points" else _PINK, inner, -inner.conj())
    spots = [_limb(x + 0.95j, 0.8 * x + 0.6j, 0.7 * x + 0.4j, 0.1, 0.04) for x in (-0.4, 0, 0.4)]
    spots += [
        _limb(s * (1.1 + y), s * 0.9 + y, s * 0.65 + y, 0.09, 0.03) for s in (-1, 1) for y in (-0.1j, -0.35j)
    ]
    mask = {"striped": spots, "points": [_oval(look - 0.3j, 0.75, 0.62)]}
    pen.mark(marks, mask.get(kind) or _pattern(kind, cat.layout, -1 + 0.1j, 1 + 1j, 0.7), [face])
    muzzle = _tint(marks, 1.3) if kind == "points" else _WHITE
    pen.fill(muzzle, *(_oval(look + s - 0.38j, 0.3, cat.breed.muzzle) for s in (-0.22, 0.22)))
    pupil, sleepy = rng.uniform(0.06, 0.16), rng.random() < 0.1
    for eye in (look - 0.44, look + 0.44):
        if sleepy:
            pen.line(_BLACK, eye - 0.2 + 0.1j, eye, eye + 0.2 + 0.1j, width=3)
            continue
        pen.fill(cat.iris, _oval(eye + 0.08j, 0.25, 0.22), outline=True)
        pen.fill(_BLACK, _oval(eye + 0.08j, pupil, 0.2))
        pen.fill(_WHITE, _oval(eye + 0.07 + 0.15j, 0.05, 0.05))
    nose = _tint(_PINK, rng.uniform(0.5, 1))
    pen.fill(nose, (look - 0.13 - 0.16j, look + 0.13 - 0.16j, look - 0.32j))
    whiskers = _WHITE if sum(coat) < 600 else _SLATE
    for s in (-1, 1):
        pen.line(_BLACK, look - 0.32j, look + s * 0.05 - 0.5j, look + s * 0.25 - 0.55j)
        for rise in (-0.6j, -0.4j, -0.2j):
            pen.line(whiskers, look + s * 0.35 - 0.4j, look + s * 1.45 + rise, width=1)


def _dog_head(pen: _Pen, rng: np.random.Generator, dog: Animal) -> None:
    """A long muzzle, from the side or the front, a big nose, mostly floppy ears. About 1.6 wide."""
    coat, marks, kind, long = dog.coat, dog.marks, dog.breed.pattern, dog.breed.muzzle
    front, lift, pricked = rng.random() < 0.35, rng.uniform(-0.15, 0.25), dog.breed.ears == "pricked"
    skull, snout, nose = _oval(0.05j, 0.82, 0.82), _oval(-0.5j, 0.48, 0.3 + 0.35 * long), -0.35j
    if not front:
        snout = _limb(0.2 - 0.15j, 0.3 - 0.3j, 0.35 + long - 0.36j, 0.5, 0.32)
        nose = 0.6 + long - 0.15j
    drop = -0.6 * dog.ear
    ears = [_limb(-0.5 + 0.6j, -1.05 + (0.5 + lift) * 1j, -0.85 + (lift + drop) * 1j, 0.2, 0.33)]
    if pricked:
        ears = [np.array([-0.75 + 0.3j, -0.6 + 1.45j * dog.ear, 0.02 + 0.75j])]
    ears += [-ears[0].conj()] if front or pricked else []
    ear_colour = marks if kind in ("points", "patched") else _tint(coat, 0.78)
    if pricked:
        pen.fill(ear_colour, *ears, outline=True)
    if rng.random() < 0.5:
        tongue = _limb(nose - 0.1 - 0.35j, nose - 0.1 - 0.6j, nose - 0.05 - 0.85j, 0.15, 0.17)
        pen.fill((226, 104, 116), tongue, outline=True)
    pen.fill(coat, skull, snout, outline=True)
    layout = _pattern(kind, dog.layout, -0.8 - 0.1j, 0.8 + 0.9j, 0.6)
    pen.mark(marks, [snout] if kind == "points" else layout, [snout, skull])
    for eye in (-0.35 + 0.2j, 0.35 + 0.2j) if front else (0.28 + 0.2j,):
        pen.fill(_WHITE, _oval(eye, 0.15, 0.17))
        pen.fill(dog.iris, _oval(eye + 0.03, 0.12, 0.14))
        pen.fill(_WHITE, _oval(eye + 0.07 + 0.05j, 0.04, 0.04))
        pen.line(_tint(coat, 0.5), eye - 0.14 + 0.27j, eye + 0.1 + 0.32j, width=3)
    pen.fill(_BLACK, _oval(nose, 0.22, 0.16))
    pen.fill(_GREY, _oval(nose + 0.05 + 0.05j, 0.06, 0.03))
    pen.line(_BLACK, nose - 0.12j, nose - 0.05 - 0.38j, nose - 0.4 - 0.42j)
    if not pricked:
        pen.fill(ear_colour, *ears, outline=True)


_Body = tuple[list[Shape], list[Shape], list[Shape], complex, complex]


def _leg(top: complex, knee: complex, foot: complex) -> list[Shape]:
    return [_limb(top, knee, foot + 0.05j, 0.1, 0.06), _oval(foot + 0.04 + 0.04j, 0.1, 0.05)]


def _body(pose: str, build: float, leg: float, sway: float) -> _Body:
    """Legs on the far side, trunk, near legs, the middle of the head, the root of the tail."""
    if pose == "standing":
        hip, head = (leg + build) * 1j, 0.55 + (leg + build + 0.35 + sway) * 1j
        feet = {-0.32: -0.33 - sway, 0.3: 0.31 + sway, -0.2: -0.2 + sway, 0.42: 0.41 - sway}
        legs = [_leg(x + hip, 1.1 * x + hip / 2, at) for x, at in feet.items()]
        neck = _limb(0.28 + hip, 0.4 + hip, head, build, 0.13)
        trunk = [_oval(hip, 0.46, build), _oval(0.24 + hip, 0.22, build * 1.12), neck]
        return legs[2] + legs[3], trunk, legs[0] + legs[1], head, hip - 0.42 + 0.06j
    if pose == "sitting":
        head = 0.2 + (0.78 + leg / 2 + sway) * 1j
        back = _limb(-0.14 + 1.4j * build, -0.08 + 0.5j, 0.1 + 0.6j, build * 1.4, build)
        trunk = [back, _limb(0.1 + 0.6j, 0.15 + 0.7j, head, build, 0.13)]
        legs = [_leg(x + 0.5j, x + 0.08 + 0.3j, x + 0.04 + 0j) for x in (0.14, 0.26)]
        thigh = [_oval(-0.1 + 0.2j, 0.14 + build / 2, 0.2), _oval(0.06 + 0.05j, 0.15, 0.055)]
        return legs[1], trunk, legs[0] + thigh, head, -0.14 - build + 0.1j
    head, middle = 0.5 + (build + 0.3 + sway) * 1j, 1j * build
    trunk = [_oval(middle + 0.02j, 0.5, build), _limb(0.28 + middle, 0.4 + middle, head, build, 0.14)]
    paws = [_limb(x + 0.1j, x + 0.1 + 0.02j, x + 0.34 + 0.06j, 0.09, 0.06) for x in (0.3, 0.42 + sway)]
    near = [paws[0], _oval(-0.28 + 0.16j, 0.21, 0.16), _oval(-0.1 + 0.05j, 0.17, 0.055)]
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
    image, horizon = _scene(rng, n)
    breed, coat, marks, kind = one.breed, one.coat, one.marks, one.breed.pattern
    pose = ("standing", "sitting", "lying")[rng.integers(3)]
    far, trunk, near, head, root = _body(pose, one.build, one.legs, rng.uniform(-0.08, 0.08))

    ground = rng.uniform(max(0.76, horizon / n + 0.06), 0.95)
    scale = min(rng.uniform(0.58, 0.72), ground / (head.imag + 0.5))  # the ears stay in the picture
    at = complex(rng.uniform(0.38, 0.46), ground) * n
    unit = scale * n * np.exp(1j * rng.uniform(-0.06, 0.06))
    side = 1 if rng.random() < 0.5 else -1
    pen = _Pen(image, at if side > 0 else n - at.conjugate(), unit, side)
    shadow = [_oval(0.03, 0.62, 0.07)]
    pen.mark((20, 20, 30), shadow, shadow, strength=90)
    tails = {"thin": (0.035, 0.035), "tapered": (0.05, 0.02), "bushy": (0.08, 0.1), "curled": (0.09, 0.08)}
    bend = -0.34 + rng.uniform(-0.05, 0.1) * 1j
    end = -0.45 + (0.15 if pose == "lying" else 0.6) * rng.random() * 1j
    if breed.tail == "curled":
        bend, end = -0.1 + 0.42j, 0.14 + 0.3j
    tail = _limb(root, root + bend, root + end, *tails[breed.tail])
    pen.fill(marks if one.tip or kind == "points" else coat, tail, outline=True)
    pen.fill(_tint(coat, 0.8), *far, outline=True)
    pen.fill(coat, *trunk, outline=True)
    pen.fill(coat, *near, outline=True)
    if one.bib:
        pen.mark(marks, [_oval(head - 0.1 - 0.5j, 0.2, 0.3)], trunk)
    box = -0.5 + 0.6j * one.legs, complex(0.45, head.imag - 0.15)
    pen.mark(marks, _pattern(kind, one.layout, *box, one.build), trunk)
    if one.socks or kind == "points":
        pen.mark(marks, [_oval(x + 0j, 0.2, 0.14) for x in (-0.3, 0.05, 0.35, 0.65)], near)
    knot, tip = head - 0.3 - 0.12j, head - 0.1 - 0.75j
    scarf = np.array([knot, head + 0.3 - 0.3j, tip])
    pen.fill(one.scarf, scarf, outline=True)
    pen.fill(one.border, (tip, scarf[1], 0.5 * (scarf[1] + knot)))
    nod = 0.33 * rng.uniform(0.94, 1.08) * np.exp(1j * rng.uniform(-0.2, 0.2))
    (_cat_head if species == "cat" else _dog_head)(pen.moved(head, nod), rng, one)
    if rng.random() < 0.25:
        pen.fill(_any_colour(rng), _oval(rng.uniform(-0.8, 0.9) + 0.08j, 0.11, 0.11), outline=True)

    light = rng.uniform(0.85, 1.06) * rng.uniform(0.96, 1.04, 3)
    pixels = np.asarray(image.reduce(2), dtype=np.float32) * light.astype(np.float32)
    noise = rng.random(pixels.shape, dtype=np.float32) - 0.5
    pixels += noise * np.float32(rng.uniform(4, 12))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


_Job = tuple[Path, str, int, int, int]  # path, species, number, picture, size


def write_corpus(folder: Path, per_species: int, seed: int = 0, size: int = 160) -> list[Path]:
    """Write one picture each of `per_species` cats and dogs, `folder/cat/cat-0000.jpg` and so on.

    Returns the paths, species by species. See `write_individuals` for what is kept and what is raised.
    """
    return _write(
        (folder / species / f"{species}-{i:04d}.jpg", species, seed * 1_000_000 + i, 0, size)
        for species in SPECIES
        for i in range(per_species)
    )


def write_individuals(
    folder: Path, per_breed: int, pictures: range, seed: int = 0, size: int = 160
) -> list[Path]:
    """Write `pictures` of each of `per_breed` individuals a breed: `folder/cat/tabby/tabby-0007-1.jpg`.

    Returns the paths, breed by breed; `INDIVIDUAL` finds the individual in each. A comment in a file
    says what it shows: a complete file stays, one of another seed or size is drawn again. Other files
    in the folder stay.

    Raises:
        ConfigError: from `draw_animal`.
        DataError: a file of that name is not a drawn animal, or a folder cannot be made.
        MrlSearchError: the disk is full, or the place cannot be written.
    """
    breeds = [(s, turn, b.name) for s in SPECIES for turn, b in enumerate(_BREEDS[s])]
    return _write(
        (
            folder / species / breed / f"{breed}-{i:04d}-{picture}.jpg",
            species, seed * 1_000_002 + i * len(_BREEDS[species]) + turn, picture, size,
        )
        for species, turn, breed in breeds
        for i in range(per_breed)
        for picture in pictures
    )  # fmt: skip


def _write(jobs: Iterator[_Job]) -> list[Path]:
    todo = list(jobs)
    workers = min(os.cpu_count() or 1, len(todo) // _POOL_FROM)
    if workers < 2:
        return list(map(_write_one, todo))
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(workers, context) as pool:
        return list(pool.map(_write_one, todo, chunksize=64))


def _write_one(job: _Job) -> Path:
    path, species, number, picture, size = job
    comment = _STAMP + f": {species} {number}, picture {picture}, {size} pixels;".encode()
    found = path.read_bytes() if path.exists() else b""
    if found and _STAMP.split(b",")[0] not in found:
        hint = "Choose an empty folder for the drawn animals."
        raise DataError(f"{path} is there already and is not a drawn animal.", hint=hint)
    if comment in found and found.endswith(b"\xff\xd9"):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"{path.parent} cannot be made: {error.strerror}."
        raise DataError(what, "Choose another folder with --out.") from error
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        image = draw_animal(species, number, size, picture)
        image.save(draft, "JPEG", quality=90, comment=comment)
        draft.replace(path)
    return path
