"""`mrl-search copy`: an index to a collection of Milvus, and back."""

from pathlib import Path
from typing import Annotated

from mrl_search.cli.options import argument, option
from mrl_search.errors import ConfigError

__all__ = ["copy"]

TO_HELP = "milvus:URI#NAME, or the folder of a new index."


def copy(
    index: Annotated[str, argument("INDEX", "Index folder, or milvus:URI#NAME.")],
    to: Annotated[str, option("--to PLACE", TO_HELP)],
) -> None:
    """Move an index to Milvus, or make one of a collection there.

    A copy that was stopped goes on. The folder keeps items and vectors, and later changes of it
    reach the collection.
    """
    from mrl_search.cli.render import note, progress_bars
    from mrl_search.copied import copy_back
    from mrl_search.engines.milvus_client import Place
    from mrl_search.files import expanded
    from mrl_search.mirror import copy_to

    if Place.is_one(index) == Place.is_one(to):
        hint = "Copy INDEX --to milvus:URI#NAME, or milvus:URI#NAME --to FOLDER."
        raise ConfigError("One of the two places must be Milvus, and the other a folder.", hint)
    with progress_bars() as progress:
        if Place.is_one(to):
            m = copy_to(expanded(index), to, progress)
            told = f"{m.alive:,} items in {to}; searches of {index} ask it now."
        else:
            m = copy_back(index, expanded(Path(to)), progress)
            told = f"{m.alive:,} items in {to}\nnext: mrl-search query IMAGE --index {to}"
    note(told)
