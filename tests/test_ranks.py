"""Processes of `accelerate launch` that embed together: the index of one process, kills too."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import write_pictures
from fakes import FakeEncoder, ListSource

import mrl_search as mrl
from mrl_search.encoders.embed import BATCH
from mrl_search.encoders.network_encoder import device_of
from mrl_search.encoders.ranks import Ranks, launched
from mrl_search.index import Index

LAUNCHERS = {  # with --cpu alone, `accelerate launch` starts one process
    "accelerate": ("accelerate.commands.launch", (
        "--multi_gpu", "--num_processes={}", "--num_machines=1", "--main_process_port=0",
        "--mixed_precision=no", "--dynamo_backend=no",
    )),
    "torchrun": ("torch.distributed.run", ("--standalone", "--nproc-per-node={}")),
}  # fmt: skip
ALONE = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
DRIVER = """
import json, os, sys, time
sys.path[:0] = [{tests!r}]
from pathlib import Path
from fakes import FakeEncoder
from mrl_search.encoders import registry
from mrl_search.store import writer

class Slow(FakeEncoder):
    def encode(self, pictures):
        time.sleep({pause})
        return super().encode(pictures)

encoder = Slow()
registry.load_encoder = lambda *_: encoder
writer.COMMIT = 64
rank = os.environ["RANK"]
Path({place!r}, "pid-" + rank).write_text(str(os.getpid()))
from mrl_search.cli.app import app
try:
    app(sys.argv[1:])
finally:
    Path({place!r}, "embedded-" + rank).write_text(str(sum(encoder.batches)))
"""


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("start", [0, 10, 640])
def test_batches_in_turn_are_all_batches_in_order(count: int, start: int) -> None:
    total, found = 1000, []
    ranks = [Ranks(rank, count) for rank in range(count)]
    rows = [list(rank._rows(start, total)) for rank in ranks]
    for turn in range(ranks[0]._rounds(start, total)):
        for own in rows:
            found += own[turn * BATCH : (turn + 1) * BATCH]
    assert found == list(range(start, total))


def test_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALONE:
        monkeypatch.delenv(name, raising=False)
    assert launched() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # as a job of a scheduler may
    assert launched() == (0, 1)
    with Ranks.here() as ranks:
        assert ranks.first and ranks.count == 1
        source = ListSource([b""] * 3)
        (batch,) = ranks.embed(source, FakeEncoder(), 1)
    assert [entry.path for entry in batch.entries] == ["image 1", "image 2"]


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for local, device in (("0", "cuda"), ("1", "cuda:1"), ("2", "cuda")):
        monkeypatch.setenv("LOCAL_RANK", local)
        assert device_of() == torch.device(device)
    monkeypatch.delenv("LOCAL_RANK")
    assert device_of() == torch.device("cuda")


def launch(
    launcher: str, place: Path, processes: int, pause: float, *args: object
) -> subprocess.Popen[str]:
    """Start `mrl-search` with `args` in so many processes, with an encoder that takes its time."""
    script = place / "driver.py"
    tests = str(Path(__file__).parent)
    script.write_text(DRIVER.format(tests=tests, place=str(place), pause=pause))
    module, options = LAUNCHERS[launcher]
    told = [option.format(processes) for option in options]
    command = [sys.executable, "-m", module, *told, str(script)]
    env = {k: v for k, v in os.environ.items() if k not in ALONE} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *map(str, args)], env=env, cwd=place, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def embedded(place: Path, processes: int) -> list[int]:
    return [int((place / f"embedded-{rank}").read_text()) for rank in range(processes)]


def assert_same(made: Path, pictures: Path, whole: Path) -> None:
    one, other = Index.open(made), Index.build(pictures, whole, model=FakeEncoder())
    np.testing.assert_array_equal(one.corpus.vectors.rows(), other.corpus.vectors.rows())
    assert one.items.table().equals(other.items.table())
    assert one.corpus.collection.skipped == other.corpus.collection.skipped


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """400 pictures, written long ago, and a broken one."""
    write_pictures(tmp_path / "pictures", 200)
    (tmp_path / "pictures/cat/broken.jpg").write_bytes(b"not a picture")
    for path in tmp_path.rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    return tmp_path / "pictures"


@pytest.mark.slow
def test_two_processes_build_one_index(pictures: Path, tmp_path: Path) -> None:
    run = launch("accelerate", tmp_path, 2, 0, "build-index", pictures, "--out", tmp_path / "made")
    _, shown = run.communicate(timeout=300)
    assert run.returncode == 0, shown
    assert embedded(tmp_path, 2) == [64 * 3 + 16, 64 * 3]
    assert shown.count("401 images of") == 1  # only one of them tells
    assert_same(tmp_path / "made", pictures, tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_process_ends_all_and_any_number_continues(pictures: Path, tmp_path: Path) -> None:
    """Of four processes one is killed; two end the job, and embed only what is left."""
    out = tmp_path / "made"
    args = ("build-index", pictures, "--out", out, "--shard", "1/1")
    run = launch("torchrun", tmp_path, 4, 2.0, *args)
    progress = tmp_path / ".made.building" / "progress.json"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and run.poll() is None:
        if progress.exists() and json.loads(progress.read_text())["read"] >= BATCH:
            break
        time.sleep(0.05)
    assert run.poll() is None
    os.kill(int((tmp_path / "pid-2").read_text()), signal.SIGKILL)
    run.communicate(timeout=240)
    assert run.returncode != 0 and not out.exists()
    done = json.loads(progress.read_text())["read"]
    assert BATCH <= done < 401
    run = launch("torchrun", tmp_path, 2, 0, *args)
    _, shown = run.communicate(timeout=240)
    assert run.returncode == 0, shown
    assert sum(embedded(tmp_path, 2)) <= 401 - done

    joined = mrl.join_parts([out], tmp_path / "joined", model=FakeEncoder())
    assert_same(joined.folder, pictures, tmp_path / "whole")
