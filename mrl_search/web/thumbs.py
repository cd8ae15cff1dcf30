"""Small pictures of items, as JPEG."""

import io
import os

from PIL import Image

from mrl_search.errors import BrokenImage
from mrl_search.files import expanded
from mrl_search.images.decode import decode
from mrl_search.images.sources import read_recorded
from mrl_search.index import Index
from mrl_search.web.roots import read_inside

__all__ = ["read_item", "thumbnail"]

QUALITY = 82


def read_item(index: Index, row: int) -> bytes:
    """The file of an item, if it lies in a source of the index, also behind all links.

    Raises:
        BrokenImage: there is none, it is gone, or lies outside.
    """
    path, places = index.items["path"][row].as_py(), index.manifest.places
    if path is None or index.manifest.own_vectors:
        raise BrokenImage("The item has no picture.")
    file = expanded(path)
    if not os.path.lexists(file):  # in a data set, or gone
        return read_recorded(path, *places)
    return read_inside(file, places)


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
