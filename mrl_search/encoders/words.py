"""Queries of words, with or without a picture, for models of pictures and words."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrl_search.errors import require

__all__ = ["Words"]

WEIGHTED = re.compile(r"(.*)\^([-+.\d][-+.\w]*)", re.DOTALL)  # phrase^WEIGHT


@dataclass(frozen=True, eq=False, slots=True)
class Words:
    """A query of words, or of a picture and words.

    The query is the normalised sum of unit vectors: phrases and picture, minus the phrases of
    `minus`. A phrase may end in `^WEIGHT`; other phrases, and the picture, have weight 1.

    Attributes:
        text: a phrase or several.
        minus: phrases that are subtracted.
        picture: a path, file content, PIL image or (h, w, 3) uint8 pixels.

    Raises:
        ConfigError: a phrase is empty, a weight is not positive, or there is nothing to subtract
            from.

    Example:
        >>> print(Words("a beach", minus="people^0.5", picture="dog.jpg"))
        dog.jpg + a beach - people^0.5
    """

    text: str | Sequence[str] = ()
    minus: str | Sequence[str] = ()
    picture: Any = None

    def __post_init__(self) -> None:
        for name in ("text", "minus"):
            given = getattr(self, name)
            phrases = (given,) if isinstance(given, str) else tuple(given)
            object.__setattr__(self, name, phrases)
            empty = [phrase for phrase in phrases if not _weighted(phrase)[0]]
            require(not empty, f"{name} is {empty[:1]}; a phrase must have a word.")
        message = "There are no words and no picture to subtract from."
        require(self.picture is not None or bool(self.text), message, "Name a text or a picture.")

    @property
    def phrases(self) -> dict[str, float]:
        """The weight of each phrase; negative for those that are subtracted."""
        weights: dict[str, float] = {}
        for sign, phrases in ((1, self.text), (-1, self.minus)):
            for phrase, weight in map(_weighted, phrases):
                weights[phrase] = weights.get(phrase, 0) + sign * weight
        return weights

    def __str__(self) -> str:
        picture = self.picture if isinstance(self.picture, str | Path) else "picture"
        plus = [*([str(picture)] if self.picture is not None else []), *self.text]
        return " - ".join([" + ".join(plus), *self.minus])


def _weighted(phrase: str) -> tuple[str, float]:
    """A phrase and its weight: `at night^0.5` is ("at night", 0.5).

    Raises:
        ConfigError: the weight is not a positive number.
    """
    found = WEIGHTED.fullmatch(phrase)
    if not found:
        return phrase.strip(), 1.0
    try:
        weight = float(found[2])
    except ValueError:
        weight = math.nan
    message = f"The weight of {phrase!r} is {found[2]}; it must be a positive number."
    hint = "To subtract a phrase, name it in minus: --minus."
    require(0 < weight < math.inf, message, hint)
    return found[1].strip(), weight
