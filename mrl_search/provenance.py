"""Who made a file: date, package versions and commit, for manifests, models and records."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["commit", "maker", "now", "package_versions"]

PACKAGES = ("mrl-search", "numpy", "pyarrow", "faiss-cpu", "torch", "torchvision", "pillow")


def maker() -> dict[str, Any]:
    """Date, versions and commit, by the names that records have."""
    return {"created": now(), "versions": package_versions(), "commit": commit()}


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that decide what an index holds; none is imported."""
    from importlib import metadata  # slow

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


def commit() -> str | None:
    """Short hash of the commit, with `-dirty` after changes; None outside a clone."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    command = ["git", "-C", str(root), *describe]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
