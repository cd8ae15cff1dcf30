"""Commands of `mrl-search` that write, on a place of a dozen pictures, each in a forked process.

Clocks are replaced by a counter: the same command writes the same bytes.
"""

import contextlib
import importlib
import io
import itertools
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from command_line import write_pictures
from fakes import FakeEncoder

from torture.points import Seam

LONGEST = 60  # seconds of a command

RECIPE = """
[model]
widths = [8, 8, 16, 16]
dims = [8, 16]
[data]
validation = 0.2
[schedule]
epochs = 2
batch = 8
precision = "no"
sizes = { "0" = 32 }
"""
PICTURE, OTHER = "pictures/cat/cat-0000.png", "pictures/cat/cat-0001.png"
SETUP = (
    "build-index pictures --out index",
    "build-index pictures --out sure --dims 8,64",
    "build-index pictures --shard 1/2 --out part-1",
    "build-index pictures --shard 2/2 --out part-2",
    "tune sure --objective adaptive -k 3",
    "bench sure --out done.jsonl --rounds 1 -k 3",
    "build-index pictures --out there --dims 8 --engine milvus:../lite.db#there",
)
LITE = "lite.db"  # beside the place: how Milvus Lite writes is not looked at
SHOWN = ("run", "prefix", "plan", "latency", "mislabels", "done")  # kinds of records
COMMANDS = {
    "build-index, pictures": "build-index pictures --out new",
    "build-index, vectors": (
        "build-index vectors.npy --items items.parquet --rotate pca --out new --factory 8=HNSW8"
    ),
    "build-index, part": "build-index pictures --shard 2/2 --out new",
    "join": "join part-2 part-1 --out new --axes pca",
    "tune": "tune index --queries 20 -k 3 --plot plans.png",
    "tune, thresholds": "tune index --objective adaptive -k 3",
    "shrink": "shrink index --dims 16 --out small --yes",
    "copy, to Milvus": "copy index --to milvus:../lite.db#new",
    "copy, from Milvus": "copy milvus:../lite.db#there --to new",
    "train": "train pictures --recipe tiny.toml --out run",
    "evaluate": "evaluate pictures --index index -k 3 --json",
    "bench": "bench sure --out bench.jsonl --rounds 1 -k 3",
    "report": "report done.jsonl --out page",
    "duplicates, script": "duplicates index --keep *dog* --script remove.sh",
    "duplicates, decision": f"duplicates index --not-duplicate {PICTURE} --not-duplicate {OTHER}",
    "query, sheet": f"query {PICTURE} --index index --sheet sheet.png",
    "classify": f"classify {PICTURE} --index sure -k 3 --adaptive",
}


class Frozen(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1, tzinfo=tz)


def import_everything() -> None:
    """Import what most commands import, so that a fork can start at once; make nothing parallel."""
    import torch

    from mrl_search import building, mirror, provenance
    from mrl_search.cli.app import app
    from mrl_search.encoders import registry
    from mrl_search.engines.spec import IndexSpec
    from mrl_search.engines.trial import check_kinds
    from mrl_search.images import base, decode
    from mrl_search.measure import settings
    from mrl_search.report import lettering, plots

    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        app(["--help"])
    decode.formats(), lettering.drawable("a")  # are remembered
    plots.DPI = 40
    check_kinds(IndexSpec((8,), "HNSW8"), 60)  # is remembered
    building.CLUSTERED_FROM = 50  # so that a sieve is written, too
    registry.load_encoder = lambda model, *_: FakeEncoder()
    mirror.secrets = SimpleNamespace(token_hex=lambda size: "f00d" * (size // 2))
    ticks, sleep = itertools.count(), time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # pymilvus waits for half a second
    time.perf_counter = lambda: next(ticks) / 1000
    provenance.datetime = settings.datetime = Frozen
    base.FileStamp.values = staticmethod(lambda found: (found.st_size, 0, 0))


def make_place(place: Path) -> None:
    """Write what the commands read."""
    shutil.rmtree(place, ignore_errors=True)
    write_pictures(place / "pictures", 12)
    (place / "tiny.toml").write_text(RECIPE)
    np.save(place / "vectors.npy", np.random.default_rng(0).standard_normal((60, 16), np.float32))
    pq.write_table(pa.table({"label": ["a", "b", "c"] * 20}), place / "items.parquet")
    for command in SETUP:
        code, shown = run(command, place, Seam(place))
        assert code == 0, (command, shown)
    lines = (place / "done.jsonl").read_text().splitlines(keepends=True)
    shown = (line for line in lines if json.loads(line)["kind"] in SHOWN)
    (place / "done.jsonl").write_text("".join(shown))  # fewer figures are drawn
    (place / "out.txt").write_text("")


def run(command: str, place: Path, seam: Seam, report: Path | None = None) -> tuple[int, str]:
    """Run a command with `place` as its folder: exit code, or minus the signal, and stderr.

    Its output goes to `out.txt`, which is on the disk that fails. `report` gets what `seam` saw.
    What a command imports is imported here, too: the next one need not.
    """
    errors, imported = place.with_suffix(".stderr"), place.with_suffix(".imported")
    pid = os.fork()
    if pid == 0:
        code = _work(command.split(), place, seam, errors)
        if code == 0:
            imported.write_text("\n".join(sys.modules))
        if report:
            seen = {path: sorted(digests) for path, digests in seam.whole.items()}
            report.write_text(json.dumps([seam.passed, seen]))
        os._exit(code)
    deadline = time.monotonic() + LONGEST
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGALRM)
            ended = os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    if imported.exists():
        for name in imported.read_text().split("\n"):
            if name not in sys.modules:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
        imported.unlink()
    return os.waitstatus_to_exitcode(ended[1]), errors.read_text(errors="replace")


def _draw_once(drawn: Path) -> None:
    """Keep in `drawn` what figures look like: the next process need not draw them again."""
    from matplotlib.figure import Figure, Text

    plain = Figure.savefig
    drawn.mkdir(exist_ok=True)

    def savefig(figure: Figure, file: BinaryIO, **how: object) -> None:
        texts = "\n".join(text.get_text() for text in figure.findobj(Text))
        kept = drawn / sha256(texts.encode()).hexdigest()
        if not kept.exists():
            plain(figure, kept, **how)
        data = kept.read_bytes()
        for part in (data[:41], data[41:-16], data[-16:]):  # as Pillow writes it
            file.write(part)

    Figure.savefig = savefig


def _work(args: Sequence[str], place: Path, seam: Seam, errors: Path) -> int:
    """The child of `run`: the exit code."""
    from mrl_search.cli.app import app

    _draw_once(place.with_suffix(".drawn"))
    os.chdir(place)
    sys.stderr = errors.open("w", buffering=1)
    try:
        sys.stdout = seam.install(place / "out.txt")
        try:
            app(args, prog_name="mrl-search")
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        if not sys.stdout.closed:
            sys.stdout.flush()
        return code
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        return 70
    finally:
        sys.stderr.flush()
