"""`mrl-search info`: what an index is, whether it is whole, and what its prefixes keep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli.options import Json, open_index

if TYPE_CHECKING:
    from mrl_search.engines import Index

__all__ = ["info"]


def info(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Index folder; default: the newest in indexes/."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte and compare the checksums.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Measure what each prefix keeps, and what it would after a PCA rotation; shown instead.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what an index holds and what made it."""
    index = open_index(folder)
    from collections import Counter

    from mrl_search.cli.render import json_line, note, show_table
    from mrl_search.mapping import to_mapping
    from mrl_search.store.items import ITEMS_SCHEMA
    from mrl_search.store.manifest import verify as verify_files

    if verify:
        verify_files(index.folder)
    if check:
        _check(index, as_json)
        return
    m = index.manifest
    if as_json:
        json_line(
            {"index": str(index.folder), **to_mapping(m), "skipped": len(index.embeddings.skipped)}
        )
        return
    labels = Counter(label for label in index.embeddings.labels if label is not None)
    named = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(8)) + (
        f", … ({len(labels)} in all)" if len(labels) > 8 else ""
    )
    extra = index.items.column_names[len(ITEMS_SCHEMA) :]
    made = ["rotated by PCA"] if index.embeddings.rotation is not None else []
    made += [f"cut from {index.rows_dim}"] if index.rows_dim > m.dim else []
    made_by = f"{m.model}, " if m.model else ""
    size = sum(f.bytes for f in m.files.values())
    rows = [
        ("index", str(index.folder)),
        ("items", f"{m.count:,}") if m.own_vectors else ("images", f"{m.count:,}, skipped {len(index.embeddings.skipped)}"),
        ("labels", named or "none"), *([("columns", ", ".join(extra))] if extra else []),
        ("source", m.source), ("model", f"{m.encoder} ({made_by}{m.fingerprint[:12]})"),
        ("vectors", ", ".join([f"{m.dim} dims", m.dtype, "unit length", *made])),
        ("prefixes", ", ".join(f"{d} {m.factory[str(d)]}" for d in index.dims)),
        ("plans", ", ".join(f"{use} {_plan(p)}" for use, p in m.plans.items()) or "none tuned: exact search at full length is the default"),
        ("size", f"{size / 1e6:,.1f} MB in {len(m.files)} files"), ("created", m.created),
        ("versions", ", ".join(f"{name} {version}" for name, version in m.versions.items())),
    ]  # fmt: skip
    show_table(("", ""), rows)
    if verify:
        note("every file is as it was written")


def _check(index: "Index", as_json: bool) -> None:
    from dataclasses import asdict

    from mrl_search.cli.render import json_line, note, percent, progress_bars, show_table
    from mrl_search.measure.prefixes import advice, check_prefixes

    with progress_bars(not as_json) as progress:
        found = check_prefixes(index, progress)
    if as_json:
        for p in found.prefixes:
            shares = {
                name: None if value is None else round(value, 6)
                for name, value in asdict(p).items()
            }
            json_line(
                {
                    **shares,
                    "k": found.k,
                    "shortlist": found.shortlist,
                    "n": found.queries,
                    "corpus": found.corpus,
                }
            )
        return
    rows = [
        (
            str(p.dims),
            percent(p.energy),
            percent(p.recall),
            percent(p.pca_energy),
            percent(p.pca_recall),
        )
        for p in found.prefixes
    ]
    recall = f"recall@{found.k}"
    show_table(("dims", "energy", recall, "PCA energy", f"PCA {recall}"), rows, str(index.folder))
    note(
        f"{recall}: share of the true neighbours in a shortlist of {found.shortlist} on the prefix, re-ranked at full length; "
        f"{found.queries} of {found.corpus:,} rows asked"
    )
    note(advice(found, index.manifest.own_vectors, index.embeddings.rotation is not None))


def _plan(tuned: object) -> str:
    """The plan that was tuned and what it was for, in a few words."""
    return (
        f"{tuned.get('plan')} (tuned for {tuned.get('objective')} {tuned.get('target')})"
        if isinstance(tuned, dict)
        else "?"
    )
