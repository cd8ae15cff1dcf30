"""Routes that change an index; there only with `serve --write`."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, UploadFile
from starlette.exceptions import HTTPException

from mrl_search.duplicates.decisions import not_duplicates
from mrl_search.errors import ConfigError, DataError
from mrl_search.files import expanded
from mrl_search.images.decode import decode, is_picture, opened, suffixes
from mrl_search.index import Index
from mrl_search.synced import Synced
from mrl_search.web.asked import AskedGroup, AskedRemoval
from mrl_search.web.served import Served, check_pixels, rows_of

__all__ = ["writing_routes"]

HEAD = 64  # bytes that tell a picture
NAMES = 1_000  # pictures of one name in a folder
LONGEST = 150  # bytes of a name without its ending


def writing_routes(named: Callable[[str], Served], write: bool, responses: Any) -> APIRouter:  # noqa: ANN401
    """The routes; without `write` each of them says that it may not."""
    routes = APIRouter(prefix="/api/indexes/{name}", tags=["changes"], responses=responses)

    def allowed(name: str) -> Index:
        if not write:
            raise HTTPException(403, "This server only reads: start it with --write.")
        return copy.copy(named(name).now())  # requests that run keep their generation

    @routes.post("/sync")
    def sync(name: str, dry_run: bool = False) -> dict[str, Any]:
        """Make the index as its folders are."""
        return _told(allowed(name).sync(dry_run=dry_run))

    @routes.post("/add")
    def add(name: str, image: UploadFile) -> dict[str, Any]:
        """Store a picture in the first folder of the index, and add it."""
        index = allowed(name)
        data = image.file.read()
        if not is_picture(data[:HEAD]):
            raise DataError("The file is no picture that can be read.", "Send JPEG, PNG or WebP.")
        check_pixels(data)
        decode(data, side=HEAD)  # whole, before anybody else sees it
        folders = [place for place in index.manifest.places if place and expanded(place).is_dir()]
        if not folders:
            raise ConfigError("The index was not built from a folder.", "Add pictures by hand.")
        path = _store(expanded(folders[0]), image.filename or "", data)
        try:
            return _told(index.add(path))
        except BaseException:
            path.unlink(missing_ok=True)  # a later sync does not take what was refused
            raise

    @routes.post("/remove")
    def remove(name: str, asked: AskedRemoval) -> dict[str, int]:
        """Take items out of the index; a later sync does not bring them back."""
        index = allowed(name)
        if not asked.ids and not asked.where:
            raise ConfigError("Say what to remove.", "Name ids or conditions.")
        ids = index.items.all_ids[rows_of(index, asked.ids)] if asked.ids else None
        return {"removed": index.remove(where=asked.where, ids=ids)}

    @routes.post("/duplicates/decisions")
    def decide(name: str, asked: AskedGroup) -> dict[str, int]:
        """Remember that items are no copies of each other."""
        index = allowed(name)
        rows = rows_of(index, asked.ids)
        hashes = [index.items["hash"][row].as_py() for row in rows.tolist()]
        return {"new": not_duplicates(index.folder, hashes)}

    return routes


def _told(done: Synced) -> dict[str, Any]:
    return {
        "added": len(done.added) + len(done.copied), "removed": len(done.removed),
        "moved": len(done.moved), "edited": len(done.edited), "same": done.same,
        "skipped": len(done.skipped), "generation": done.generation,
    }  # fmt: skip


def _name_of(given: str, data: bytes) -> tuple[str, str]:
    """Stem and ending of a file for a picture, as far as possible those that its sender gave."""
    plain = Path(given.replace("\0", "").rpartition("/")[2].lstrip(". ") or "picture")
    ending = plain.suffix
    if ending.lower() not in suffixes():
        with opened(data) as image:
            ending = f".{(image.format or 'picture').lower()}"
    stem = plain.stem.encode(errors="replace")[:LONGEST].decode(errors="ignore")
    return stem.strip() or "picture", ending


def _store(folder: Path, name: str, data: bytes) -> Path:
    """Write a new file into `folder`; a name that is taken gets a number."""
    stem, ending = _name_of(name, data)
    for number in range(1, NAMES):
        path = folder / (f"{stem}{ending}" if number == 1 else f"{stem}-{number}{ending}")
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        return path
    raise DataError(f"There are {NAMES:,} pictures called {stem}{ending}.", "Choose another name.")
