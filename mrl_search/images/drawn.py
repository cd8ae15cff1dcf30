"""Drawn animals: a corpus of cats and dogs that needs no download, for the demo and the tests.

Each picture is an individual: breed, coat, marks, pose, scene, light and noise come from one random generator, so the same arguments
give the same pixels and no two seeds look alike. Points are complex numbers (x to the nose, y up, the ground at 0; a body is about
1 long): turning and scaling a shape is one product. Pictures are drawn at twice their size, then halved.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from mrl_search.errors import ConfigError, DataError
from mrl_search.files import writing

__all__ = ["SPECIES", "draw_animal", "write_corpus"]

SPECIES: tuple[str, ...] = ("cat", "dog")

Colour = tuple[int, int, int]
Shape = NDArray[np.complex128]
_STAMP = b"mrl-search drawn animal, version 1"  # count up when the drawing changes: older files are then drawn again
_WHITE, _BLACK, _PINK, _CREAM, _GOLD = (
    (246, 244, 238),
    (38, 36, 40),
    (232, 140, 146),
    (240, 222, 190),
    (206, 164, 98),
)
_GREY, _SLATE, _BLUE, _ORANGE, _BROWN = (
    (146, 148, 156),
    (80, 82, 92),
    (116, 126, 146),
    (222, 138, 62),
    (108, 72, 48),
)


@dataclass(frozen=True)
class Breed:
    """What individuals share: pairs of coat colour and colour of the marks, patterns, and measures in parts of the body's length."""

    name: str
    coats: tuple[tuple[Colour, Colour], ...]
    patterns: tuple[
        str, ...
    ]  # plain, spotted, striped, patched, or points: dark face, feet and tail
    ears: str
    muzzle: float
    build: float  # half the thickness of the trunk
    legs: float
    tail: str


_BREEDS: dict[str, tuple[Breed, ...]] = {
    "cat": (
        Breed(
            "tabby",
            ((_ORANGE, (164, 84, 34)), (_GREY, _SLATE), (_GOLD, _BROWN)),
            ("striped",),
            "pointed",
            0.26,
            0.17,
            0.30,
            "thin",
        ),
        Breed(
            "siamese",
            ((_CREAM, (84, 62, 54)), (_WHITE, _BLUE)),
            ("points",),
            "large",
            0.30,
            0.13,
            0.36,
            "thin",
        ),
        Breed(
            "persian",
            ((_WHITE, _GOLD), (_BLUE, _WHITE), (_CREAM, _ORANGE)),
            ("plain", "patched"),
            "small",
            0.18,
            0.23,
            0.20,
            "bushy",
        ),
        Breed(
            "bengal",
            ((_GOLD, (70, 46, 30)), ((196, 180, 158), _BLACK)),
            ("spotted",),
            "pointed",
            0.28,
            0.15,
            0.34,
            "thin",
        ),
        Breed(
            "tuxedo",
            ((_BLACK, _WHITE), (_WHITE, _BLACK), (_WHITE, _ORANGE)),
            ("patched",),
            "pointed",
            0.26,
            0.16,
            0.30,
            "thin",
        ),
        Breed(
            "fold",
            ((_BLUE, _SLATE), (_GREY, _SLATE), (_CREAM, _BROWN)),
            ("plain", "striped"),
            "folded",
            0.22,
            0.20,
            0.24,
            "bushy",
        ),
    ),
    "dog": (
        Breed(
            "labrador",
            ((_GOLD, _BROWN), (_BLACK, _GREY), (_CREAM, _GOLD)),
            ("plain",),
            "floppy",
            0.75,
            0.19,
            0.38,
            "tapered",
        ),
        Breed(
            "dalmatian",
            ((_WHITE, _BLACK), (_WHITE, _BROWN)),
            ("spotted",),
            "floppy",
            0.80,
            0.17,
            0.44,
            "tapered",
        ),
        Breed(
            "beagle",
            ((_WHITE, (164, 96, 52)), (_WHITE, _BLACK), (_GOLD, _WHITE)),
            ("patched",),
            "floppy",
            0.65,
            0.18,
            0.30,
            "tapered",
        ),
        Breed(
            "dachshund",
            ((_BROWN, _GOLD), (_BLACK, _ORANGE)),
            ("plain", "points"),
            "floppy",
            0.95,
            0.16,
            0.12,
            "tapered",
        ),
        Breed(
            "husky",
            ((_GREY, _WHITE), (_WHITE, _BLUE), (_BLACK, _WHITE)),
            ("patched", "points"),
            "pricked",
            0.70,
            0.20,
            0.40,
            "curled",
        ),
        Breed(
            "boxer",
            ((_GOLD, _BLACK), (_ORANGE, _BROWN), (_GREY, _BLACK)),
            ("striped", "points"),
            "floppy",
            0.40,
            0.22,
            0.36,
            "tapered",
        ),
    ),
}

# A prop: its shape, how many at most, where (0 the top, 1 the horizon, 2 the bottom), the range of its size, its colour (None: any).
_CLOUDS, _HILLS = (
    ("cloud", 4, 0.0, 0.7, 0.05, 0.12, _WHITE),
    ("disc", 4, 1.1, 1.2, 0.15, 0.40, (92, 136, 88)),
)
_TREES, _FIRS = (
    ("tree", 4, 0.95, 1.15, 0.08, 0.18, (74, 134, 62)),
    ("fir", 7, 0.95, 1.15, 0.15, 0.40, (44, 94, 76)),
)
_FRAMES, _RUG = ("frame", 4, 0.3, 0.8, 0.12, 0.30, None), ("cloud", 1, 1.4, 1.9, 0.15, 0.28, None)
_DOTS, _HOUSES = ("disc", 30, 1.0, 2.0, 0.006, 0.02, None), ("house", 9, 1.0, 1.0, 0.15, 0.40, None)
_STARS, _MOON = (
    ("disc", 40, 0.0, 1.0, 0.003, 0.006, _WHITE),
    ("disc", 1, 0.1, 0.5, 0.04, 0.09, _CREAM),
)
_SUN, _SEA = (
    ("disc", 1, 0.3, 1.0, 0.06, 0.12, _CREAM),
    ("band", 1, 1.0, 1.0, 0.08, 0.25, (52, 132, 184)),
)
_SAILS = ("fir", 3, 0.85, 0.95, 0.05, 0.25, _WHITE)
# A scene: the colours of the sky's and the ground's upper and lower edges, then its props from back to front.
_SCENES = (
    (
        (120, 180, 236),
        (214, 234, 246),
        (136, 184, 84),
        (76, 138, 58),
        (_CLOUDS, _HILLS, _TREES, _DOTS),
    ),
    ((226, 206, 180), (214, 190, 162), (172, 124, 84), (140, 94, 62), (_FRAMES, _RUG)),
    ((128, 178, 176), (148, 196, 192), (190, 168, 146), (150, 126, 110), (_FRAMES, _RUG)),
    (
        (96, 176, 232),
        (220, 238, 246),
        (238, 216, 164),
        (214, 184, 126),
        (_CLOUDS, _SEA, _SAILS, _DOTS),
    ),
    ((18, 24, 62), (60, 62, 116), (54, 76, 84), (30, 44, 56), (_STARS, _MOON, _FIRS)),
    ((176, 196, 220), (236, 238, 242), (244, 246, 250), (206, 216, 232), (_CLOUDS, _FIRS)),
    ((242, 150, 96), (252, 214, 150), (132, 122, 118), (96, 90, 96), (_SUN, _HOUSES)),
)


def _tint(colour: Colour, light: float) -> Colour:
    red, green, blue = (int(min(255, channel * light)) for channel in colour)
    return red, green, blue


def _any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(40, 250, 3).tolist()
    return red, green, blue


def _scene(rng: np.random.Generator, n: int) -> tuple[Image.Image, int]:
    """A background of n x n pixels, and the row of its horizon."""
    *edges, props = _SCENES[rng.integers(len(_SCENES))]
    horizon = int(rng.uniform(0.35, 0.68) * n)
    top, far, near, bottom = (
        np.array(edges) * rng.uniform(0.75, 1.05, (4, 1)) * rng.uniform(0.93, 1.07, (4, 3))
    )
    rows = (
        np.concatenate([np.linspace(top, far, horizon), np.linspace(near, bottom, n - horizon)])
        .clip(0, 255)
        .astype(np.uint8)
    )
    image = Image.fromarray(rows[:, None]).resize((n, n), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for shape, most, high, low, small, large, colour in props:
        for _ in range(rng.integers((most + 1) // 2, most + 1)):
            x, where, r = rng.uniform(0, n), rng.uniform(high, low), rng.uniform(small, large) * n
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
                    draw.rectangle(
                        (x - r / 2, y - rng.uniform(0.6, 1.4) * r, x + r / 2, y),
                        fill=paint,
                        outline=_BROWN,
                        width=n // 50,
                    )
                case "house":
                    draw.rectangle((x - 0.1 * n, y - r, x + 0.1 * n, y), fill=paint)
                    for across in (-0.06, 0.02):
                        draw.rectangle(
                            (x + across * n, y - 0.8 * r, x + (across + 0.04) * n, y - 0.4 * r),
                            fill=(252, 226, 140),
                        )
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
    return np.concatenate(
        [spine + side, spine[-1] + side[-1] * cap, (spine - side)[::-1], spine[0] - side[0] * cap]
    )


def _pattern(
    kind: str, rng: np.random.Generator, low: complex, high: complex, size: float
) -> list[Shape]:
    """The marks of one individual in the box between two corners, for shapes about `size` thick."""
    if kind not in ("striped", "spotted", "patched"):
        return []
    count, small, large, tall = {
        "striped": (11, 0.12, 0.2, 6.0),
        "spotted": (26, 0.08, 0.24, 0.8),
        "patched": (4, 0.4, 0.9, 0.7),
    }[kind]
    across = (
        (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
        if kind == "striped"
        else rng.random(count)
    )
    up = rng.uniform(0.75, 1, count) if kind == "striped" else rng.random(count)
    centres = low + across * (high - low).real + 1j * up * (high - low).imag
    radii, turns = size * rng.uniform(small, large, count), rng.uniform(-0.2, 0.2, count)
    return [
        _oval(complex(c), r, r * tall, turn)
        for c, r, turn in zip(centres, radii, turns, strict=True)
    ]


@dataclass(frozen=True)
class _Pen:
    """Draws shapes on `image`, from `origin` in pixels: `unit` turns and scales them, `side` is -1 for an animal that looks left."""

    image: Image.Image
    origin: complex
    unit: complex
    side: int

    def moved(self, to: complex, unit: complex) -> "_Pen":
        step = to * self.unit
        return _Pen(
            self.image,
            self.origin + complex(self.side * step.real, -step.imag),
            self.unit * unit,
            self.side,
        )

    def pixels(self, shape: Shape | Sequence[complex]) -> list[float]:
        placed = np.asarray(shape, dtype=np.complex128) * self.unit
        flat: list[float] = (
            (self.origin + (placed.conj() if self.side > 0 else -placed)).view(np.float64).tolist()
        )
        return flat

    def fill(
        self, colour: Colour, *shapes: Shape | Sequence[complex], outline: bool = False
    ) -> None:
        """Paint shapes as one body: the outline runs around all of them, not between them."""
        draw, paths = ImageDraw.Draw(self.image), [self.pixels(shape) for shape in shapes]
        for path in paths if outline else []:
            draw.line(
                path + path[:4], fill=_tint(colour, 0.55), width=max(2, self.image.width // 64)
            )
        for path in paths:
            draw.polygon(path, fill=colour)

    def line(self, colour: Colour, *points: complex, width: int = 2) -> None:
        ImageDraw.Draw(self.image).line(
            self.pixels(points), fill=colour, width=max(1, width * self.image.width // 320)
        )

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


def _cat_head(
    pen: _Pen, rng: np.random.Generator, breed: Breed, coat: Colour, marks: Colour, kind: str
) -> None:
    """A round face from the front: pointed ears, slit pupils, whiskers. The head is about 2 wide."""
    tip = {
        "pointed": -0.82 + 1.4j,
        "large": -1.12 + 1.6j,
        "small": -0.85 + 1.0j,
        "folded": -1.0 + 0.55j,
    }[breed.ears]
    ear = np.array([-0.98 + 0.15j, tip, -0.1 + 0.85j])
    inner = 0.62 * ear + 0.38 * ear.mean()
    face = _oval(0, rng.uniform(1.0, 1.12), rng.uniform(0.82, 0.92))
    cheeks = (-1.25 - 0.35j, -0.9 + 0.2j, 0.9 + 0.2j, 1.25 - 0.35j, 0.4 - 0.7j, -0.4 - 0.7j)
    look = complex(rng.uniform(-0.05, 0.25), rng.uniform(-0.08, 0.05))
    pen.fill(coat, ear, -ear.conj(), face, cheeks, outline=True)
    pen.fill(marks if kind == "points" else _PINK, inner, -inner.conj())
    spots = [_limb(x + 0.95j, 0.8 * x + 0.6j, 0.7 * x + 0.4j, 0.1, 0.04) for x in (-0.4, 0, 0.4)]
    spots += [
        _limb(s * (1.1 + y), s * 0.9 + y, s * 0.65 + y, 0.09, 0.03)
        for s in (-1, 1)
        for y in (-0.1j, -0.35j)
    ]
    mask = {"striped": spots, "points": [_oval(look - 0.3j, 0.75, 0.62)]}
    pen.mark(marks, mask.get(kind) or _pattern(kind, rng, -1 + 0.1j, 1 + 1j, 0.7), [face])
    pen.fill(
        _tint(marks, 1.3) if kind == "points" else _WHITE,
        *(_oval(look + s - 0.38j, 0.3, breed.muzzle) for s in (-0.22, 0.22)),
    )
    iris, pupil = (
        ((122, 186, 84), (236, 190, 60), (92, 170, 226), (204, 130, 52))[rng.integers(4)],
        rng.uniform(0.06, 0.16),
    )
    sleepy = rng.random() < 0.15
    for eye in (look - 0.44, look + 0.44):
        if sleepy:
            pen.line(_BLACK, eye - 0.2 + 0.1j, eye, eye + 0.2 + 0.1j, width=3)
            continue
        pen.fill(iris, _oval(eye + 0.08j, 0.25, 0.22), outline=True)
        pen.fill(_BLACK, _oval(eye + 0.08j, pupil, 0.2))
        pen.fill(_WHITE, _oval(eye + 0.07 + 0.15j, 0.05, 0.05))
    pen.fill(
        _tint(_PINK, rng.uniform(0.5, 1)), (look - 0.13 - 0.16j, look + 0.13 - 0.16j, look - 0.32j)
    )
    for s in (-1, 1):
        pen.line(_BLACK, look - 0.32j, look + s * 0.05 - 0.5j, look + s * 0.25 - 0.55j)
        for rise in (-0.6j, -0.4j, -0.2j):
            pen.line(
                _WHITE if sum(coat) < 600 else _SLATE,
                look + s * 0.35 - 0.4j,
                look + s * 1.45 + rise,
                width=1,
            )


def _dog_head(
    pen: _Pen, rng: np.random.Generator, breed: Breed, coat: Colour, marks: Colour, kind: str
) -> None:
    """A long muzzle, from the side or from the front, with a big nose and mostly floppy ears. The skull is about 1.6 wide."""
    front, lift = rng.random() < 0.35, rng.uniform(-0.15, 0.25)
    skull, snout, nose = (
        _oval(0.05j, 0.82, 0.82),
        _oval(-0.5j, 0.48, 0.3 + 0.35 * breed.muzzle),
        -0.35j,
    )
    if not front:
        snout, nose = (
            _limb(0.2 - 0.15j, 0.3 - 0.3j, 0.35 + breed.muzzle - 0.36j, 0.5, 0.32),
            0.6 + breed.muzzle - 0.15j,
        )
    ears: list[Shape] = [
        _limb(-0.5 + 0.6j, -1.05 + (0.5 + lift) * 1j, -0.85 + (lift - 0.6) * 1j, 0.2, 0.33)
    ]
    if breed.ears == "pricked":
        ears = [np.array([-0.75 + 0.3j, -0.6 + 1.45j, 0.02 + 0.75j])]
    ears += [-ears[0].conj()] if front or breed.ears == "pricked" else []
    ear_colour = marks if kind in ("points", "patched") else _tint(coat, 0.78)
    if breed.ears == "pricked":
        pen.fill(ear_colour, *ears, outline=True)
    if rng.random() < 0.5:
        pen.fill(
            (226, 104, 116),
            _limb(nose - 0.1 - 0.35j, nose - 0.1 - 0.6j, nose - 0.05 - 0.85j, 0.15, 0.17),
            outline=True,
        )
    pen.fill(coat, skull, snout, outline=True)
    pen.mark(
        marks,
        [snout] if kind == "points" else _pattern(kind, rng, -0.8 - 0.1j, 0.8 + 0.9j, 0.6),
        [snout, skull],
    )
    for eye in (-0.35 + 0.2j, 0.35 + 0.2j) if front else (0.28 + 0.2j,):
        pen.fill(_WHITE, _oval(eye, 0.15, 0.17))
        pen.fill(
            (90, 150, 210) if breed.ears == "pricked" else (70, 42, 26),
            _oval(eye + 0.03, 0.12, 0.14),
        )
        pen.fill(_WHITE, _oval(eye + 0.07 + 0.05j, 0.04, 0.04))
        pen.line(_tint(coat, 0.5), eye - 0.14 + 0.27j, eye + 0.1 + 0.32j, width=3)
    pen.fill(_BLACK, _oval(nose, 0.22, 0.16))
    pen.fill(_GREY, _oval(nose + 0.05 + 0.05j, 0.06, 0.03))
    pen.line(_BLACK, nose - 0.12j, nose - 0.05 - 0.38j, nose - 0.4 - 0.42j)
    if breed.ears != "pricked":
        pen.fill(ear_colour, *ears, outline=True)


def _body(
    pose: str, build: float, leg: float, sway: float
) -> tuple[list[Shape], list[Shape], list[Shape], complex, complex]:
    """The legs on the far side, the trunk, the near legs, the middle of the head, the root of the tail."""
    if pose == "standing":
        hip, head = (leg + build) * 1j, 0.55 + (leg + build + 0.35 + sway) * 1j
        feet = {-0.32: -0.33 - sway, 0.3: 0.31 + sway, -0.2: -0.2 + sway, 0.42: 0.41 - sway}
        legs = [
            [
                _limb(x + hip, 1.1 * x + hip / 2, at + 0.05j, 0.1, 0.06),
                _oval(at + 0.04 + 0.04j, 0.1, 0.05),
            ]
            for x, at in feet.items()
        ]
        trunk = [
            _oval(hip, 0.46, build),
            _oval(0.24 + hip, 0.22, build * 1.12),
            _limb(0.28 + hip, 0.4 + hip, head, build, 0.13),
        ]
        return legs[2] + legs[3], trunk, legs[0] + legs[1], head, hip - 0.42 + 0.06j
    if pose == "sitting":
        head = 0.2 + (0.78 + leg / 2 + sway) * 1j
        trunk = [
            _limb(-0.14 + 1.4j * build, -0.08 + 0.5j, 0.1 + 0.6j, build * 1.4, build),
            _limb(0.1 + 0.6j, 0.15 + 0.7j, head, build, 0.13),
        ]
        legs = [
            [
                _limb(x + 0.5j, x + 0.08 + 0.3j, x + 0.04 + 0.05j, 0.1, 0.06),
                _oval(x + 0.08 + 0.04j, 0.1, 0.05),
            ]
            for x in (0.14, 0.26)
        ]
        thigh = [_oval(-0.1 + 0.2j, 0.14 + build / 2, 0.2), _oval(0.06 + 0.05j, 0.15, 0.055)]
        return legs[1], trunk, legs[0] + thigh, head, -0.14 - build + 0.1j
    head = 0.5 + (build + 0.3 + sway) * 1j
    trunk = [
        _oval((build + 0.02) * 1j, 0.5, build),
        _limb(0.28 + 1j * build, 0.4 + 1j * build, head, build, 0.14),
    ]
    paws = [
        _limb(x + 0.1j, x + 0.1 + 0.02j, x + 0.34 + 0.06j, 0.09, 0.06) for x in (0.3, 0.42 + sway)
    ]
    return (
        paws[1:],
        trunk,
        [paws[0], _oval(-0.28 + 0.16j, 0.21, 0.16), _oval(-0.1 + 0.05j, 0.17, 0.055)],
        head,
        -0.46 + 0.12j,
    )


def draw_animal(species: str, seed: int, size: int = 160) -> Image.Image:
    """One RGB picture of `size` x `size` pixels; the same arguments always give the same pixels.

    Raises:
        ConfigError: the species is not one of `SPECIES`, the seed is below 0 or the size below 16.
    """
    if species not in SPECIES:
        raise ConfigError(
            f"There is no drawing of a {species!r}.", hint=f"Choose one of: {', '.join(SPECIES)}."
        )
    if seed < 0 or size < 16:
        raise ConfigError(
            f"Seed {seed} at size {size} cannot be drawn.", hint="Seeds start at 0, sizes at 16."
        )
    rng, n = np.random.default_rng([SPECIES.index(species), seed]), 2 * size
    image, horizon = _scene(rng, n)
    breed = _BREEDS[species][rng.integers(len(_BREEDS[species]))]
    coat, marks = (
        _tint(colour, rng.uniform(0.85, 1.12))
        for colour in breed.coats[rng.integers(len(breed.coats))]
    )
    kind, pose = str(rng.choice(breed.patterns)), ("standing", "sitting", "lying")[rng.integers(3)]
    build, legs = breed.build * rng.uniform(0.88, 1.15), breed.legs * rng.uniform(0.88, 1.12)
    far, trunk, near, head, root = _body(pose, build, legs, rng.uniform(-0.08, 0.08))

    ground = rng.uniform(max(0.72, horizon / n + 0.06), 0.95)
    scale = min(rng.uniform(0.32, 0.58), ground / (head.imag + 0.4))  # the ears stay in the picture
    margin = min(0.5, 0.95 * scale)
    at = complex(rng.uniform(margin, 1 - margin), ground) * n
    pen = _Pen(
        image,
        at,
        scale * n * np.exp(1j * rng.uniform(-0.06, 0.06)),
        1 if rng.random() < 0.5 else -1,
    )
    pen.mark((20, 20, 30), [_oval(0.03, 0.62, 0.07)], [_oval(0.03, 0.62, 0.07)], strength=90)
    thick, tip = {
        "thin": (0.035, 0.035),
        "tapered": (0.05, 0.02),
        "bushy": (0.08, 0.1),
        "curled": (0.09, 0.08),
    }[breed.tail]
    bend, end = (
        -0.34 + rng.uniform(-0.05, 0.1) * 1j,
        -0.45 + (0.15 if pose == "lying" else 0.6) * rng.random() * 1j,
    )
    if breed.tail == "curled":
        bend, end = -0.1 + 0.42j, 0.14 + 0.3j
    pen.fill(
        marks if kind == "points" else coat,
        _limb(root, root + bend, root + end, thick, tip),
        outline=True,
    )
    pen.fill(_tint(coat, 0.8), *far, outline=True)
    pen.fill(coat, *trunk, outline=True)
    pen.fill(coat, *near, outline=True)
    pen.mark(
        marks,
        _pattern(kind, rng, -0.5 + 0.6j * legs, complex(0.45, head.imag - 0.15), build),
        trunk,
    )
    if kind == "points":
        pen.mark(marks, [_oval(x + 0j, 0.2, 0.14) for x in (-0.3, 0.05, 0.35, 0.65)], near)
    if rng.random() < 0.5:
        pen.mark(
            _any_colour(rng),
            [_limb(head - 0.28 - 0.1j, head - 0.15 - 0.3j, head + 0.2 - 0.34j, 0.045, 0.045)],
            trunk,
        )
    head_pen = pen.moved(head, 0.26 * rng.uniform(0.92, 1.1) * np.exp(1j * rng.uniform(-0.2, 0.2)))
    (_cat_head if species == "cat" else _dog_head)(head_pen, rng, breed, coat, marks, kind)
    if rng.random() < 0.3:
        pen.fill(_any_colour(rng), _oval(rng.uniform(-0.8, 0.9) + 0.08j, 0.11, 0.11), outline=True)

    pixels = np.asarray(image.reduce(2), dtype=np.float32) * rng.uniform(0.94, 1.06, 3).astype(
        np.float32
    )
    pixels += (rng.random(pixels.shape, dtype=np.float32) - 0.5) * np.float32(rng.uniform(6, 20))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_corpus(folder: Path, per_species: int, seed: int = 0, size: int = 160) -> list[Path]:
    """Write `folder/cat/cat-0000.jpg` … and the same of each species; return the paths, one species after the other.

    A comment in each file says what was drawn: a file that is complete is not touched, one with another seed or size is drawn anew.
    Other files in the folder are left alone.

    Raises:
        ConfigError: from `draw_animal`.
        DataError: a file of such a name is there that is not a drawn animal, or its folder cannot be made.
        MrlSearchError: the disk is full, or the place cannot be written.
    """
    paths = [
        folder / species / f"{species}-{i:04d}.jpg"
        for species in SPECIES
        for i in range(per_species)
    ]
    for i, path in enumerate(paths):
        species, number = path.parent.name, i % per_species
        comment = _STAMP + f": {species} {number} of seed {seed}, {size} pixels;".encode()
        held = path.read_bytes() if path.exists() else b""
        if held and _STAMP.split(b",")[0] not in held:
            raise DataError(
                f"{path} is there already and is not a drawn animal.",
                hint="Choose an empty folder for the drawn animals.",
            )
        if comment in held and held.endswith(b"\xff\xd9"):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{path.parent} cannot be made: {error.strerror}.",
                "Choose another folder with --out.",
            ) from error
        draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        with writing(path):
            draw_animal(species, seed * 1_000_000 + number, size).save(
                draft, "JPEG", quality=90, comment=comment
            )
            draft.replace(path)
    return paths
