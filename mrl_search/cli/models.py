"""`mrl-search models`: which encoders there are."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from mrl_search.cli.options import Device, Json, argument, option
from mrl_search.cli.render import json_line, note, show_table
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.encoders.catalogue import Entry

__all__ = ["models"]

WHICH_HELP = "A library, and a pattern of names: timm, or timm:*resnet*. Default: what is here."
MEASURE_HELP = "Measure how many pictures a second each model here embeds."


def models(
    which: Annotated[str | None, argument("[LIBRARY[:PATTERN]]", WHICH_HELP)] = None,
    measure: Annotated[bool, option("--measure", MEASURE_HELP)] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """List the models that can embed pictures. Uses no network."""
    from mrl_search.encoders.catalogue import DESCRIBED, libraries, library_models, local_models

    if which is not None and measure:
        raise ConfigError("--measure is for the models that are here.", "Name no library.")
    if which is not None:
        library, _, pattern = which.partition(":")
        models_of_it = library_models(library, pattern or "*")
        if as_json:
            for entry in models_of_it:
                json_line(asdict(entry))
        elif len(models_of_it) > DESCRIBED:
            for entry in models_of_it:
                print(entry.model)  # noqa: T201
            note(f"Name {DESCRIBED} models or fewer to see their dims and size.")
        else:
            _show(models_of_it, ("model", "dims", "weights", "licence"))
        count = f"{len(models_of_it):,} models"
        note(f"{count}; the first use of one asks before it downloads weights")
        return
    entries = list(local_models(measure=measure, device=device))
    if as_json:
        for entry in entries:
            json_line(asdict(entry))
        for each in libraries():
            json_line(asdict(each))
        return
    _show(entries, ("model", "dims", "weights", "licence", "pictures", "state"))
    for each in libraries():
        extra = f'not installed: pip install "mrl-search[{each.extra}]"'
        listed = (
            "FILE" if each.name == "onnx" else f"NAME, listed by: mrl-search models {each.name}"
        )
        note(f"{each.name}:{listed if each.installed else f'NAME, {extra}'}")


def _show(entries: "Sequence[Entry]", columns: Sequence[str]) -> None:
    rows = [
        (
            e.model, str(e.dims or ""), f"{e.megabytes:.0f} MB" if e.megabytes else "", e.licence,
            f"{e.speed:.0f}/s" if e.speed else "", e.state,
        )[:len(columns)]
        for e in entries
    ]  # fmt: skip
    show_table(columns, rows)
