"""The manifest of an index folder: its content, what made it, and checksums of its files.

`manifest.json` is written last: where it exists, the folder is complete.
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from mrl_search.errors import ConfigError, FileError, IndexFolderError
from mrl_search.files import checksum, claim, reading, write_text
from mrl_search.mapping import from_mapping, read_json, to_mapping
from mrl_search.store.blocks import encoded

__all__ = [
    "CENTRE", "CODES", "FORMAT", "HEADS", "ITEMS", "MANIFEST", "OWN_VECTORS", "ROTATION", "SKIPPED",
    "STEPS", "SUFFIX", "VECTORS", "FileRecord", "Manifest", "check_file", "damaged",
    "is_index_file", "now", "package_versions", "prefix_file", "read_manifest", "store_plan",
    "verify", "write_manifest",
]  # fmt: skip

FORMAT = 1
MANIFEST, VECTORS, ITEMS = "manifest.json", "vectors.npy", "items.parquet"
HEADS, SKIPPED, ROTATION = "heads.safetensors", "skipped.json", "rotation.npy"
CENTRE = "centre.npy"
SUFFIX, CODES, STEPS = "suffix-norms.npy", "sieve-codes.npy", "sieve-steps.npy"
KNOWN = (VECTORS, ITEMS, HEADS, SKIPPED, ROTATION, CENTRE, SUFFIX, CODES, STEPS)
OWN_VECTORS = "own vectors"  # in place of an encoder's name
PART = re.compile(r"(.+) \((train|validation) part\)")  # the name of a part of a source
DTYPES = ("float16", "float32")
WAIT = 30.0  # seconds for another process that stores a plan
KEPT = ("bytes", "xxh3", "blocks")  # of a file's record
PREFIX = re.compile(r"[1-9][0-9]*")  # a prefix length as a JSON key
PREFIX_FILE = re.compile(r"prefix-\d{4,}\.faiss")
CHECKED_AT_OPEN = 256 << 20  # bytes; of larger vectors a block is checked when it is first read
PACKAGES = ("mrl-search", "numpy", "pyarrow", "faiss-cpu", "torch", "torchvision", "pillow")


def prefix_file(dims: int) -> str:
    """File name of the FAISS index of one prefix length."""
    return f"prefix-{dims:04d}.faiss"


def is_index_file(name: str) -> bool:
    """Whether a file of this name, beside the manifest, belongs to an index folder."""
    return name in KNOWN or PREFIX_FILE.fullmatch(name) is not None


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that decide what an index holds; none is imported."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was written.

    Attributes:
        bytes: its size.
        xxh3: its XXH3-128, in hex.
        blocks: checksums of the blocks of large vectors (see `mrl_search.store.blocks`).
    """

    bytes: int
    xxh3: str
    blocks: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of an index folder.

    Attributes:
        encoder: name of the model that made the vectors, or `own vectors`.
        fingerprint: of the model's weights and preprocessing; of own vectors: of their content.
        dim: dims of the stored vectors.
        dims: prefix lengths, ascending; those in `factory` can begin a plan.
        count: number of items.
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
    format: int = FORMAT

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
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(record.bytes for record in self.files.values())

    def rebuild(self, folder: Path, first: str = "Remove it and") -> str:
        """The hint that names the command which builds `folder` again; `first` begins it."""
        out = shlex.quote(str(folder))
        if self.rows_dim and not self.axes:
            command = f"mrl-search shrink INDEX --dims {self.dim} --out {out}"
            return f"{first} shrink the larger index again: {command}"
        part = PART.fullmatch(self.source)
        source, split = (part[1], f" --split {part[2]}") if part else (self.source, "")
        model = f" --model {shlex.quote(self.model)}" if self.model else ""
        choice = self.axes.get("choice")
        model += f" --axes {shlex.quote(str(choice))}" if choice else ""
        options = " with the options it had" if self.own_vectors else ""
        command = f"mrl-search build-index {shlex.quote(source)} --out {out}{model}{split}"
        return f"{first} build it again{options}: {command}"


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Record the index files in `folder` and write `manifest.json`: the folder is then complete.

    Returns:
        the manifest as written, with `files`.
    """
    present = sorted(path.name for path in folder.iterdir())
    names = [name for name in present if is_index_file(name)]
    for name in (VECTORS, ITEMS):
        if name not in names:
            raise IndexFolderError(f"{folder} has no {name}.", manifest.rebuild(folder))
    files = {name: _record(folder / name) for name in names}
    manifest = dataclasses.replace(manifest, files=files)
    _write(folder, manifest)
    return manifest


def _record(path: Path) -> FileRecord:
    size, blocks = path.stat().st_size, list[int]()
    if path.name == VECTORS and size > CHECKED_AT_OPEN:
        return FileRecord(size, checksum(path, blocks), encoded(blocks))
    return FileRecord(size, checksum(path))


def store_plan(
    folder: Path, use: str, plan: Mapping[str, object], measured: Manifest | None = None
) -> Manifest:
    """Keep a tuned plan in the manifest of a complete folder; its other files stay as they are.

    The folder is claimed meanwhile, so that plans which two processes store are both kept.

    Args:
        folder: the index folder.
        use: what the plan is for.
        plan: the plan, and how it was found.
        measured: the manifest of the index that the plan was tuned for; default: any.

    Returns:
        the manifest as written.

    Raises:
        IndexFolderError: another index has taken the place of the measured one.
        FileError: the manifest cannot be read or written.
    """
    with claim(folder, wait=WAIT):
        manifest = read_manifest(folder)
        if measured is not None and manifest.files != measured.files:
            message = f"{folder} was replaced while it was tuned; the plan was not stored."
            raise IndexFolderError(message, f"Tune it again: mrl-search tune {folder}")
        manifest = dataclasses.replace(manifest, plans={**manifest.plans, use: dict(plan)})
        _write(folder, manifest)
    return manifest


def _write(folder: Path, manifest: Manifest) -> None:
    values = to_mapping(manifest)
    for record in values["files"].values():
        if not record["blocks"]:
            del record["blocks"]
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_text(folder / MANIFEST, text, errors="backslashreplace")  # as JSON escapes them


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of `folder`, not its other files. Unknown keys are ignored.

    Raises:
        IndexFolderError: missing, unfinished, damaged, or of a newer format.
        FileError: the system does not read it.
    """
    path = folder / MANIFEST
    build = f"Build one with: mrl-search build-index SRC --out {shlex.quote(str(folder))}"
    try:
        values: Any = read_json(path, IndexFolderError, f"Remove {folder}. {build}")
    except FileError as error:
        if not error.missing:
            raise
        if (folder.parent / f".{folder.name}.building").is_dir() and not folder.exists():
            hint = "Run the command that builds it again; embedding continues where it stopped."
            raise IndexFolderError(f"{folder} is not finished yet.", hint) from error
        if folder.exists():
            message = f"{folder} is not a finished index: no {MANIFEST}."
            raise IndexFolderError(message, build) from error
        raise IndexFolderError(f"There is no {folder}.", build) from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise IndexFolderError(f"{path} is not the manifest of an index.", build)
    if values["format"] > FORMAT:
        message = f"{folder} has format {values['format']}; this version reads up to {FORMAT}."
        hint = "Upgrade mrl-search, or build the index again with this version."
        raise IndexFolderError(message, hint)
    return _manifest_of(values, path, build)


def _manifest_of(values: dict[str, Any], path: Path, hint: str) -> Manifest:
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
    for name in manifest.files:
        if not is_index_file(name):
            raise IndexFolderError(f"{path} lists an unknown file {name!r}.", hint)
    if manifest.dtype not in DTYPES:
        message = f"{path}: dtype is {manifest.dtype!r}, not float16 or float32."
        raise IndexFolderError(message, hint)
    for dims in manifest.factory:
        if not PREFIX.fullmatch(dims):
            raise IndexFolderError(f"{path}: factory has a prefix of {dims!r} dims.", hint)
    return manifest


def check_file(folder: Path, manifest: Manifest, name: str, *, thorough: bool = False) -> Path:
    """Check that a file of the folder is as it was written, and return its path.

    Its size and its checksum are compared. Vectors of over 256 MB are hashed with `thorough` alone:
    their blocks are checked when they are first read (see `mrl_search.store.blocks`).

    Raises:
        IndexFolderError: the file is not recorded, missing, cut short, or altered; or the index
            was replaced since `manifest` was read.
        FileError: the system does not read it.
    """
    path, record = folder / name, manifest.files.get(name)
    if record is None:
        raise damaged(folder, manifest, f"{path} is missing.", "Copy it again, or")
    try:
        with reading(path):
            size = path.stat().st_size
            small = name != VECTORS or size <= CHECKED_AT_OPEN
            hashed = size == record.bytes and (thorough or small)
            altered = hashed and checksum(path) != record.xxh3
    except FileError as error:
        if not error.missing:
            raise
        raise damaged(folder, manifest, f"{path} is missing.", "Copy it again, or") from error
    if size != record.bytes:
        damage = "is cut short" if size < record.bytes else "was altered"
        what = f"{path} {damage}: {size:,} bytes, not {record.bytes:,}."
        raise damaged(folder, manifest, what)
    if altered:
        raise damaged(folder, manifest, f"{path} was altered: its checksum differs.")
    return path


def damaged(
    folder: Path, manifest: Manifest, message: str, first: str = "Remove it and"
) -> IndexFolderError:
    """The error for a file that does not fit `manifest`: damage, or another index by now.

    `first` begins the hint (see `Manifest.rebuild`).
    """
    try:
        replaced = read_manifest(folder).files != manifest.files
    except IndexFolderError:
        replaced = True
    if replaced:
        message = f"{folder} was replaced or removed while it was open."
        return IndexFolderError(message, "Open it again.")
    return IndexFolderError(message, manifest.rebuild(folder, first))


def verify(folder: Path) -> Manifest:
    """Check every byte of the folder's files against the manifest, which is returned."""
    manifest = read_manifest(folder)
    for name in sorted(manifest.files):
        check_file(folder, manifest, name, thorough=True)
    return manifest
