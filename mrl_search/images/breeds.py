"""The breeds of drawn animals: what the individuals of each have in common."""

from dataclasses import dataclass

from mrl_search.images.drawing import (
    BLACK,
    BLUE,
    BROWN,
    CREAM,
    GOLD,
    GREY,
    ORANGE,
    SLATE,
    WHITE,
    Colour,
)

__all__ = ["ANIMALS", "BREEDS", "SPECIES", "Breed"]


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
