"""`mrl-search info`: what an index is, and whether it is whole."""

from pathlib import Path
from typing import Annotated

import typer

from mrl_search.cli.options import Json, open_index

__all__ = ["info"]


def info(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Index folder; default: the newest in indexes/.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and compare the checksums.")] = False,
    as_json: Json = False,
) -> None:
    """Show what an index holds and what made it."""
    index = open_index(folder)
    from collections import Counter

    from mrl_search.cli.render import json_line, note, show_table
    from mrl_search.config import to_mapping
    from mrl_search.manifest import verify as check

    if verify:
        check(index.folder)
    m = index.manifest
    if as_json:
        json_line({"index": str(index.folder), **to_mapping(m), "skipped": len(index.embeddings.skipped)})
        return
    labels = Counter(label for label in index.embeddings.labels if label is not None)
    named = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(8)) + (
        f", … ({len(labels)} in all)" if len(labels) > 8 else ""
    )
    size = sum(f.bytes for f in m.files.values())
    rows = [
        ("index", str(index.folder)), ("images", f"{m.count:,}, skipped {len(index.embeddings.skipped)}"), ("labels", named or "none"),
        ("source", m.source), ("model", f"{m.encoder} ({m.model}, {m.fingerprint[:12]})"),
        ("vectors", f"{m.dim} dims, {m.dtype}, unit length"), ("prefixes", ", ".join(f"{d} {m.factory[str(d)]}" for d in index.dims)),
        ("plans", ", ".join(m.plans) or "none tuned: exact search at full length is the default"),
        ("size", f"{size / 1e6:,.1f} MB in {len(m.files)} files"), ("created", m.created),
        ("versions", ", ".join(f"{name} {version}" for name, version in m.versions.items())),
    ]  # fmt: skip
    show_table(("", ""), rows)
    if verify:
        note("every file is as it was written")
