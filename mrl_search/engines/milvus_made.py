"""Collections of Milvus: how they are made, whose they are, and the small files in one of them.

Each has the token of its index as a property: Milvus makes a collection once, so of two processes
that begin to fill the same place one is refused.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from mrl_search.engines.milvus_client import Foreign, Place, ask
from mrl_search.errors import EngineError

__all__ = [
    "KINDS", "MOST_FOUND", "fields_of", "file_schema", "files_of", "fill_hint", "made",
    "of_another", "owner_of", "read_file", "schema_of", "write_file",
]  # fmt: skip

MOST_FOUND = 16_384  # answers to one query
OWNER = "mrl_search.index"  # property of a collection: the token of the index that it belongs to
PIECE = 60_000  # characters of a file in one row
KINDS: dict[str, tuple[dict[str, int], str, tuple[int, ...]]] = {
    "FLAT": ({}, "", ()),
    "HNSW": ({"M": 16, "efConstruction": 200}, "ef", (16, 32, 64, 128, 256, 512)),
    "IVF_FLAT": ({"nlist": 1024}, "nprobe", (4, 8, 16, 32, 64, 128, 256)),
}
"""Kinds of index: how it is built, what its effort is called, and which are worth trying."""
Schema = tuple[Any, dict[str, dict[str, object]]]  # of a collection, and the indexes of its fields


def files_of(place: Place) -> str:
    """The collection of the small files."""
    return f"{place.name}_files"


def fill_hint(place: Place) -> str:
    """The hint of an error about a place that lacks something."""
    return f"Fill it from its index: mrl-search copy INDEX --to '{place}'"


def of_another(place: Place) -> Foreign:
    """The error of a place that belongs to another index."""
    hint = "Choose another name for this one: mrl-search copy INDEX --to PLACE"
    return Foreign(f"The collection {place} belongs to another index.", hint)


def owner_of(place: Place, client: Any, name: str) -> str:  # noqa: ANN401
    """The token of the index that a collection belongs to; empty if it is none of ours."""
    properties = ask(place, client.describe_collection, name).get("properties") or {}
    return str(properties.get(OWNER, ""))


def fields_of(place: Place, client: Any, name: str) -> set[str]:  # noqa: ANN401
    """Names of the fields of a collection; empty if there is none."""
    if not ask(place, client.has_collection, name):
        return set()
    return {field["name"] for field in ask(place, client.describe_collection, name)["fields"]}


def write_file(place: Place, client: Any, name: str, content: bytes) -> None:  # noqa: ANN401
    """Keep a small file, in place of an older one."""
    text = base64.b64encode(content).decode()
    pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    for number, piece in enumerate(pieces):
        row = {"id": f"{name}/{number:06d}", "text": piece, "vector": [1.0, 0.0]}
        ask(place, client.upsert, files_of(place), [row])
    beyond = f'id like "{name}/%" and id >= "{name}/{len(pieces):06d}"'  # of a longer one before
    ask(place, client.delete, files_of(place), filter=beyond)


def read_file(place: Place, client: Any, name: str) -> bytes | None:  # noqa: ANN401
    """A small file; None if there is none."""
    options: dict[str, Any] = {"filter": f'id like "{name}/%"', "output_fields": ["id", "text"]}
    options |= {"limit": MOST_FOUND, "consistency_level": "Strong"}
    ask(place, client.load_collection, files_of(place))
    pieces = ask(place, client.query, files_of(place), **options)
    ordered = sorted(pieces, key=lambda piece: piece["id"])
    return base64.b64decode("".join(piece["text"] for piece in ordered)) if ordered else None


def made(
    place: Place, client: Any, name: str, make: Callable[[Any], Schema], token: str,  # noqa: ANN401
) -> None:  # fmt: skip
    """Create a collection and its indexes; what a stopped run has made stays.

    Raises:
        EngineError: it belongs to another index.
    """
    schema, indexes = make(client)
    if not ask(place, client.has_collection, name):
        options = {"schema": schema, "consistency_level": "Strong", "properties": {OWNER: token}}
        try:
            ask(place, client.create_collection, name, **options)
        except EngineError:
            if not ask(place, client.has_collection, name):  # of another process, meanwhile
                raise
    if owner_of(place, client, name) != token:
        raise of_another(place)
    for field, options in indexes.items():
        if not ask(place, client.list_indexes, name, field):
            params = client.prepare_index_params()
            params.add_index(field, metric_type="IP", **options)
            ask(place, client.create_index, name, params)


def schema_of(client: Any, kinds: Mapping[int, str]) -> Schema:  # noqa: ANN401
    """Rows, their items, and a vector field for each prefix."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("item", DataType.JSON)
    indexes = dict[str, dict[str, object]]()
    for dims, kind in kinds.items():
        schema.add_field(f"prefix_{dims}", DataType.FLOAT_VECTOR, dim=dims)
        indexes[f"prefix_{dims}"] = {"index_type": kind, "params": dict(KINDS[kind][0])}
    return schema, indexes


def file_schema(client: Any) -> Schema:  # noqa: ANN401
    """Pieces of text; Milvus wants a vector field in every collection."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, max_length=200, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=65_000)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    return schema, {"vector": {"index_type": "FLAT"}}
