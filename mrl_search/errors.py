"""The exceptions of this library: a sentence for the user, and a hint that names the way out.

MrlSearchError
├─ ConfigError       a setting, a plan or an option that cannot work
├─ DataError         pictures, vectors or records that cannot be used
│   └─ BrokenImage   one picture that cannot be decoded
├─ ModelError        a model that is missing, damaged or of another kind
└─ IndexFolderError  an index that is missing, damaged, newer, or of another model
"""

from dataclasses import dataclass

__all__ = [
    "BrokenImage", "ConfigError", "DataError", "IndexFolderError", "ModelError", "MrlSearchError",
    "Skipped", "require",
]  # fmt: skip


class MrlSearchError(Exception):
    """Base of all exceptions of this library.

    Args:
        message: what is wrong, with which file or value, in one sentence.
        hint: what to do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(MrlSearchError):
    """A setting, a plan or an option that cannot work."""


class DataError(MrlSearchError):
    """Pictures, vectors or records that cannot be used."""


class BrokenImage(DataError):
    """One picture that cannot be decoded; `message` is the reason."""


class ModelError(MrlSearchError):
    """A model that is missing, damaged or of another kind."""


class IndexFolderError(MrlSearchError):
    """An index folder that is missing, damaged, newer than this software, or of another model."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that was left out, and why."""

    path: str
    reason: str


def require(condition: bool, message: str, hint: str = "") -> None:
    """Raise `ConfigError` with this message and hint unless `condition` holds."""
    if not condition:
        raise ConfigError(message, hint)
