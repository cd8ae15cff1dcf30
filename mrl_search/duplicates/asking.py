"""The duplicates of an opened index: its decisions, and the pictures it is compared with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mrl_search.duplicates.decisions import read_decisions
from mrl_search.duplicates.finding import find_duplicates
from mrl_search.duplicates.groups import Duplicates, Level
from mrl_search.duplicates.keeping import Keep
from mrl_search.duplicates.pictures import Pictures
from mrl_search.encoders.base import Encoder
from mrl_search.files import expanded
from mrl_search.images.sources import RecordedSource, Source, open_source
from mrl_search.progress import Progress, silent
from mrl_search.search.corpus import Corpus
from mrl_search.store.manifest import MANIFEST

__all__ = ["duplicates_of"]


def duplicates_of(
    corpus: Corpus, encoder: Callable[[], Encoder], level: str = "copy",
    fpr: float | None = None, keep: str = "best",
    against: Source | str | Path | None = None, progress: Progress = silent,
) -> Duplicates:  # fmt: skip
    """Find the copies in an index; see `Index.duplicates`."""
    wanted, other = Level.named(level), None
    if against is not None:
        other = _pictures(corpus, encoder, wanted, against, progress)
    return find_duplicates(
        Pictures.of_index(corpus), wanted, fpr=fpr, keep=Keep(keep), against=other,
        decided=read_decisions(corpus.folder), progress=progress,
    )  # fmt: skip


def _pictures(
    corpus: Corpus, encoder: Callable[[], Encoder], level: Level, against: Source | str | Path,
    progress: Progress,
) -> Pictures:  # fmt: skip
    """The pictures of an index, a folder or a file, with vectors in the space of `corpus`."""
    corpus.check_takes_images()
    source = against
    if isinstance(source, str | Path):
        folder = expanded(source)
        if (folder / MANIFEST).is_file():
            other = Corpus.open(folder)
            other.check_takes_images()
            if level is Level.EXACT or _same_space(corpus, other):
                return Pictures.of_index(other)
            own = other.collection
            m, paths = other.manifest, own.paths.tolist()
            source = RecordedSource(m.root, paths, own.labels.tolist(), places=m.places)
        else:
            source = open_source(str(source))
    needed = None if level is Level.EXACT else encoder
    return Pictures.of_source(source, corpus, needed, progress)


def _same_space(corpus: Corpus, other: Corpus) -> bool:
    """Whether the vectors of two indexes can be compared."""
    one, two = corpus.collection.transform, other.collection.transform
    same = (corpus.manifest.fingerprint, one.dim, one.rows_dim) == (
        other.manifest.fingerprint, two.dim, two.rows_dim,
    )  # fmt: skip
    axes = ((one.rotation, two.rotation), (one.centre, two.centre))
    return same and all(
        a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in axes
    )
