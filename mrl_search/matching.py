"""Whether parts make one index: all there, each once, of one model, source and set of columns."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mrl_search.errors import ConfigError, IndexFolderError
from mrl_search.files import expanded
from mrl_search.store.manifest import Manifest, read_manifest
from mrl_search.store.shard import POSITION

__all__ = ["check_parts", "manifests_of"]

SHOWN = 5  # numbers of missing parts in a message


def manifests_of(names: Sequence[str]) -> list[Manifest]:
    """The manifests of parts.

    Raises:
        IndexFolderError: one is missing, unfinished or damaged; the hint has its own command.
    """
    found = dict[str, Manifest]()
    for name in names:
        with suppress(IndexFolderError):
            found[name] = read_manifest(expanded(name))
    known = [m for m in found.values() if m.shard]
    for name in names:
        if name in found:
            continue
        out = shlex.quote(name)
        command = f"mrl-search build-index SRC --out {out} --shard NUMBER/COUNT"
        if known:
            numbers, count = _missing(known), known[0].shard.count
            number = numbers[0] if len(numbers) == 1 else "NUMBER"
            command = known[0].build(out, f"{number}/{count}")
            if len(numbers) > 1:
                command += f"\nNUMBER is one of {_listed(numbers)}."
        found[name] = read_manifest(expanded(name), command=command)  # unless it came meanwhile
    return [found[name] for name in names]


def _missing(manifests: Sequence[Manifest]) -> list[int]:
    """Numbers of the parts that are not there."""
    there = {m.shard.number for m in manifests}
    return [n for n in range(1, manifests[0].shard.count + 1) if n not in there]


def _listed(values: Sequence[object]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(map(str, values[:SHOWN])) + more


def check_parts(
    names: Sequence[str], manifests: Sequence[Manifest], *, moved: bool, partial: bool
) -> None:
    """Check that parts fit together.

    Raises:
        ConfigError: they do not.
    """
    if not names:
        raise ConfigError("No part is given.", "Name the folders that build-index --shard wrote.")
    for name, m in zip(names, manifests, strict=True):
        if not m.shard:
            hint = "Parts come from: mrl-search build-index SRC --shard 1/4 --out PART"
            raise ConfigError(f"{name} is an index, not a part of one.", hint)
    facts: list[tuple[Callable[[Manifest], Any], str, str]] = [
        (lambda m: m.shard.count, "shares a source out among {}", "Build them with one COUNT."),
        (_maker, "was made by {}", "All parts must come from one model."),
        (lambda m: m.dim, "has {} dims", "All parts must come from one model."),
        (lambda m: m.dtype, "has vectors in {}", "Build them with one --dtype."),
    ]
    if not moved:
        hint = "If it is the same source in another place, name it here: --source SRC"
        facts.append((lambda m: m.source, "is of {}", hint))
    facts.append((_walk, "was built with {}", "Build all with the same options."))
    if manifests[0].shard.by == POSITION:
        hint = "Rows are shared out by position, so all must see the same. Build them again."
        facts.append((lambda m: f"{m.shard.total:,} rows ({m.shard.listing[:6]})", "saw {}", hint))
    for fact, what, hint in facts:
        first = fact(manifests[0])
        for name, m in zip(names, manifests, strict=True):
            if fact(m) != first:
                message = f"{name} {what.format(fact(m))}; {names[0]}, {first}."
                raise ConfigError(message, hint)
    _check_columns(names, manifests)
    places = defaultdict(list)
    for name, m in zip(names, manifests, strict=True):
        places[m.shard.number].append(name)
    count = manifests[0].shard.count
    for number, twice in places.items():
        if len(twice) > 1:
            message = f"Part {number}/{count} is there twice: {' and '.join(twice)}."
            raise ConfigError(message, "Leave one out.")
    missing = [f"{number}/{count}" for number in _missing(manifests)]
    if missing and not partial:
        are = "are" if len(missing) > 1 else "is"
        build = manifests[0].build("PART", missing[0])
        hint = f"Build what is missing: {build}\nOr join the others alone: --partial"
        raise ConfigError(f"Of {count} parts, {_listed(missing)} {are} missing.", hint)


def _check_columns(names: Sequence[str], manifests: Sequence[Manifest]) -> None:
    """Raise ConfigError if a part was built without columns that another has."""
    every = dict(zip(names, manifests, strict=True))
    having = {column: name for name, m in every.items() for column in m.shard.columns}
    for name, m in every.items():
        lacking = sorted(having.keys() - set(m.shard.columns))
        if lacking:
            other = having[lacking[0]]
            columns = f"column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
            message = f"{name} was built without the {columns}, which {other} has."
            way = "with its --items" if m.own_vectors else "where the metadata file is"
            same = replace(m, shard=replace(m.shard, items=every[other].shard.items))
            command = same.build(shlex.quote(name))
            raise ConfigError(message, f"Remove {name} and build it again {way}: {command}")


def _maker(manifest: Manifest) -> str:
    """What made the rows of a part; of a user's own vectors every part has other contents."""
    own = manifest.own_vectors
    return manifest.encoder if own else f"{manifest.encoder} ({manifest.fingerprint[:12]})"


def _walk(manifest: Manifest) -> str:
    """How the folders of a part were walked."""
    return ", ".join(
        f"--labels {how.get('labels') or 'by default'}{' --hidden' if how.get('hidden') else ''}"
        for how in manifest.roots.values()
    )
