"""Options that several commands share, and the values they stand for."""

import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.encoders.base import Access, Offer
    from mrl_search.search.request import Cutoff

__all__ = [
    "AXES_HELP", "Column", "CutoffText", "Device", "Dims", "Engine", "Factory", "Hidden", "Ids",
    "Images", "IndexArgument", "IndexFolder", "IndexFolders", "IndexModel", "Instance", "Items",
    "Json", "K", "Labels", "Minus", "Offline", "PlanText", "Rotate", "Split", "Src", "Text",
    "VectorFile", "Where", "Yes", "access_of", "argument", "bytes_of", "cutoff_of", "dims_of",
    "flags_given", "option",
]  # fmt: skip


def option(names: str, help: str, **more: Any) -> Any:  # noqa: ANN401 - as typer has it
    """An option by its flags and the name of its value, such as `--out DIR` or `--yes -y`."""
    flags = [name for name in names.split() if name.startswith("-")]
    value = [name for name in names.split() if not name.startswith("-")]
    return typer.Option(..., *flags, help=help, metavar=value[0] if value else None, **more)


def argument(name: str, help: str) -> Any:  # noqa: ANN401 - as typer has it
    """A positional argument by the name that help shows."""
    return typer.Argument(metavar=name, help=help)


Src = Annotated[str, argument("SRC", "Pictures: a folder, a data set on disk, or hub:OWNER/NAME.")]
Images = Annotated[list[str] | None, argument("[IMAGE…]", "Pictures to search with.")]
LABELS_HELP = (
    "Labels of an image folder: folder, depth:N (the N-th folder below SRC), metadata, or none. "
    "Default: metadata.csv, .jsonl or .parquet with a column label, else folder."
)
Labels = Annotated[str, option("--labels HOW", LABELS_HELP)]
COLUMN_HELP = "For a table: its column of pictures. Default: image, or the only one."
Column = Annotated[str | None, option("--column NAME", COLUMN_HELP)]
HIDDEN_HELP = "Also take hidden files, and hidden, thumbnail, trash and system folders."
Hidden = Annotated[bool, option("--hidden", HIDDEN_HELP)]
SPLIT = "Only the train or validation part, as the training of the model split SRC."
Split = Annotated[str | None, option("--split PART", SPLIT)]
NEWEST = "Index folder. Default: the newest in indexes/."
IndexFolder = Annotated[Path | None, option("--index DIR", NEWEST)]
IndexArgument = Annotated[Path | None, argument("DIR", NEWEST)]
EVERY = "Index folders. Default: all in indexes/."
IndexFolders = Annotated[list[Path] | None, argument("INDEX", EVERY)]
IndexModel = Annotated[
    str | None, option("--model", "The model that built the index, if it has moved since.")
]
Device = Annotated[
    str, option("--device", "Where the model runs: auto, cpu, cuda or mps. Default: a GPU if any.")
]
Offline = Annotated[bool, option("--offline", "Never use the network.")]
Yes = Annotated[bool, option("--yes -y", "Download weights without asking.")]
Dims = Annotated[int | None, option("--dims", "Search on this prefix alone, such as 64.", min=1)]
PLAN_HELP = (
    "How to search, coarse to fine: stages DIMS:KEEP such as 8:200,64:50,1024, or exact. "
    "Default: the tuned plan of the index, or exact."
)
PlanText = Annotated[str | None, option("--plan PLAN", PLAN_HELP)]
K = Annotated[int, option("-k", "Number of neighbours.", min=1)]
VECTOR_HELP = (
    "Search with vectors instead: a .npy file, FILE.parquet#COLUMN, or a folder of such files."
)
VectorFile = Annotated[str | None, option("--vector FILE", VECTOR_HELP)]
TEXT_HELP = (
    "Words to search with, or to add to IMAGE, for models of pictures and words; "
    "'at night^0.5' has a weight of 0.5. Can be repeated."
)
Text = Annotated[list[str] | None, option("--text WORDS", TEXT_HELP)]
MINUS_HELP = "Words to subtract from IMAGE or --text. Can be repeated."
Minus = Annotated[list[str] | None, option("--minus WORDS", MINUS_HELP)]
CUTOFF_HELP = (
    "Only neighbours with at least this cosine; auto: only those that score higher than unrelated "
    "items do."
)
CutoffText = Annotated[str | None, option("--cutoff COSINE", CUTOFF_HELP)]
WHERE_HELP = "Such as label=cat, width>=200 or path=*/old/*. Can be repeated: all must hold."
Where = Annotated[list[str] | None, option("--where CONDITION", WHERE_HELP)]
AXES_HELP = (
    "For pictures, how prefixes come to be: none (as the model has them), pca, views (changed "
    "copies stay near), or labels (classes, too). Default: what fits the model."
)
FACTORY_HELP = (
    "Kind of index, for all prefixes or one: a FAISS factory string such as Flat or 64=HNSW16,SQ8, "
    "or Scan for none. Default: by the size of the corpus. Can be repeated."
)
Factory = Annotated[list[str] | None, option("--factory [DIMS=]KIND", FACTORY_HELP)]
ENGINE_HELP = (
    "Search in a collection of Milvus: an address, or a file NAME.db of Milvus Lite. "
    "Default: here, by FAISS."
)
Engine = Annotated[str, option("--engine milvus:URI#NAME", ENGINE_HELP)]
ROTATE_HELP = "For vectors: store them along their principal axes."
Rotate = Annotated[str | None, option("--rotate pca", ROTATE_HELP)]
ITEMS_HELP = "For vectors: a file or folder, one row a vector."
Items = Annotated[Path | None, option("--items PARQUET", ITEMS_HELP)]
INSTANCE_HELP = "Also search with changed copies: is the original the first hit?"
Instance = Annotated[bool, option("--instance", INSTANCE_HELP)]
IDS_HELP = "Only these items: a text file with one id a line, or .npy."
Ids = Annotated[Path | None, option("--ids FILE", IDS_HELP)]
SERVER_HELP = (
    "Ask this server, as mrl-search serve prints its address. Default: one that runs on the index "
    "on this machine; none: do not ask it."
)
Server = Annotated[str | None, option("--server URL", SERVER_HELP)]
Json = Annotated[bool, option("--json", "Print one JSON object a line.")]


def access_of(device: str = "auto", offline: bool = False, yes: bool = False) -> "Access":
    """What opening a model may do; it asks before it downloads."""
    from mrl_search.encoders.base import Access

    def ask(offer: "Offer") -> bool:
        typer.echo(str(offer), err=True)
        return yes or (sys.stdin.isatty() and typer.confirm("Download?", err=True))

    return Access(not offline, device, ask)


def cutoff_of(text: str | None) -> "Cutoff":
    """Read `0.8` or `auto`; anything else is a wrong use of the command."""
    if text is None or text == "auto":
        return None if text is None else "auto"
    try:
        cosine = float(text)
    except ValueError:
        cosine = math.nan
    if not -1 <= cosine <= 1:
        message = f"--cutoff is {text}; it must be a cosine from -1 to 1, or auto."
        raise typer.BadParameter(message)
    return cosine


def flags_given(context: typer.Context) -> list[str]:
    """The options on the command line, by their longest flag."""
    given = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.param_type_name == "option" and source and source.name == "COMMANDLINE":
            given.append(max(parameter.opts, key=len))
    return given


def dims_of(text: str) -> tuple[int, ...]:
    """Read `8,16,32`."""
    from mrl_search.vectors import check_dims

    try:
        return check_dims(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--dims is {text!r}; it must be numbers, such as 8,16,64.") from error


def bytes_of(text: str) -> int:
    """Read a size: `200MB`, `1.5GB`, `800kB`, or bytes; units are decimal."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([kmgt]?)b?", text.strip(), re.IGNORECASE)
    if not match:
        raise ConfigError(f"{text!r} is not a size.", "For example 200MB, 1.5GB or 800kB.")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))
