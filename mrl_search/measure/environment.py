"""Where something was measured: processor, system, versions and commit."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrl_search.encoders.base import Encoder
from mrl_search.errors import DataError
from mrl_search.provenance import commit, maker, package_versions

__all__ = ["check_clean", "environment", "provenance", "same_machine"]

MACHINE = ("machine", "cpu", "cores", "os")  # equal in two environments: the same machine


def environment() -> dict[str, Any]:
    """Processor, system, package versions, and the commit of this package if it is a clone."""
    system = platform.uname()
    return {
        "machine": system.machine,
        "cpu": _cpu() or system.processor or system.machine,
        "cores": os.cpu_count(),
        "os": f"{system.system} {system.release}",
        "python": platform.python_version(),
        "versions": package_versions(),
        "commit": commit(),
    }


def provenance(encoder: Encoder) -> dict[str, Any]:
    """What a record needs to name its maker: model, fingerprint, date, versions and commit."""
    return {"model": encoder.name, "fingerprint": encoder.fingerprint, **maker()}


def check_clean(commit: str | None, where: object) -> None:
    """Refuse records of code that no commit holds; those without a commit are older than this.

    Raises:
        DataError: the commit ends with `-dirty`.
    """
    if commit is not None and commit.endswith("-dirty"):
        message = f"{where} has records of uncommitted code, {commit}."
        raise DataError(message, "Commit, and measure again.")


def same_machine(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two environments seem to be of one machine."""
    return all(a.get(name) == b.get(name) for name in MACHINE)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
