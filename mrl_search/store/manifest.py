"""The manifest of an index folder: what is in it, what made it, and whether it is still whole.

`manifest.json` is written last, so its presence means that the folder is complete.
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

from mrl_search.errors import ConfigError, IndexFolderError
from mrl_search.files import checksum, write_atomically
from mrl_search.mapping import from_mapping, to_mapping

__all__ = [
    "CODES", "FORMAT", "HEADS", "ITEMS", "MANIFEST", "OWN_VECTORS", "ROTATION", "SKIPPED", "STEPS", "SUFFIX", "VECTORS", "FileRecord",
    "Manifest", "check_file", "manifest_text", "package_versions", "prefix_file", "read_manifest", "store_plan", "verify", "write_manifest",
]  # fmt: skip

FORMAT = 1
MANIFEST, VECTORS, ITEMS, HEADS, SKIPPED = (
    "manifest.json",
    "vectors.npy",
    "items.parquet",
    "heads.safetensors",
    "skipped.json",
)
ROTATION, SUFFIX, CODES, STEPS = (
    "rotation.npy",
    "suffix-norms.npy",
    "sieve-codes.npy",
    "sieve-steps.npy",
)
OWN_VECTORS = "own vectors"  # in place of an encoder's name
PART = re.compile(
    r"(.+) \((train|validation) part\)"
)  # of a source, as `workflow.part_of` names it
DTYPES = ("float16", "float32")
PREFIX = re.compile(r"[1-9][0-9]*")  # its length, as a key of JSON
PREFIX_FILE = re.compile(r"prefix-\d{4,}\.faiss")
CHECKED_AT_OPEN = (
    256 << 20
)  # bytes; hashing this much takes well under 0.1 s, a larger file is hashed by `verify` alone
PACKAGES = ("mrl-search", "numpy", "pyarrow", "faiss-cpu", "torch", "torchvision", "pillow")


def prefix_file(dims: int) -> str:
    """Name of the FAISS index of one prefix length."""
    return f"prefix-{dims:04d}.faiss"


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what an index holds, as installed here; none is imported."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file as it was written: its length in bytes and its XXH3-128 in hex."""

    bytes: int
    xxh3: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index folder is.

    Attributes:
        encoder: name of the model that made the vectors; `own vectors` for those that a user brought.
        fingerprint: of that model's weights and preprocessing; a query must come from the same. Of own vectors: of their content.
        dim: length of the stored vectors.
        dims: prefix lengths, ascending; those in `factory` can begin a plan.
        count: number of items.
        dtype: of the stored vectors, `float16` or `float32`.
        source: where the images came from, as given to `build-index`.
        model: the --model argument that opens the encoder again; empty for own vectors.
        classes: class names in the order of the linear heads; may be empty.
        unit_heads: whether the heads read prefixes of unit length; else they read the raw ones, of which `norm` is the length.
        normalisation: `l2`: rows of unit length.
        created: ISO 8601, UTC.
        factory: prefix length to FAISS factory string.
        plans: tuned plans by what they are for, what `mrl-search tune` found and measured: `query` and `classify` use theirs by default,
            `instance` finds the original of a changed copy.
        rows_dim: length of the rows that queries come with, where it is not `dim`: an index that was shrunk has it. 0: `dim`.
        versions: of the packages that built it.
        files: every file of the folder, filled in by `write_manifest`.
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
    normalisation: str = "l2"
    created: str = field(default_factory=_now)
    factory: Mapping[str, str] = field(default_factory=dict)
    plans: Mapping[str, object] = field(default_factory=dict)
    rows_dim: int = 0
    versions: Mapping[str, str] = field(default_factory=package_versions)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def own_vectors(self) -> bool:
        """Whether a user brought the vectors: no model here can embed a query for them."""
        return self.encoder == OWN_VECTORS

    def rebuild(self, folder: Path) -> str:
        """The hint that says how `folder` is made again."""
        if self.rows_dim:
            return f"Remove it and shrink the larger index again: mrl-search shrink INDEX --dims {self.dim} --out {shlex.quote(str(folder))}"
        part = PART.fullmatch(self.source)
        source, split = (part[1], f" --split {part[2]}") if part else (self.source, "")
        model = "" if self.model in ("bundled", "") else f" --model {shlex.quote(self.model)}"
        lost = (
            ", with what other options it had (--items, --rotate, --dims, …)"
            if self.own_vectors
            else ""
        )
        command = f"mrl-search build-index {shlex.quote(source)} --out {shlex.quote(str(folder))}{model}{split}"
        return f"Remove it and rebuild{lost} with: {command}"


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Record the index files that lie in `folder` and write `manifest.json`: the folder is complete from then on.

    Returns:
        the manifest as written, with `files`.

    Raises:
        IndexFolderError: vectors or items are not there.
        MrlSearchError: the disk is full.
    """
    known = (VECTORS, ITEMS, HEADS, SKIPPED, ROTATION, SUFFIX, CODES, STEPS)
    names = sorted(
        p.name for p in folder.iterdir() if p.name in known or PREFIX_FILE.fullmatch(p.name)
    )
    for name in (VECTORS, ITEMS):
        if name not in names:
            raise IndexFolderError(
                f"{folder} has no {name} yet: it is not complete.", manifest.rebuild(folder)
            )
    files = {
        name: FileRecord((folder / name).stat().st_size, checksum(folder / name)) for name in names
    }
    manifest = dataclasses.replace(manifest, files=files)
    _write(folder, manifest)
    return manifest


def store_plan(folder: Path, name: str, plan: Mapping[str, object]) -> None:
    """Keep a tuned plan in the manifest of a complete folder; its other files stay as they are.

    Raises:
        IndexFolderError: as `read_manifest`.
        MrlSearchError: the manifest cannot be written.
    """
    manifest = read_manifest(folder)
    _write(folder, dataclasses.replace(manifest, plans={**manifest.plans, name: dict(plan)}))


def _write(folder: Path, manifest: Manifest) -> None:
    with write_atomically(folder / MANIFEST) as path:
        path.write_bytes(manifest_text(manifest))


def manifest_text(manifest: Manifest) -> bytes:
    """What `manifest.json` holds."""
    return (json.dumps(to_mapping(manifest), indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """Read what `folder` says it is; its files are not looked at. Keys that this version does not know are passed over.

    Raises:
        IndexFolderError: not there, unfinished, not readable, or of a newer format.
    """
    path = folder / MANIFEST
    build = f"Build one with: mrl-search build-index SRC --out {shlex.quote(str(folder))}"
    if not path.is_file():
        if (folder.parent / f".{folder.name}.building").is_dir() and not folder.exists():
            raise IndexFolderError(
                f"{folder} is not finished yet.",
                "Run the command that makes it again; embedding goes on where it stopped.",
            )
        problem = (
            f"{folder} is not an index, or not a finished one: it has no {MANIFEST}."
            if folder.exists()
            else f"There is no {folder}."
        )
        raise IndexFolderError(problem, build)
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IndexFolderError(
            f"{path} cannot be read: {error}.", f"Remove {folder}. {build}"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise IndexFolderError(f"{path} is not the manifest of an index.", build)
    if values["format"] > FORMAT:
        raise IndexFolderError(
            f"{folder} has format {values['format']}; this version of mrl-search reads up to {FORMAT}.",
            "Upgrade mrl-search, or build the index again with this version.",
        )
    return _manifest_of(values, path, build)


def _manifest_of(values: dict[str, Any], path: Path, hint: str) -> Manifest:
    fields = {f.name: f for f in dataclasses.fields(Manifest)}
    required = [
        name for name, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING
    ]
    absent = [name for name in required if name not in values]
    if absent:
        raise IndexFolderError(f"{path} does not say {absent[0]!r}.", hint)
    records = values.get("files", {})
    if isinstance(records, dict):  # a later version may say more about a file, too
        values["files"] = {
            n: {"bytes": r.get("bytes"), "xxh3": r.get("xxh3")} if isinstance(r, dict) else r
            for n, r in records.items()
        }
    try:
        manifest = from_mapping(
            Manifest, {name: value for name, value in values.items() if name in fields}, str(path)
        )
    except ConfigError as error:
        raise IndexFolderError(error.message, hint) from error
    if manifest.dtype not in DTYPES:
        raise IndexFolderError(f"{path}: dtype cannot be {manifest.dtype!r}.", hint)
    for dims in manifest.factory:
        if not PREFIX.fullmatch(dims):
            raise IndexFolderError(f"{path}: factory cannot have a prefix of {dims!r} dims.", hint)
    return manifest


def check_file(folder: Path, manifest: Manifest, name: str, *, thorough: bool = False) -> Path:
    """Check that a file of the folder is as it was written, and return its path.

    The length is always compared, the checksum for files up to 256 MB, or for any with `thorough`.

    Raises:
        IndexFolderError: the file is not recorded, missing, cut short, or altered.
    """
    path, record = folder / name, manifest.files.get(name)
    if record is None or not path.is_file():
        raise IndexFolderError(f"{path} is missing.", manifest.rebuild(folder))
    size = path.stat().st_size
    if size < record.bytes:
        raise IndexFolderError(
            f"{path} is cut short: {size:,} bytes of {record.bytes:,}.", manifest.rebuild(folder)
        )
    if size > record.bytes:
        raise IndexFolderError(
            f"{path} was altered: {size:,} bytes instead of {record.bytes:,}.",
            manifest.rebuild(folder),
        )
    if (thorough or size <= CHECKED_AT_OPEN) and checksum(path) != record.xxh3:
        raise IndexFolderError(
            f"{path} was altered since it was written: its checksum differs.",
            manifest.rebuild(folder),
        )
    return path


def verify(folder: Path) -> Manifest:
    """Check every byte of the folder's files against the manifest, which is returned.

    Raises:
        IndexFolderError: as `read_manifest` and `check_file`.
    """
    manifest = read_manifest(folder)
    for name in sorted(manifest.files):
        check_file(folder, manifest, name, thorough=True)
    return manifest
