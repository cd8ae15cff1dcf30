"""Damaged inputs of seven kinds, each opened as the commands open it.

    python -m torture.fuzzers KIND… [--count N] [--seconds N] [--first N] [--fault NAME]

prints a JSON object a kind. Inputs follow from their number: `--first 17 --count 1` repeats one.
"""

import argparse
import io
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from torture.faults import break_inputs
from torture.mutation import altered_bytes, altered_json, altered_text, odd_value
from torture.workers import LONGEST, survey

Check = Callable[[random.Random], object]
ROWS, DIM = 40, 16


def rows() -> np.ndarray:
    """(40, 16) float32."""
    return np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)


def pictures(folder: Path) -> Check:
    """Pictures of every format that is read, of 8 and 16 bits, with palettes and frames."""
    from mrl_search.images import decode

    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    image, deep = Image.fromarray(noise), Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    frames = [image.quantize(16), image.rotate(90).quantize(16)]
    exif = image.getexif()
    exif[0x0112] = 6
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "JPEG", {"exif": exif}), (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}), (image, "PNG", {}), (deep, "PNG", {}),
        (frames[0], "PNG", {}), (image.convert("RGBA"), "PNG", {}), (image, "WEBP", {}),
        (frames[0], "GIF", {"save_all": True, "append_images": frames[1:]}), (image, "BMP", {}),
        (image, "TIFF", {}), (image, "TIFF", {"compression": "tiff_lzw"}), (deep, "TIFF", {}),
        (image, "TIFF", {"compression": "jpeg"}), (image.convert("F"), "TIFF", {}),
        (image, "PPM", {}), (image, "JPEG2000", {}), (image, "AVIF", {}),
    ]  # fmt: skip
    seeds = []
    for picture, kind, options in made:
        if kind in Image.SAVE or (Image.init() and kind in Image.SAVE):
            file = io.BytesIO()
            picture.save(file, kind, **options)
            seeds.append(file.getvalue())

    def check(rng: random.Random) -> None:
        found, size = decode.decode(altered_bytes(rng, seeds), rng.choice((None, 16)))
        assert found.mode == "RGB" and min(size) >= 1

    return check


def arrays(folder: Path) -> Check:
    """Arrays of all versions of the format, opened and read as vectors."""
    from mrl_search.store.vector_files import open_queries, read_queries

    seeds = []
    for array in (rows(), rows()[0], rows().astype("<f2"), np.asfortranarray(rows().astype(">f8"))):
        for version in ((1, 0), (2, 0), (3, 0)):
            file = io.BytesIO()
            np.lib.format.write_array(file, array, version)
            seeds.append(file.getvalue())
    path = folder / "x.npy"

    def check(rng: random.Random) -> None:
        path.write_bytes(altered_bytes(rng, seeds))
        found = read_queries(open_queries(path))
        assert found.ndim == 2 and np.isfinite(found).all()

    return check


def manifests(folder: Path) -> Check:
    """An index with an altered manifest, opened, described and searched."""
    from mrl_search.engines.spec import IndexSpec
    from mrl_search.index import Index
    from mrl_search.store.intact import verify

    Index.from_vectors(rows(), folder / "index", spec=IndexSpec((8, 16)))
    path = folder / "index" / "manifest.json"
    text = path.read_bytes()
    value = json.loads(text)
    value["plans"] = {
        "query": {"plan": "8:20,16", "recall": 1.0},
        "adaptive": {"plan": "8:20,16", "k": 3, "thresholds": [0.5]},
    }

    def check(rng: random.Random) -> None:
        if rng.random() < 0.3:
            path.write_bytes(altered_bytes(rng, [text]))
        else:
            path.write_text(json.dumps(altered_json(rng, value)))
        index = Index.open(path.parent)
        str(index.manifest), index.manifest.rebuild(path.parent), index.manifest.nbytes
        index.search(rows()[:2], k=3)
        for dims in index.dims[:2]:
            index.search(rows()[:2], k=3, plan=dims)
        verify(path.parent)

    return check


def records(folder: Path) -> Check:
    """Records of a benchmark, read, compared and shown; every 20th time as a page with figures."""
    from mrl_search.engines.spec import IndexSpec
    from mrl_search.index import Index
    from mrl_search.measure import bench, settings
    from mrl_search.measure.compare import check_same_queries, compare
    from mrl_search.measure.queries import QuerySet
    from mrl_search.measure.records import Journal, read_run
    from mrl_search.report import plots
    from mrl_search.report.tables import run_tables
    from mrl_search.report.write import introduction, write_report
    from torture.commands import Frozen

    plots.DPI = 40
    settings.datetime = Frozen
    pq.write_table(pa.table({"label": ["a", "b"] * (ROWS // 2)}), folder / "items.parquet")
    index = Index.from_vectors(
        rows(), folder / "index", items=folder / "items.parquet", spec=IndexSpec((8, 16))
    )
    corpus, path = index.corpus, folder / "bench.jsonl"
    chosen = settings.BenchSettings(k=3, sample=30, rounds=1)
    queries = QuerySet.of_corpus(corpus, 30, chosen.seed)
    pid = os.fork()
    if pid == 0:  # no search before the workers are forked
        journal = Journal.open(path, settings.about(corpus, queries, chosen))
        bench.measure(corpus, queries, chosen, journal, lambda *_: None)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    text = path.read_bytes()
    lines = [json.loads(line) for line in text.splitlines()]
    base, altered = read_run(path), folder / "altered.jsonl"

    def check(rng: random.Random) -> None:
        if rng.random() < 0.2:
            altered.write_bytes(altered_bytes(rng, [text]))
        else:
            changed = list(lines)
            at = rng.randrange(len(lines))
            changed[at] = altered_json(rng, lines[at])
            altered.write_text("".join(json.dumps(line) + "\n" for line in changed))
        run = read_run(altered)
        check_same_queries(run, base)
        compare(run, base)
        introduction(run), run_tables(run)
        if rng.random() < 0.05:
            write_report([run], folder / "page")

    return check


def plans(folder: Path) -> Check:
    """Plans, parsed, printed, and run."""
    from mrl_search.engines.spec import IndexSpec
    from mrl_search.index import Index
    from mrl_search.search.plan import Plan

    index = Index.from_vectors(rows(), folder / "index", spec=IndexSpec((8, 16)))
    seeds = ["8", "16", "8:20,16", "8:20,12:10,16", "8:20@64,16", "exact", "auto"]
    words = [",", ":", "@", "-", "+", ".", " ", "e9", "8:", ",16", "exact", "auto", "٨", "\0", "²"]

    def check(rng: random.Random) -> None:
        text = altered_text(rng, seeds, words)
        plan = Plan.parse(text)
        assert Plan.parse(str(plan)) == plan
        index.search(rows()[:2], k=3, plan=plan)

    return check


def factories(folder: Path) -> Check:
    """Kinds of index: tried, then built and searched."""
    from mrl_search.engines import trial
    from mrl_search.engines.spec import IndexSpec
    from mrl_search.engines.trial import check_kinds
    from mrl_search.index import Index

    fork_trials(trial)
    trial.LONGEST = LONGEST - 2  # of its own it waits longer, and then refuses
    seeds = [
        "Flat", "SQ8", "SQfp16", "PQ4", "PQ8x4fs", "HNSW8", "HNSW8,SQ8", "IVF4,Flat", "IVF4,PQ4",
        "IVF4_HNSW8,SQ8", "PCA8,Flat", "OPQ4,IVF4,PQ4", "RR16,IVF4,PQ16x4fsr", "NSG8,Flat", "LSH",
        "Scan", "Panorama", "auto", "ITQ,LSH", "IDMap,Flat", "RQ2x8", "LSQ2x8", "PQ4+2",
        "L2norm,Flat", "IVF4,RaBitQ", "IVF4,Flat,RFlat", "IMI2x2,Flat", "Pad32,Flat",
        "ZnLattice2x4",
    ]  # fmt: skip
    words = [
        ",",
        "_",
        "x",
        "+",
        "0",
        "1",
        "2",
        "4",
        "8",
        "16",
        "64",
        "HNSW",
        "IVF",
        "PQ",
        "SQ",
        "Flat",
    ]
    parts = sorted({part for seed in seeds for part in seed.split(",")})

    def check(rng: random.Random) -> None:
        kind = altered_text(rng, seeds, words)
        if rng.random() < 0.3:
            kind = ",".join(rng.choice(parts) for _ in range(rng.choice((1, 2, 3))))
        dims, count = rng.choice((1, 7, 8, 16)), rng.choice((1, 3, 40, 300))
        check_kinds(IndexSpec((dims,), kind), count)
        x = np.random.default_rng(1).standard_normal((count, dims)).astype(np.float32)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            index = Index.from_vectors(x, Path(place) / "index", spec=IndexSpec((dims,), kind))
            assert len(index.search(x[:2], k=1, plan=dims)) == min(2, count)

    return check


def fork_trials(trial: Any) -> None:
    """Let trials of kinds run in forks of this process: they start in no time."""

    class Forked:
        def __init__(self, command: Any, *, input: str, timeout: float, **more: Any) -> None:
            import subprocess
            import sys

            ear, mouth = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.dup2(mouth, 1)
                sys.stdin, sys.stdout = io.StringIO(input), open(1, "w")  # noqa: SIM115
                try:
                    trial.main()
                    sys.stdout.flush()
                finally:
                    os._exit(1)
            os.close(mouth)
            end = time.monotonic() + timeout
            while not os.waitpid(pid, os.WNOHANG)[0]:
                if time.monotonic() > end:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                    raise subprocess.TimeoutExpired(command, timeout)
                time.sleep(0.001)
            with open(ear, encoding="utf-8") as answer:  # noqa: PTH123
                self.stdout = answer.read()

    trial.subprocess.run = Forked


def items(folder: Path) -> Check:
    """Tables of items: of any types, or damaged."""
    from mrl_search.progress import silent
    from mrl_search.store.items import write_items
    from mrl_search.store.own_vectors import inspect, item_columns, item_notes, item_table
    from mrl_search.store.vector_files import open_vectors

    source, path = open_vectors(rows()), folder / "items.parquet"
    found = inspect(source, False, silent)
    types = [
        pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float64(), pa.string(), pa.binary(),
        pa.large_string(), pa.string_view(), pa.bool_(), pa.date32(), pa.timestamp("ns", "UTC"),
        pa.time64("us"), pa.decimal128(10, 2), pa.list_(pa.int8()), pa.struct({"a": pa.string()}),
        pa.dictionary(pa.int8(), pa.string()), pa.null(), pa.binary(4), pa.duration("s"),
        pa.list_(pa.float32(), 2), pa.map_(pa.string(), pa.int8()), pa.large_binary(), pa.uuid(),
    ]  # fmt: skip
    names = [
        "path",
        "label",
        "labels",
        "id",
        "hash",
        "norm",
        "width",
        "height",
        "item_id",
        "a",
        "é",
        "",
    ]
    usual = pa.table({"label": ["a", "b"] * (ROWS // 2), "path": [f"{i}.jpg" for i in range(ROWS)]})
    file = io.BytesIO()
    pq.write_table(usual, file)
    seeds = [file.getvalue()]

    def column(rng: random.Random) -> pa.Array:
        kind = rng.choice(types)
        values = [odd_value(rng) for _ in range(ROWS)]
        if rng.random() < 0.7:
            values = [rng.choice((None, "a", "b", "1")) for _ in range(ROWS)]
        try:
            return pa.array(values).cast(kind) if rng.random() < 0.5 else pa.array(values, kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return pa.nulls(ROWS, kind)

    def check(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(altered_bytes(rng, seeds))
        else:
            chosen = [rng.choice(names) for _ in range(rng.choice((1, 2, 3)))]
            table = pa.Table.from_arrays([column(rng) for _ in chosen], names=chosen)
            try:
                pq.write_table(table, path)
            except (pa.ArrowException, ValueError):
                return
        item_notes(source, path)
        write_items(folder, item_table(item_columns(source, path), found))

    return check


FUZZERS: dict[str, Callable[[Path], Check]] = {
    "pictures": pictures, "arrays": arrays, "manifests": manifests, "records": records,
    "plans": plans, "factories": factories, "items": items,
}  # fmt: skip


def fuzz(kind: str, options: argparse.Namespace) -> dict[str, object]:
    """Try inputs of a kind."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TORTURE")) as folder:
        check = FUZZERS[kind](Path(folder).resolve())
        if options.fault:
            break_inputs(kind, options.fault)
        found = survey(
            lambda i: check(random.Random(f"{kind} {i}")), options.count, options.seconds,
            options.first, options.longest,
        )  # fmt: skip
    return {
        "kind": "inputs", "what": kind, "tried": found.tried, "refused": found.refused,
        **found.bad, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=list(FUZZERS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1e9, help="for each kind")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--longest", type=float, default=LONGEST, help="seconds of an input")
    parser.add_argument("--fault", help="put in on purpose; see faults.py")
    options = parser.parse_args()
    for kind in options.kinds or FUZZERS:
        found = fuzz(kind, options)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
