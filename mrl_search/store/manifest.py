"""The manifest of an index folder: its content, what made it, and checksums of its files.

`manifest.json` is written last: where it exists, the folder is complete. In format 2 it names the
generation that holds, whose manifest is in `generations/` (see `mrl_search.store.generations`).
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrl_search.errors import ConfigError, FileError, IndexFolderError
from mrl_search.files import write_text
from mrl_search.mapping import from_mapping, read_json, to_mapping
from mrl_search.provenance import now, package_versions
from mrl_search.store.command import Command
from mrl_search.store.shard import Shard

__all__ = [
    "CENTRE", "CODES", "DELETED", "FORMAT", "GENERATIONS", "HEADS", "ITEMS", "LEFT_OUT", "MANIFEST",
    "OF_THE_MODEL", "OWN_VECTORS", "PARTS", "ROTATION", "SIEVE", "SKIPPED", "STEPS", "SUFFIX",
    "VECTORS", "FileRecord", "Manifest", "Part", "generation_file", "is_index_file",
    "kept_generations", "lease_file", "manifest_of", "newest_index", "prefix_file",
    "read_manifest", "restorable", "way_back", "write_text_of",
]  # fmt: skip

FORMAT = 2
MANIFEST, VECTORS, ITEMS = "manifest.json", "vectors.npy", "items.parquet"
HEADS, SKIPPED, ROTATION = "heads.safetensors", "skipped.json", "rotation.npy"
CENTRE, DELETED, LEFT_OUT = "centre.npy", "deleted.bits", "left-out.json"
GENERATIONS, PARTS = "generations", "parts"
SUFFIX, CODES, STEPS = "suffix-norms.npy", "sieve-codes.npy", "sieve-steps.npy"
OF_THE_MODEL = (HEADS, ROTATION, CENTRE, SKIPPED, LEFT_OUT)  # files that no row is in
SIEVE = (SUFFIX, CODES, STEPS)  # files of exact search
KNOWN = (VECTORS, ITEMS, DELETED, *OF_THE_MODEL, *SIEVE)
OWN_VECTORS = "own vectors"  # in place of an encoder's name
PART = re.compile(r"(.+) \((train|validation) part\)")  # the name of a part of a source
DTYPES = ("float16", "float32")
KEPT = ("bytes", "xxh3", "blocks", "path")  # of a file's record
PREFIX = re.compile(r"[1-9][0-9]*")  # a prefix length as a JSON key
PREFIX_FILE = re.compile(r"prefix-\d{4,}\.faiss")
PART_NAME = re.compile(r"\d{6,}")  # the generation that wrote the part
PLACE = re.compile(rf"{PARTS}/\d{{6,}}/[^/\\]+")  # of a file that a generation wrote
TRIES = 5  # a generation may end between two reads
SECOND = ("generation", "parts", "deleted", "next_id", "trained", "command")  # of format 2 alone


def prefix_file(dims: int) -> str:
    """File name of the FAISS index of one prefix length."""
    return f"prefix-{dims:04d}.faiss"


def is_index_file(name: str) -> bool:
    """Whether a file of this name, beside the manifest, belongs to an index folder."""
    return name in KNOWN or PREFIX_FILE.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was written.

    Attributes:
        bytes: its size.
        xxh3: its XXH3-128, in hex.
        blocks: checksums of the blocks of large vectors (see `mrl_search.store.blocks`).
        path: where it is in the index folder; empty: there, under its own name.
    """

    bytes: int
    xxh3: str
    blocks: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that were written at one time.

    Attributes:
        name: before the names of its files, as in `000003/vectors.npy`; empty for the first part.
        rows: number of vectors, deleted ones too.
        indexed: whether the prefix indexes have them; others are compared one by one.
    """

    name: str
    rows: int
    indexed: bool = True

    def file(self, name: str) -> str:
        """The name of one of its files in `Manifest.files`."""
        return f"{self.name}/{name}" if self.name else name


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of an index folder.

    Attributes:
        encoder: name of the model that made the vectors, or `own vectors`.
        fingerprint: of the model's weights and preprocessing; of own vectors: of their content.
        dim: dims of the stored vectors.
        dims: prefix lengths, ascending; those in `factory` can begin a plan.
        count: number of rows; without the `deleted` ones, the number of items.
        dtype: of the stored vectors, `float16` or `float32`.
        source: where the pictures came from, as given to `build-index`.
        model: the --model argument that opens the encoder; empty for own vectors.
        classes: class names in the order of the linear heads; may be empty.
        unit_heads: whether heads read prefixes of unit norm; otherwise raw prefixes.
        created: ISO 8601, UTC.
        factory: prefix length to kind of index, a FAISS factory string or a word of `IndexSpec`.
        plans: what `tune` found, by use: `query` and `classify` run theirs by default, `instance`
            finds the original of a changed copy, `adaptive` has thresholds.
        axes: how rows became stored rows, and what each choice keeps (`training/corpus_axes.py`).
        rows_dim: dims of a raw row, where that is not `dim`; 0 otherwise.
        versions: of the packages that built the index.
        files: every file of the folder; set by `write_manifest`.
        format: of the folder.
        generation: how often the index was changed.
        parts: where the rows are; empty: in one part.
        deleted: number of deleted rows.
        next_id: id of the next new item; 0: `count`.
        trained: rows with which the prefix indexes were trained; 0: `count`.
        roots: folders that `sync` walks, and how: `labels` and `hidden` of `open_source`.
        command: what made this generation.
        shard: which share of the source a part of an index holds (see `mrl_search.parts`).
        engine: where the rows are searched, as `milvus:URI#NAME`; empty: here, by FAISS.
        joined: checksum of the parts and options that `join` made it of; empty: of none.
    """

    encoder: str
    fingerprint: str
    dim: int
    dims: tuple[int, ...]
    count: int
    dtype: str
    source: str
    model: str
    classes: tuple[str, ...] = ()
    unit_heads: bool = False
    created: str = field(default_factory=now)
    factory: Mapping[str, str] = field(default_factory=dict)
    plans: Mapping[str, object] = field(default_factory=dict)
    axes: Mapping[str, object] = field(default_factory=dict)
    rows_dim: int = 0
    versions: Mapping[str, str] = field(default_factory=package_versions)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    format: int = 1
    generation: int = 0
    parts: tuple[Part, ...] = ()
    deleted: int = 0
    next_id: int = 0
    trained: int = 0
    roots: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    command: Command = field(default_factory=Command)
    shard: Shard = field(default_factory=Shard)
    engine: str = ""
    joined: str = ""

    @property
    def alive(self) -> int:
        """Number of items."""
        return self.count - self.deleted

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """Where the rows are, at least one part."""
        return self.parts or (Part("", self.count),)

    @property
    def indexed(self) -> int:
        """How many rows, the first ones, the prefix indexes have."""
        return sum(part.rows for part in self.all_parts if part.indexed)

    def place(self, name: str) -> str:
        """Where a file is in the index folder."""
        record = self.files.get(name)
        return (record.path if record else "") or name

    @property
    def own_vectors(self) -> bool:
        """Whether a user brought the vectors, so that no model here can embed a query."""
        return self.encoder == OWN_VECTORS

    @property
    def root(self) -> str:
        """The source that holds all pictures of the items; empty for own vectors."""
        part = PART.fullmatch(self.source)
        return "" if self.own_vectors else part[1] if part else self.source

    @property
    def places(self) -> tuple[str, ...]:
        """All sources that hold pictures of the items; "" for own vectors."""
        return tuple(self.roots) or (self.root,)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(record.bytes for record in self.files.values())

    def rebuild(self, folder: Path, first: str = "Remove it and") -> str:
        """The hint that names the command which builds `folder` again; `first` begins it."""
        out = shlex.quote(str(folder))
        if self.rows_dim and not self.axes:
            command = f"mrl-search shrink INDEX --dims {self.dim} --out {out}"
            return f"{first} shrink the larger index again: {command}"
        options = " with the options it had" if self.own_vectors and not self.shard else ""
        return f"{first} build it again{options}: {self.build(out)}"

    def build(self, out: str, shard: str = "") -> str:
        """The command that builds this index, or another `shard` of it, in the folder `out`."""
        part = PART.fullmatch(self.source)
        source, split = (part[1], part[2]) if part else (self.source, "")
        how = self.roots.get(source, {})
        given = {
            "--shard": shard or (str(self.shard) if self.shard else ""),
            "--items": self.shard.items, "--model": self.model,
            "--axes": self.axes.get("choice"), "--split": split, "--labels": how.get("labels"),
            "--dtype": "" if self.dtype == "float16" else self.dtype,
        }  # fmt: skip
        options = [f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value]
        hidden = " --hidden" if how.get("hidden") else ""
        return f"mrl-search build-index {shlex.quote(source)} --out {out}{''.join(options)}{hidden}"


def write_text_of(path: Path, manifest: Manifest) -> None:
    """Write a manifest as JSON."""
    values = to_mapping(manifest)
    for record in values["files"].values():
        for name in ("blocks", "path"):
            if not record[name]:
                del record[name]
    empty = [name for name in ("shard", "engine", "joined") if not getattr(manifest, name)]
    for name in (*empty, *(SECOND if manifest.format == 1 else ())):
        del values[name]
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_text(path, text, errors="backslashreplace")  # as JSON escapes them


def generation_file(folder: Path, generation: int) -> Path:
    """Where the manifest of a generation is."""
    return folder / GENERATIONS / f"{generation:06d}.json"


def restorable(folder: Path) -> list[Manifest]:
    """The last generation of each command that is kept, ascending; none for an index of format 1.

    Raises:
        IndexFolderError: a manifest is damaged.
    """
    every = [read_manifest(folder, number) for number in kept_generations(folder)]
    return list({manifest.command.began: manifest for manifest in every}.values())


def kept_generations(folder: Path) -> list[int]:
    """The generations that are there, ascending; none for an index of format 1."""
    found = (folder / GENERATIONS).glob("*.json")
    return sorted(int(path.stem) for path in found if path.stem.isdecimal())


def way_back(folder: Path, damaged: Path) -> str:
    """How to go back to a generation that does without a damaged file; empty: there is none."""
    for number in reversed(kept_generations(folder)):
        with suppress(IndexFolderError):
            m = read_manifest(folder, number)
            needed = {generation_file(folder, number), *(folder / m.place(n) for n in m.files)}
            if damaged not in needed:
                text, out = json.dumps({"format": FORMAT, "generation": number}), folder / MANIFEST
                return f"go back to generation {number}: echo '{text}' > {shlex.quote(str(out))}"
    return ""


def lease_file(folder: Path, manifest: Manifest) -> Path:
    """The file whose lease keeps the files of a manifest (see `mrl_search.leases`)."""
    if manifest.format == 1:
        return folder / VECTORS
    return generation_file(folder, manifest.generation)


def read_manifest(folder: Path, generation: int | None = None, command: str = "") -> Manifest:
    """Read the manifest of `folder`, not its other files. Unknown keys are ignored.

    It is that of the newest generation, or of another one; `command` builds it, for hints.

    Raises:
        IndexFolderError: missing, unfinished, damaged, or of a newer format.
        FileError: the system does not read it.
    """
    if generation is not None:
        path = generation_file(folder, generation)
        if not path.exists():
            known = ", ".join(map(str, kept_generations(folder))) or "none"
            raise IndexFolderError(f"{folder} has no generation {generation}.", f"It has {known}.")
        hint = f"Without it, only generation {generation} is lost: rm {shlex.quote(str(path))}"
        return manifest_of(_values(path, hint), path, hint)
    for attempt in range(TRIES):
        path = folder / MANIFEST
        general = f"mrl-search build-index SRC --out {shlex.quote(str(folder))}"
        build = f"Build one with: {command or general}"
        try:
            values = _newest(folder, path, build, command)
            if values["format"] == 1:
                return manifest_of(values, path, "")
            number = values.get("generation")
            if type(number) is not int or number < 0:
                raise IndexFolderError(f"{path} names no generation.")
            path = generation_file(folder, number)
            return manifest_of(_values(path, ""), path, "")
        except IndexFolderError as error:
            if not error.hint:  # it is damaged
                build += "" if command else " (a part: with its --shard, as mrl-search join says)"
                back = way_back(folder, path)
                error.hint = f"Copy it again, or {back}" if back else f"Remove {folder}. {build}"
            raise
        except FileError as error:  # the generation may have ended since
            if path.name == MANIFEST or not error.missing or attempt + 1 == TRIES:
                raise
    raise AssertionError


def newest_index(root: Path = Path("indexes")) -> Path:
    """The index folder in `root` that was created last; unreadable folders are passed over."""
    created = {}
    for path in root.glob(f"*/{MANIFEST}"):
        if not path.parent.name.startswith("."):
            with suppress(IndexFolderError):
                manifest = read_manifest(path.parent)
                if not manifest.shard:  # a part of an index
                    created[path.parent] = manifest.created
    if not created:
        hint = f"Build one with: mrl-search build-index SRC --out {root / 'NAME'}"
        raise IndexFolderError(f"There is no index in {root}.", hint)
    return max(created, key=lambda folder: (created[folder], folder.name))


def _values(path: Path, hint: str) -> dict[str, Any]:
    values: Any = read_json(path, IndexFolderError, hint)
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise IndexFolderError(f"{path} is not the manifest of an index.", hint)
    return values


def _newest(folder: Path, path: Path, build: str, command: str) -> dict[str, Any]:
    """What `manifest.json` has."""
    try:
        values = _values(path, "")
    except FileError as error:
        if not error.missing:
            raise
        if (folder.parent / f".{folder.name}.building").is_dir() and not folder.exists():
            again = command or "the command that builds it"
            hint = f"Embedding continues where it stopped; run again: {again}"
            raise IndexFolderError(f"{folder} is not finished yet.", hint) from error
        if folder.exists():
            raise IndexFolderError(f"{folder} is not finished: no {MANIFEST}.", build) from error
        raise IndexFolderError(f"There is no {folder}.", build) from error
    if values["format"] > FORMAT:
        message = f"{folder} has format {values['format']}; this version reads up to {FORMAT}."
        raise IndexFolderError(message, "Upgrade mrl-search, or build the index again with this.")
    return values


def manifest_of(values: dict[str, Any], path: Path, hint: str) -> Manifest:
    """A manifest from JSON that was read from `path`. Raises IndexFolderError with `hint`."""
    fields = {f.name: f for f in dataclasses.fields(Manifest)}
    for name, f in fields.items():
        if f.default is f.default_factory is dataclasses.MISSING and name not in values:
            raise IndexFolderError(f"{path} has no key {name!r}.", hint)
    records = values.get("files", {})
    if isinstance(records, dict):  # a later version may record more about a file
        values["files"] = {
            n: {key: r[key] for key in KEPT if key in r} if isinstance(r, dict) else r
            for n, r in records.items()
        }
    try:
        known = {name: value for name, value in values.items() if name in fields}
        manifest = from_mapping(Manifest, known, str(path))
    except ConfigError as error:
        raise IndexFolderError(error.message, hint) from error
    for name, record in manifest.files.items():
        part, _, own = name.rpartition("/")
        inside = not record.path or PLACE.fullmatch(record.path)
        if not is_index_file(own) or (part and not PART_NAME.fullmatch(part)) or not inside:
            raise IndexFolderError(f"{path} lists an unknown file {name!r}.", hint)
    if manifest.parts and sum(part.rows for part in manifest.parts) != manifest.count:
        raise IndexFolderError(f"{path} has parts that are not its {manifest.count:,} rows.", hint)
    if not 0 <= manifest.deleted <= manifest.count or manifest.generation < 0:
        raise IndexFolderError(f"{path} has impossible numbers of rows.", hint)
    if manifest.dtype not in DTYPES:
        message = f"{path}: dtype is {manifest.dtype!r}, not float16 or float32."
        raise IndexFolderError(message, hint)
    for dims in manifest.factory:
        if not PREFIX.fullmatch(dims):
            raise IndexFolderError(f"{path}: factory has a prefix of {dims!r} dims.", hint)
    return manifest
