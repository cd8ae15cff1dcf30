"""Every error this library raises on purpose: a sentence for the user, and a hint that names the way out.

MrlSearchError
├─ ConfigError      a recipe, a plan or an option that makes no sense
├─ DataError        a source of images, or vectors, that cannot be used
│   └─ BrokenImage  one image that cannot be decoded (skipped and listed, never the end of a run)
├─ ModelError       a model that is missing, damaged or of another kind
└─ IndexFolderError an index that is missing, damaged, newer, or of another model
"""

from dataclasses import dataclass

__all__ = [
    "BrokenImage",
    "ConfigError",
    "DataError",
    "IndexFolderError",
    "ModelError",
    "MrlSearchError",
    "Skipped",
    "require",
]


class MrlSearchError(Exception):
    """Base of all errors of this library.

    Args:
        message: what happened, to which file, in one sentence.
        hint: what to do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(MrlSearchError):
    """A recipe, a plan or an option that makes no sense."""


class DataError(MrlSearchError):
    """A source of images, or an array of vectors, that cannot be used."""


class BrokenImage(DataError):
    """One image that cannot be decoded; `message` is the reason."""


class ModelError(MrlSearchError):
    """A model that is missing, damaged or of another kind."""


class IndexFolderError(MrlSearchError):
    """An index folder that is missing, damaged, newer than this software, or of another model."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that was left out of a run, and why: what became of a `BrokenImage`."""

    path: str
    reason: str


def require(condition: bool, message: str, hint: str = "") -> None:
    """Raise `ConfigError` with this message and hint unless `condition` holds."""
    if not condition:
        raise ConfigError(message, hint)
