"""Small pictures of items, as JPEG."""

import io

from PIL import Image

from mrl_search.errors import BrokenImage
from mrl_search.images.decode import decode
from mrl_search.images.sources import read_recorded
from mrl_search.index import Index

__all__ = ["read_item", "thumbnail"]

QUALITY = 82


def read_item(index: Index, row: int) -> bytes:
    """The file of an item; only of the sources of the index.

    Raises:
        BrokenImage: there is none, it is gone, or lies outside.
    """
    path = index.items["path"][row].as_py()
    if path is None or index.manifest.own_vectors:
        raise BrokenImage("the item has no picture")
    return read_recorded(path, *index.manifest.places)


def thumbnail(index: Index, row: int, side: int) -> bytes:
    """A JPEG of at most `side` pixels a side.

    Raises:
        BrokenImage: as `read_item`, or it cannot be decoded.
    """
    picture, _ = decode(read_item(index, row), side)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
