"""`mrl-search info`: what an index holds, whether it is whole, and what its prefixes keep."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from mrl_search.cli.opening import open_index
from mrl_search.cli.options import IndexArgument, Json, option
from mrl_search.cli.render import json_line, note, percent, progress_bars, show_skipped, show_table
from mrl_search.store.manifest import restorable

if TYPE_CHECKING:
    from mrl_search.index import Index
    from mrl_search.store.manifest import Manifest

__all__ = ["info"]

TOO_FEW = "Too few to recommend one."
CHECK_HELP = "Measure instead what each prefix keeps, and what other axes would make it keep."


def info(
    folder: IndexArgument = None,
    verify: Annotated[bool, option("--verify", "Read every byte and compare checksums.")] = False,
    check: Annotated[bool, option("--check", CHECK_HELP)] = False,
    as_json: Json = False,
) -> None:
    """Show what an index holds and what made it."""
    index = open_index(folder)
    from mrl_search.mapping import to_mapping
    from mrl_search.store.intact import verify as verify_files

    if verify:
        verify_files(index.folder)
    if check:
        _check(index, as_json)
        return
    m, collection = index.manifest, index.corpus.collection
    if as_json:
        skipped = len(collection.skipped)
        kept = [
            {"generation": one.generation, "items": one.alive, **asdict(one.command)}
            for one in restorable(index.folder)
        ]
        told = {"items": m.alive, "skipped": skipped, "generations": kept, "sources": m.places}
        told["unreadable"] = {entry.path: entry.reason for entry in collection.skipped}
        json_line({"index": str(index.folder), **to_mapping(m), **told})
        return
    labels = Counter(collection.labels[collection.labelled].tolist())
    names = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(8))
    more = f", … ({len(labels)} in all)" if len(labels) > 8 else ""
    vectors = [f"{m.dim} dims", m.dtype, "norm 1"]
    if collection.transform.rotation is not None:
        vectors.append(f"axes {m.axes.get('choice')}" if m.axes else "rotated by PCA")
    if index.corpus.rows_dim > m.dim and collection.transform.centre is None:
        vectors.append(f"cut from {index.corpus.rows_dim}")
    model = f"{m.model}, " if m.model else ""
    pictures = f"{m.alive:,}, skipped {len(collection.skipped)}"
    plans = ", ".join(f"{use} {_plan(p)}" for use, p in m.plans.items())
    own = [("columns", ", ".join(index.items.own_columns))] if index.items.own_columns else []
    rows = [
        ("index", str(index.folder)),
        ("items", f"{m.alive:,}") if m.own_vectors else ("pictures", pictures),
        ("labels", names + more or "none"), *own, 
        ("source", m.source if len(m.places) < 2 else ", ".join(m.places)), *_part(m),
        ("model", f"{m.encoder} ({model}{m.fingerprint[:12]})"), ("vectors", ", ".join(vectors)),
        ("prefixes", ", ".join(f"{d} {m.factory[str(d)]}" for d in index.dims)),
        ("plans", plans or "none tuned; the default is exact"), ("code", _code(index)),
        *_generation(index),
        ("size", f"{m.nbytes / 1e6:,.1f} MB in {len(m.files)} files"), ("created", m.created),
        ("versions", ", ".join(f"{name} {version}" for name, version in m.versions.items())),
    ]  # fmt: skip
    show_table(("", ""), rows)
    show_skipped(collection.skipped, "mrl-search info --json")
    if verify:
        note("every file is as it was written")


def _code(index: "Index") -> str:
    """Which code answers queries here."""
    from mrl_search.engines.kernels import instructions
    from mrl_search.engines.lists import has_lists

    if index.manifest.engine:
        return f"searches ask {index.manifest.engine}"
    if not (name := instructions()):
        return "FAISS and numpy alone: the package was installed without a C++ compiler"
    coded = [str(d) for d in index.dims if has_lists(index.manifest.factory[str(d)])]
    whole = f"; plans DIMS:KEEP,{index.corpus.dim} from {', '.join(coded)} dims in one call"
    return f"compiled ({name})" + (whole if coded else "")


def _part(m: "Manifest") -> list[tuple[str, str]]:
    """Which part of an index it is, if it is one."""
    by, total = m.shard.by, f"{m.shard.total:,}"
    return [("part", f"{m.shard} of {total} items, shared out by {by}")] if m.shard else []


def _generation(index: "Index") -> list[tuple[str, str]]:
    """What changes left behind, of an index that was changed."""
    m = index.manifest
    if not m.generation:
        return []
    tail = f"{m.count - m.indexed:,} rows added since the prefixes were built"
    rows = [("changes", f"{tail}, {m.deleted:,} deleted rows"), ("generation", str(m.generation))]
    kept = [one for one in restorable(index.folder) if one.generation != m.generation]
    rows += [(f"restore {one.generation}", _told(one)) for one in reversed(kept)]
    if m.command.name:
        rows[1] = ("generation", f"{m.generation}: {_told(m)}")
    grown = [use for use, plan in m.plans.items() if _grown(m.alive, plan)]
    if grown:
        plans = f"tuned when the index was smaller by a third: {', '.join(grown)}"
        rows.append(("tune again", plans))
    return rows


def _told(m: "Manifest") -> str:
    """What made a generation, and how many items it has."""
    command = m.command
    if not command.name:
        return f"{m.alive:,} items"
    when = command.when[:16].replace("T", " ")
    counts = (command.added, command.removed, command.moved, command.edited)
    signs = " ".join(f"{sign}{n:,}" for sign, n in zip("+−→~", counts, strict=True) if n)
    return f"{m.alive:,} items after {command.name} {signs}".rstrip() + f", {when} UTC"


def _grown(alive: int, plan: object) -> bool:
    """Whether an index has grown by half since a plan was tuned."""
    count = plan.get("count") if isinstance(plan, dict) else None
    return isinstance(count, int) and alive > 1.5 * count


def _check(index: "Index", as_json: bool) -> None:
    from mrl_search.measure.prefixes import advice, check_prefixes

    with progress_bars(not as_json) as progress:
        found = check_prefixes(index.corpus, progress)
    axes = index.manifest.axes
    if as_json:
        common = {
            "k": found.k, "shortlist": found.shortlist, "n": found.queries, "corpus": found.corpus,
        }  # fmt: skip
        for p in found.prefixes:
            shares = {n: None if v is None else round(v, 6) for n, v in asdict(p).items()}
            json_line({**shares, **common})
        if axes:
            json_line({"axes": axes})
        return
    rows = [
        (str(p.dims), *map(percent, (p.energy, p.recall, p.pca_energy, p.pca_recall)))
        for p in found.prefixes
    ]
    recall = f"recall@{found.k}"
    show_table(("dims", "energy", recall, "PCA energy", f"PCA {recall}"), rows, str(index.folder))
    note(
        f"{recall}: share of the true neighbours in a shortlist of {found.shortlist} by prefix, "
        f"re-ranked at full length; n = {found.queries} of {found.corpus:,} rows"
    )
    rotated = index.corpus.collection.transform.rotation is not None
    note(advice(found, index.manifest.own_vectors, rotated))
    if axes:
        _show_axes(axes)


def _show_axes(axes: Any) -> None:  # noqa: ANN401 - from JSON
    """Print what each choice of axes keeps, as it was measured when the index was built."""
    columns = ("recall", "instance", "accuracy")
    titles = ("dims", "energy", "recall@10", "changed views", "20-NN")
    try:
        tables = {
            f"axes {name}" + (", this index" if name == axes["choice"] else ""): [
                (str(p["dims"]), percent(p["energy"]), *(percent(p[c]) for c in columns))
                for p in prefixes
            ]
            for name, prefixes in axes["kept"].items()
        }
        advice = f"Recommended: --axes {axes['recommended']}" if axes["recommended"] else TOO_FEW
        told = (
            "recall@10: share of the ten nearest by all dims that are so by the prefix. "
            "changed views: share of changed copies whose nearest picture is their original.\n"
            f"n = {axes['held_out']} pictures that did not fit the measured axes, "
            f"{axes['views_held_out']} changed views of them; fitted on "
            f"{axes['fitted']:,}, views of {axes['viewed']:,}. {advice}"
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        note("The manifest's record of axes is damaged; it is not shown.")
        return
    for title, rows in tables.items():
        show_table(titles, rows, title)
    if tables:
        note(told)


def _plan(tuned: object) -> str:
    """A tuned plan and its target."""
    if not isinstance(tuned, dict):
        return "?"
    if "give" in tuned:
        return f"{tuned.get('plan')} (loses at most {tuned['give']:.1%})"
    return f"{tuned.get('plan')} (tuned for {tuned.get('objective')} {tuned.get('target')})"
