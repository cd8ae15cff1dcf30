"""The methods of `Index` that change it, follow what others change, and say what could go."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError
from mrl_search.files import expanded, recordable
from mrl_search.progress import Progress, silent
from mrl_search.search.corpus import Corpus
from mrl_search.search.filters import mask_of
from mrl_search.search.request import conditions_of
from mrl_search.store.collection import Collection
from mrl_search.store.manifest import read_manifest, restorable
from mrl_search.store.rows import Ids

if TYPE_CHECKING:
    from mrl_search.duplicates.groups import Duplicates
    from mrl_search.encoders.base import Encoder
    from mrl_search.images.sources import Source
    from mrl_search.store.vector_files import VectorSource
    from mrl_search.synced import Synced

__all__ = ["Changing"]

Paths: TypeAlias = str | Path | Sequence[str | Path]


class Changing:
    """An index whose items come and go. It answers from the generation that it opened.

    Attributes:
        corpus: the generation that answers.
    """

    corpus: Corpus

    @property
    def folder(self) -> Path:
        """The index folder."""
        return self.corpus.folder

    @property
    def generation(self) -> int:
        """How often the index was changed, in the state that answers."""
        return self.corpus.manifest.generation

    @property
    def generations(self) -> list[int]:
        """The generations that `restore` can bring back, the last one of a command, ascending."""
        return [manifest.generation for manifest in restorable(self.folder)]

    @property
    def encoder(self) -> "Encoder":
        """The model that embeds new pictures."""
        raise NotImplementedError

    def refresh(self) -> bool:
        """Answer from the newest generation from now on; whether it is another.

        Searches that run in other threads end with the one they began with.
        """
        newest = read_manifest(self.folder)
        known = self.corpus.manifest
        same = (newest.generation, newest.files) == (known.generation, known.files)
        if same and (newest.format > 1 or newest.plans == known.plans):
            return False
        corpus = Corpus.open(self.folder)
        corpus.place = self.corpus.place
        self.corpus = corpus
        return True

    def sync(
        self, *, dry_run: bool = False, meant: bool = False, progress: Progress = silent
    ) -> "Synced":
        """Make the index as the folders are that it was built from.

        New pictures are embedded, pictures that are gone go, renamed ones keep their vector, and
        edited ones are embedded again. Where a whole folder is gone, that is said, and its items
        stay. Another engine is sent what it lacks; for that, no folder need have been walked.

        Args:
            dry_run: only say what would be done.
            meant: whether the pictures of a folder that is gone as a whole go, too.
            progress: called with what is being done, how far, and of how much.

        Raises:
            ConfigError: it was not built from folders, and FAISS searches.
            IndexFolderError: another process changes it.
        """
        from mrl_search.sync import is_walked, sync
        from mrl_search.synced import Synced

        m = read_manifest(self.folder)
        if not dry_run:
            self._check_free()
        if m.engine and not is_walked(self.folder, m):
            done = Synced(same=m.alive, generation=m.generation, items=m.alive)
        else:
            done = sync(
                self.folder, lambda: self.encoder, dry_run=dry_run, meant=meant, progress=progress
            )
        if not dry_run:
            self._follow(progress)
        return done

    def add(
        self, source: "str | Path | VectorSource | NDArray[np.floating]", *,
        items: str | Path | None = None, labels: str = "", hidden: bool = False,
        progress: Progress = silent,
    ) -> "Synced":  # fmt: skip
        """Add a folder of pictures, a picture, or vectors of your own.

        A later `sync` walks the folder, too.

        Args:
            source: pictures, or vectors as for `Index.from_vectors`.
            items: of vectors: a Parquet file with one row each.
            labels: of a folder, as for `build-index`.
            hidden: also take hidden files.
            progress: called with what is being done, how far, and of how much.

        Raises:
            ConfigError: vectors for an index of pictures, or pictures for one of vectors.
            DataError: nothing that can be added.
        """
        from mrl_search.by_hand import add_vectors
        from mrl_search.sync import check_unwalked, sync

        self._check_free()
        if self.corpus.manifest.own_vectors:
            done = add_vectors(self.folder, source, items, progress)
        else:
            if items is not None or not isinstance(source, str | Path):
                raise ConfigError(f"{self.folder} holds pictures.", "Add pictures, not vectors.")
            from mrl_search.images.base import FileSource
            from mrl_search.images.sources import open_source

            found = open_source(str(source), labels=labels, hidden=hidden)
            if not isinstance(found, FileSource) or found.walked is None:
                hint = "A data set is indexed by itself: mrl-search build-index SRC"
                raise DataError(f"{source} is no folder of pictures and no picture.", hint)
            only = {found.name: found.walked}
            if labels or hidden:
                check_unwalked(self.folder, self.corpus.manifest, found.name)
            done = sync(self.folder, lambda: self.encoder, only=only, progress=progress)
        self._follow(progress)
        return done

    def remove(
        self, *paths: Paths, where: str | Sequence[str] = (),
        ids: Ids | Sequence[int] | None = None, progress: Progress = silent,
    ) -> int:  # fmt: skip
        """Remove items from the index, not from the disk: how many.

        A later `sync` does not take them again, by whatever name; `add` does.

        Args:
            paths: of items, or of folders that hold them; also lists of paths.
            where: conditions on columns, as for `search`; all must hold.
            ids: of items.
            progress: called with what is being done, how far, and of how much.

        Raises:
            ConfigError: nothing is named, or a condition that is not understood.
            DataError: no item is meant.
        """
        from mrl_search.by_hand import remove_rows

        def choose(rows: Collection) -> NDArray[np.int64]:
            return _chosen(Corpus(self.folder, rows), paths, where, ids)

        self._check_free()
        count = remove_rows(self.folder, choose, progress)
        self._follow(progress)
        return count

    def chosen(
        self, *paths: Paths, where: str | Sequence[str] = (),
        ids: Ids | Sequence[int] | None = None,
    ) -> Ids:  # fmt: skip
        """The ids of the items that `remove` would take: (n,) int64."""
        return self.corpus.items.all_ids[_chosen(self.corpus, paths, where, ids)]

    def duplicates(
        self, level: str = "copy", *, fpr: float | None = None, keep: str = "best",
        against: "Source | str | Path | None" = None, progress: Progress = silent,
    ) -> "Duplicates":  # fmt: skip
        """Groups of copies of one picture, each around the one that is kept. Nothing is changed.

        The result is a sequence: `for group in index.duplicates(): group.keep, group.copies`.

        Args:
            level: the least alike: `exact` (bytes), `pixels` (another container or other metadata),
                `copy` (scaled, cropped, turned or recoloured), or `similar`.
            fpr: false pairs for each pair of unrelated pictures, before the second look. Default:
                1e-6, and more where a second look at all of them takes seconds.
            keep: `best`, `oldest`, `newest`, `largest`, or a pattern of paths.
            against: other pictures or another index: only those of them that are items, or copies
                of items, are found.
            progress: called with what is being done, how far, and of how much.

        Raises:
            ConfigError: an unknown level, one that vectors of your own do not have, or a pattern
                that no path fits.
            DataError: too few pictures for `similar`, or too many similar pairs.
        """
        from mrl_search.duplicates.finding import find_duplicates

        corpus = self.corpus
        return find_duplicates(corpus, lambda: self.encoder, level, fpr, keep, against, progress)

    def compact(self, progress: Progress = silent) -> None:
        """Write all items together, without those that were removed, and train their indexes.

        Raises:
            ConfigError: nothing is left.
        """
        from mrl_search import living

        self._check_free()
        living.compact(self.folder, progress, "compact")
        self._follow(progress)

    def restore(self, generation: int) -> None:
        """Make the index as it was in an older generation, as a new one.

        Raises:
            ConfigError: no number.
            IndexFolderError: it is not kept any more.
        """
        from mrl_search import living
        from mrl_search.mirror import check_own

        self._check_free()
        living.restore(self.folder, generation, partial(check_own, self.folder))
        self._follow()

    def _check_free(self) -> None:
        """Refuse a change while another process has the file of Milvus Lite."""
        from mrl_search.mirror import check_free

        check_free(self.folder)

    def _follow(self, progress: Progress = silent) -> None:
        """Answer from what was changed; where another engine answers, let it follow first."""
        from mrl_search.mirror import follow

        follow(self.folder, progress)
        self.refresh()


def _chosen(
    corpus: Corpus, paths: Sequence[Paths], where: str | Sequence[str],
    ids: Ids | Sequence[int] | None,
) -> NDArray[np.int64]:  # fmt: skip
    """The rows that are meant, ascending; see `Changing.remove`."""
    conditions = conditions_of(where)
    if not paths and not conditions and ids is None:
        raise ConfigError("Say what to remove.", "Name paths, conditions or ids.")
    groups = [
        one if isinstance(one, Iterable) and not isinstance(one, str) else [one] for one in paths
    ]
    named: list[str | Path] = [place for group in groups for place in group]
    if not all(isinstance(place, str | Path) for place in named):
        raise ConfigError(f"Paths are text, Path or lists of them, not {named!r}.")
    mask = mask_of(corpus.items, conditions, ids, corpus.alive)
    rows = corpus.live_rows if mask is None else mask.ids
    return rows[_below(corpus.collection.paths[rows], named)] if paths else rows


def _below(paths: NDArray[np.object_], wanted: Sequence[str | Path]) -> NDArray[np.bool_]:
    """Which paths are among the wanted ones, or in a folder among them.

    Raises:
        DataError: a wanted path that none is.
    """
    chosen = np.zeros(len(paths), bool)
    for place in wanted:
        names = {str(place), recordable(expanded(place).absolute())}
        folders = tuple(f"{name.rstrip('/')}/" for name in names)
        found = np.array([p is not None and (p in names or p.startswith(folders)) for p in paths])
        if not found.any():
            raise DataError(f"The index has no item {place}.", "mrl-search info shows its source.")
        chosen |= found
    return chosen
