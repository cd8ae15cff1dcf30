"""Open an encoder by its name."""

from pathlib import Path

from mrl_search.encoders.base import Encoder
from mrl_search.encoders.own import bundled_encoder, run_encoder
from mrl_search.encoders.torchvision import torchvision_encoder
from mrl_search.errors import ModelError

__all__ = ["load_encoder"]

LIBRARIES = {"torchvision": torchvision_encoder}  # `NAME:MODEL` calls it with MODEL


def load_encoder(model: str = "bundled") -> Encoder:
    """Open an encoder: `bundled`, a run folder, or `torchvision:NAME`.

    Raises:
        ModelError: there is no such model, or it cannot be opened.
    """
    if model == "bundled":
        return bundled_encoder()
    library, colon, name = model.partition(":")
    if colon and library in LIBRARIES:
        return LIBRARIES[library](name)
    folder = Path(model).expanduser()
    if not folder.exists():
        names = ", ".join(f"{name}:MODEL" for name in LIBRARIES)
        raise ModelError(
            f"There is no model {model!r}.",
            f"Use bundled, a run folder of mrl-search train, or {names}.",
        )
    return run_encoder(str(folder.resolve()), folder)
