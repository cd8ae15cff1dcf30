"""Breeds, scenes, shapes and a pen: what drawn pictures are made of.

Points are complex numbers (x to the right, y up), so one product turns and scales a shape.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

__all__ = [
    "ANIMALS", "BLACK", "BREEDS", "GREY", "PINK", "SLATE", "SPECIES", "WHITE", "Breed", "Colour",
    "Pen", "Shape", "any_colour", "limb", "oval", "scene", "tint", "vivid_colour",
]  # fmt: skip

Colour = tuple[int, int, int]
Shape = NDArray[np.complex128]
WHITE, BLACK, PINK = (246, 244, 238), (38, 36, 40), (232, 140, 146)
CREAM, GOLD, BROWN, ORANGE = (240, 222, 190), (206, 164, 98), (108, 72, 48), (222, 138, 62)
GREY, SLATE, BLUE = (146, 148, 156), (80, 82, 92), (116, 126, 146)


@dataclass(frozen=True)
class Breed:
    """What individuals of a breed share; measures are in body lengths."""

    name: str
    pattern: str  # plain, spotted, striped, patched, or points: dark face, feet and tail
    ears: str
    muzzle: float
    build: float  # half the thickness of the trunk
    legs: float
    tail: str
    coats: tuple[tuple[Colour, Colour], ...]  # colours of coat and marks, in pairs


ANIMALS: dict[str, tuple[Breed, ...]] = {
    "cat": (
        Breed("tabby", "striped", "pointed", 0.26, 0.17, 0.30, "thin",
              ((ORANGE, (164, 84, 34)), (GREY, SLATE), (GOLD, BROWN))),
        Breed("siamese", "points", "large", 0.30, 0.13, 0.36, "thin",
              ((CREAM, (84, 62, 54)), (WHITE, BLUE), (WHITE, BLACK))),
        Breed("persian", "plain", "small", 0.18, 0.24, 0.18, "bushy",
              ((WHITE, GOLD), (BLUE, WHITE), (CREAM, ORANGE), (ORANGE, WHITE))),
        Breed("bengal", "spotted", "pointed", 0.28, 0.15, 0.34, "thin",
              ((GOLD, (70, 46, 30)), ((196, 180, 158), BLACK), (ORANGE, BROWN))),
        Breed("bicolour", "patched", "pointed", 0.26, 0.16, 0.30, "thin",
              ((BLACK, WHITE), (WHITE, BLACK), (WHITE, ORANGE), (WHITE, BLUE))),
        Breed("fold", "plain", "folded", 0.22, 0.20, 0.24, "bushy",
              ((BLUE, SLATE), (GREY, WHITE), (CREAM, BROWN), (BLACK, GREY))),
    ),
    "dog": (
        Breed("labrador", "plain", "floppy", 0.75, 0.19, 0.38, "tapered",
              ((GOLD, BROWN), (BLACK, GREY), (CREAM, GOLD), (BROWN, GOLD))),
        Breed("dalmatian", "spotted", "floppy", 0.80, 0.17, 0.44, "tapered",
              ((WHITE, BLACK), (WHITE, BROWN), (WHITE, BLUE))),
        Breed("beagle", "patched", "floppy", 0.65, 0.18, 0.30, "tapered",
              ((WHITE, (164, 96, 52)), (WHITE, BLACK), (GOLD, WHITE))),
        Breed("dachshund", "points", "floppy", 0.95, 0.15, 0.12, "tapered",
              ((BROWN, GOLD), (BLACK, ORANGE), (SLATE, CREAM))),
        Breed("husky", "patched", "pricked", 0.70, 0.20, 0.40, "curled",
              ((GREY, WHITE), (WHITE, BLUE), (BLACK, WHITE))),
        Breed("boxer", "striped", "floppy", 0.40, 0.22, 0.36, "tapered",
              ((GOLD, BLACK), (ORANGE, BROWN), (GREY, BLACK))),
    ),
}  # fmt: skip
SPECIES: tuple[str, ...] = tuple(ANIMALS)
BREEDS: dict[str, str] = {b.name: species for species in SPECIES for b in ANIMALS[species]}

# A prop: shape, how many at most, where (0 the top, 1 the horizon, 2 the bottom), size, colour.
_Prop = tuple[str, int, float, float, float, float, Colour | None]  # None: any colour
_CLOUDS: _Prop = ("cloud", 4, 0.0, 0.7, 0.05, 0.12, WHITE)
_HILLS: _Prop = ("disc", 4, 1.1, 1.2, 0.15, 0.40, (92, 136, 88))
_TREES: _Prop = ("tree", 4, 0.95, 1.15, 0.08, 0.18, (74, 134, 62))
_FIRS: _Prop = ("fir", 7, 0.95, 1.15, 0.15, 0.40, (44, 94, 76))
_FRAMES: _Prop = ("frame", 4, 0.3, 0.8, 0.12, 0.30, None)
_RUG: _Prop = ("cloud", 1, 1.4, 1.9, 0.15, 0.28, None)
_DOTS: _Prop = ("disc", 14, 1.0, 2.0, 0.006, 0.02, None)
_HOUSES: _Prop = ("house", 9, 1.0, 1.0, 0.15, 0.40, None)
_STARS: _Prop = ("disc", 40, 0.0, 1.0, 0.003, 0.006, WHITE)
_MOON: _Prop = ("disc", 1, 0.1, 0.5, 0.04, 0.09, CREAM)
_SUN: _Prop = ("disc", 1, 0.3, 1.0, 0.06, 0.12, CREAM)
_SEA: _Prop = ("band", 1, 1.0, 1.0, 0.08, 0.25, (52, 132, 184))
_SAILS: _Prop = ("fir", 3, 0.85, 0.95, 0.05, 0.25, WHITE)
# A scene: colours of the upper and lower edges of sky and ground, then props from back to front.
_SCENES: tuple[tuple[tuple[Colour, Colour, Colour, Colour], tuple[_Prop, ...]], ...] = (
    (((120, 180, 236), (214, 234, 246), (136, 184, 84), (76, 138, 58)),
     (_CLOUDS, _HILLS, _TREES, _DOTS)),
    (((226, 206, 180), (214, 190, 162), (172, 124, 84), (140, 94, 62)),
     (_FRAMES, _RUG)),
    (((128, 178, 176), (148, 196, 192), (190, 168, 146), (150, 126, 110)),
     (_FRAMES, _RUG)),
    (((96, 176, 232), (220, 238, 246), (238, 216, 164), (214, 184, 126)),
     (_CLOUDS, _SEA, _SAILS, _DOTS)),
    (((18, 24, 62), (60, 62, 116), (54, 76, 84), (30, 44, 56)),
     (_STARS, _MOON, _FIRS)),
    (((176, 196, 220), (236, 238, 242), (244, 246, 250), (206, 216, 232)),
     (_CLOUDS, _FIRS)),
    (((242, 150, 96), (252, 214, 150), (132, 122, 118), (96, 90, 96)),
     (_SUN, _HOUSES)),
)  # fmt: skip


def tint(colour: Colour, light: float | NDArray[np.float64]) -> Colour:
    """The colour in another light: each channel times `light`, at most 255."""
    red, green, blue = np.minimum(np.array(colour) * light, 255).astype(int).tolist()
    return red, green, blue


def vivid_colour(rng: np.random.Generator) -> Colour:
    """A saturated colour of any hue."""
    hsv = rng.random(), rng.uniform(0.7, 1), rng.uniform(0.6, 1)
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(*hsv))
    return red, green, blue


def any_colour(rng: np.random.Generator) -> Colour:
    """A colour, neither black nor white."""
    red, green, blue = rng.integers(40, 250, 3).tolist()
    return red, green, blue


def scene(rng: np.random.Generator, n: int) -> tuple[Image.Image, int]:
    """A background of n x n pixels, and the row of its horizon."""
    edges, props = _SCENES[rng.integers(len(_SCENES))]
    horizon = int(rng.uniform(0.35, 0.68) * n)
    light = rng.uniform(0.75, 1.05, (4, 1)) * np.repeat(rng.uniform(0.55, 1.25, (2, 3)), 2, axis=0)
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
            paint = any_colour(rng) if colour is None else tint(colour, rng.uniform(0.8, 1.1))
            match shape:
                case "disc":
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=paint)
                case "cloud":
                    draw.ellipse((x - 2 * r, y - 0.6 * r, x + r, y + 0.4 * r), fill=paint)
                    draw.ellipse((x - r, y - 0.4 * r, x + 2 * r, y + 0.6 * r), fill=paint)
                case "tree":
                    draw.rectangle((x - r / 6, y - r, x + r / 6, y), fill=BROWN)
                    draw.ellipse((x - r, y - 2.4 * r, x + r, y - 0.4 * r), fill=paint)
                case "fir":
                    draw.polygon((x - r / 3, y, x, y - r, x + r / 3, y), fill=paint)
                case "band":
                    draw.rectangle((0, y - r, n, y), fill=paint)
                case "frame":
                    box = (x - r / 2, y - rng.uniform(0.6, 1.4) * r, x + r / 2, y)
                    draw.rectangle(box, fill=paint, outline=BROWN, width=n // 50)
                case "house":
                    draw.rectangle((x - 0.1 * n, y - r, x + 0.1 * n, y), fill=paint)
                    for left in (x - 0.06 * n, x + 0.02 * n):
                        box = (left, y - 0.8 * r, left + 0.04 * n, y - 0.4 * r)
                        draw.rectangle(box, fill=(252, 226, 140))
    return image, horizon


def oval(centre: complex, rx: float, ry: float, turn: float = 0.0) -> Shape:
    """An ellipse with the radii `rx` and `ry`, turned by `turn` radians."""
    angle = np.arange(28) * (np.pi / 14)
    points: Shape = centre + (rx * np.cos(angle) + 1j * ry * np.sin(angle)) * np.exp(1j * turn)
    return points


def limb(start: complex, bend: complex, end: complex, thick: float, thin: float) -> Shape:
    """A tapered curve with round ends: a leg, a tail, a neck, a tongue."""
    t = np.arange(10) / 9
    spine = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    ahead = (1 - t) * (bend - start) + t * (end - bend) + 1e-9
    side = 1j * ahead / np.abs(ahead) * (thick + (thin - thick) * t)
    cap = np.exp(-0.1j * np.pi * np.arange(11))
    ends = spine[-1] + side[-1] * cap, spine[0] - side[0] * cap
    return np.concatenate([spine + side, ends[0], (spine - side)[::-1], ends[1]])


@dataclass(frozen=True)
class Pen:
    """Draws shapes on `image`: `unit` turns and scales them; with `side` -1 they look left."""

    image: Image.Image
    origin: complex  # in pixels
    unit: complex
    side: int

    def moved(self, to: complex, unit: complex) -> "Pen":
        """A pen whose origin is at `to`, and whose unit is that of this one times `unit`."""
        step = to * self.unit
        origin = self.origin + complex(self.side * step.real, -step.imag)
        return Pen(self.image, origin, self.unit * unit, self.side)

    def pixels(self, shape: Shape | Sequence[complex]) -> list[float]:
        """The points of a shape in pixels: x, y, x, y and so on."""
        placed = np.asarray(shape, dtype=np.complex128) * self.unit
        points = self.origin + (placed.conj() if self.side > 0 else -placed)
        flat: list[float] = points.view(np.float64).tolist()
        return flat

    def fill(
        self, colour: Colour, *shapes: Shape | Sequence[complex], outline: bool = False
    ) -> None:
        """Paint shapes as one body: the outline runs around all of them, not between them."""
        draw, paths = ImageDraw.Draw(self.image), [self.pixels(shape) for shape in shapes]
        width = max(2, self.image.width // 64)
        for path in paths if outline else []:
            draw.line(path + path[:4], fill=tint(colour, 0.55), width=width)
        for path in paths:
            draw.polygon(path, fill=colour)

    def line(self, colour: Colour, *points: complex, width: int = 2) -> None:
        """Draw a line through points, `width` pixels wide on a picture of 160."""
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
