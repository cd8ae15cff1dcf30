"""The write points of a command: every call that changes the disk, counted, failed or killed at.

A write point is a file opened for writing, a write, a flush to the disk, a new name, a removed
name, or a cut. Only those under one folder count. Install a `Seam` in a process of its own.
"""

import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from mrl_search import files

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NAMES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
TAKE_SPACE = ("open", "write", "fsync", "os.mkdir")  # a disk that is full stays full for these


class Seam:
    """Counts write points under `folder`, and acts at number `at`.

    There it raises `OSError(number)`, or with number 0 it ends the process by SIGKILL. At a write,
    a `share` of the data is written before.

    Attributes:
        passed: kind and path of each write point so far.
        whole: SHA-256 of every content that was renamed to a path.
    """

    def __init__(self, folder: Path, at: int = 0, number: int = 0, share: float = 0.5) -> None:
        self.folder, self.at, self.number, self.share = f"{folder}{os.sep}", at, number, share
        self.passed: list[tuple[str, str]] = []
        self.whole: dict[str, set[str]] = {}
        self._handles: dict[int, str] = {}

    def reach(self, kind: str, path: Any, part: Callable[[], object] | None = None) -> None:
        """Pass a write point; `part` does its share of it."""
        path = self._handles.get(path, os.devnull) if isinstance(path, int) else path
        path = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - Path asks for the system's
        if not path.startswith(self.folder):
            return
        self.passed.append((kind, path))
        now = len(self.passed)
        if now == self.at or (self.number and self.at and now > self.at and kind in TAKE_SPACE):
            if part and now == self.at:
                part()
            if not self.number:
                os.kill(os.getpid(), signal.SIGKILL)
            name = () if kind in ("write", "fsync") else (path,)
            raise OSError(self.number, os.strerror(self.number), *name)

    def install(self, output: Path) -> io.TextIOWrapper:
        """Lead all writes of this process through this seam, for good; the file for its output."""
        plain_open, plain_io, seam = os.open, io.open, self

        class File(io.FileIO):
            def write(self, data: Any) -> int | None:
                view, write = memoryview(data).cast("B"), super().write
                seam.reach("write", self.name, lambda: write(view[: int(len(view) * seam.share)]))
                return write(view)

            def truncate(self, size: int | None = None) -> int:
                seam.reach("cut", self.name)
                return super().truncate(size)

        class OwnFile(File, files._OwnFile):
            pass

        def os_open(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & WRITES:
                seam.reach("open", path)
            handle = plain_open(path, flags, *args, **more)
            seam._handles[handle] = os.fsdecode(path)
            return handle

        def io_open(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if not set(mode) & set("wax+") or more.get("opener"):
                return plain_io(file, mode, *args, **more)
            if not isinstance(file, int):
                seam.reach("open", file)
            raw = File(file, mode.replace("b", "").replace("t", ""))
            if not isinstance(file, int):
                seam._handles[raw.fileno()] = os.fsdecode(file)
            buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffer if "b" in mode else io.TextIOWrapper(buffer)

        def fsync(file: Any) -> None:
            handle = file if isinstance(file, int) else file.fileno()
            seam.reach("fsync", handle)  # and no more: a kill leaves to the system what it has

        def audit(event: str, args: tuple[Any, ...]) -> None:
            if event in NAMES:
                seam.reach(event, args[0])
                if event == "os.rename" and Path(args[0]).is_file():
                    digest = sha256(Path(args[0]).read_bytes()).hexdigest()
                    new = os.path.abspath(os.fsdecode(args[1]))  # noqa: PTH100
                    seam.whole.setdefault(new, set()).add(digest)

        os.open, os.fsync, io.open, builtins.open = os_open, fsync, io_open, io_open
        files._OwnFile = OwnFile
        sys.addaudithook(audit)
        return io.TextIOWrapper(io.BufferedWriter(File(output, "w")))
