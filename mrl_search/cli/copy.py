"""`mrl-search copy`: an index to a collection of Milvus, and back."""

from pathlib import Path
from typing import Annotated

from mrl_search.cli.options import argument, option
from mrl_search.cli.render import note, note_left, progress_bars
from mrl_search.errors import ConfigError, IndexFolderError
from mrl_search.files import expanded

__all__ = ["copy"]

TO_HELP = "milvus:URI#NAME, or the folder of a new index."


def copy(
    index: Annotated[str, argument("INDEX", "Index folder, or milvus:URI#NAME.")],
    to: Annotated[str, option("--to PLACE", TO_HELP)],
) -> None:
    """Move an index to Milvus, or make one of a collection there.

    A copy that was stopped goes on. The folder keeps items and vectors; later changes are sent.
    """
    from mrl_search.copied import copy_back
    from mrl_search.engines.milvus_client import Place
    from mrl_search.mirror import copy_to
    from mrl_search.store.manifest import read_manifest

    if Place.is_one(index) == Place.is_one(to):
        hint = "Copy INDEX --to milvus:URI#NAME, or milvus:URI#NAME --to FOLDER."
        raise ConfigError("Name one place in Milvus, and one folder.", hint)
    if Place.is_one(to):
        folder = expanded(index)
        left = read_manifest(folder).engine
        with progress_bars() as progress:
            m = copy_to(folder, to, progress)
        note(f"{m.alive:,} items in {to}; searches of {index} ask it now.")
        note_left(folder, left)
        return
    try:
        with progress_bars() as progress:
            m = copy_back(index, expanded(Path(to)), progress)
    except IndexFolderError as error:
        raise IndexFolderError(error.message, error.hint.replace("--out", "--to")) from error
    ask = "--vector QUERY.npy" if m.own_vectors else "IMAGE"
    note(f"{m.alive:,} items in {to}\nnext: mrl-search query {ask} --index {to}")
