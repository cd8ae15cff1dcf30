"""Training from another model, without labels, and in two processes; and what is refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import write_corpus
from safetensors.torch import load_file, save_file
from tiny_runs import TINY, change, noise_pixels, same, stop_after, train_tiny, weights_of

from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.config import ModelConfig
from mrl_search.errors import ConfigError, MrlSearchError
from mrl_search.training.config import AxesConfig
from mrl_search.training.pixels import Pixels, pixel_side

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")
AXES = replace(
    TINY, model=ModelConfig(widths=(8, 8, 16, 16), dims=(8, 16), pool="stages"), axes=AxesConfig()
)


def test_a_run_can_start_from_another(tmp_path: Path) -> None:
    train_tiny(tmp_path / "first")
    begun = change(TINY, init=str(tmp_path / "first"))
    train_tiny(
        tmp_path / "second",
        change(begun, schedule__epochs=1, schedule__lr=1e-12, schedule__embed_size=48),
    )
    first, second = weights_of(tmp_path / "first"), weights_of(tmp_path / "second")
    assert torch.allclose(
        first["backbone.project.weight"], second["backbone.project.weight"], atol=1e-6
    )
    assert load_model(tmp_path / "second").size == 48
    with pytest.raises(ConfigError, match="other layers"):
        train_tiny(tmp_path / "third", change(begun, model__dims=(16,)))
    assert not (tmp_path / "third").exists()


def test_without_labels_similarity_can_be_learned(tmp_path: Path) -> None:
    (record,) = train_tiny(
        tmp_path, change(TINY, objective__label=0.0, schedule__epochs=1), noise_pixels(labels=False)
    )
    assert load_model(tmp_path).classes == ()
    assert record.accuracy == {} and record.instance_loss > 0


def test_without_labels_axes_can_be_set(tmp_path: Path) -> None:
    bare = noise_pixels(labels=False)
    train_tiny(tmp_path / "first", change(TINY, objective__label=0.0), bare)
    config = change(AXES, init=str(tmp_path / "first"), schedule__epochs=0)
    config = change(config, objective__label=0.0, objective__instance=0.0)
    train_tiny(tmp_path / "axes", config, bare)
    assert weights_of(tmp_path / "axes")["backbone.project.weight"].shape[1] == 80


# Refusals


def _more() -> Pixels:
    return noise_pixels(n=42)


def _relabelled() -> Pixels:
    pixels = noise_pixels()
    return replace(pixels, labels=["dog", "cat", *pixels.labels[2:]])


@pytest.mark.parametrize("pixels", [_more(), _relabelled()], ids=["more", "relabelled"])
def test_a_run_continues_only_with_its_own_pictures(tmp_path: Path, pixels: Pixels) -> None:
    stop_after(tmp_path, 1)
    records = (tmp_path / "records.jsonl").read_text()
    with pytest.raises(ConfigError, match="began with other pictures or labels"):
        train_tiny(tmp_path, TINY, pixels)
    assert (tmp_path / "records.jsonl").read_text() == records
    assert [r.epoch for r in train_tiny(tmp_path)] == [2, 3]


def test_a_run_continues_only_from_its_own_first_model(tmp_path: Path) -> None:
    for seed in (0, 1):
        train_tiny(tmp_path / f"first{seed}", change(TINY, seed=seed, schedule__epochs=1))
    begun = change(TINY, init=str(tmp_path / "first"))
    (tmp_path / "first0").rename(tmp_path / "first")
    stop_after(tmp_path / "run", 1, begun)
    (tmp_path / "first").rename(tmp_path / "first0")
    (tmp_path / "first1").rename(tmp_path / "first")
    with pytest.raises(ConfigError, match="began with other weights in init"):
        train_tiny(tmp_path / "run", begun)


def test_a_checkpoint_of_an_older_version_continues(tmp_path: Path) -> None:
    train_tiny(tmp_path / "whole")
    stop_after(tmp_path / "run", 1)
    file = tmp_path / "run" / "checkpoint.safetensors"
    save_file(load_file(file), file, metadata={"epoch": "1"})
    train_tiny(tmp_path / "run")
    assert same(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))


def test_too_few_axes_are_reported_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There are 80 axes for 512 dims"):
        train_tiny(tmp_path / "run", change(AXES, model__dims=(8, 128, 512)))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    train_tiny(tmp_path)
    with pytest.raises(MrlSearchError, match="finished run"):
        train_tiny(tmp_path)


# How large pictures are decoded


def test_pictures_are_decoded_for_the_sharpest_of_their_views() -> None:
    still = change(TINY, augment__scale=(1.0, 1.0), augment__aspect=(1.0, 1.0))
    assert pixel_side(still) == 32
    assert pixel_side(change(still, augment__aspect=(0.8, 1.25))) == 40
    assert pixel_side(change(still, weak=TINY.augment)) == 40
    assert pixel_side(change(still, schedule__embed_size=64)) == 32
    assert pixel_side(change(AXES, schedule__embed_size=64)) == 64


# Two processes


RUN = """
import json
import os
import sys
from pathlib import Path

from accelerate.state import AcceleratorState, GradientState
from tiny_runs import TINY, change, noise_pixels
from mrl_search.training.objective import Objective
from mrl_search.training.loop import train_pixels

step = Objective.__call__

def watched(self, network, pictures, target, chance):
    weights = sum(p.double().sum().item() for p in network.parameters())
    seen = [weights, pictures.double().mean().item(), chance.initial_seed()]
    with open(f"{out}-{self.accelerator.process_index}.jsonl", "a") as file:
        file.write(json.dumps(seen) + "\\n")
    return step(self, network, pictures, target, chance)

Objective.__call__ = watched
for label in (1, 0):
    out, config = Path(sys.argv[1], str(label)), change(TINY, objective__label=label)
    train_pixels(noise_pixels(labels=bool(label)), config, out, "a list")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
"""


def two_processes(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a script, or -m and a module, in two processes.

    `accelerate launch` starts only one where there is no GPU.
    """
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    environment |= {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    return subprocess.run(
        [*launch, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two runs, with labels (1) and without (0), and what each process saw."""
    home = tmp_path_factory.mktemp("two")
    (home / "run.py").write_text(RUN)
    done = two_processes(home, str(home / "run.py"), str(home))
    assert done.returncode == 0, done.stderr[-2000:]
    return home


@pytest.mark.slow
@pytest.mark.parametrize("label", [1, 0])
def test_two_processes_train_one_model(trained_by_two: Path, label: int) -> None:
    out = trained_by_two / str(label)

    def objects(path: Path) -> list[Any]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    lines = objects(out / "records.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert list(lines[0]["accuracy"]) == (["8", "16"] if label else [])
    assert load_model(out).classes == (("cat", "dog") if label else ())
    one, other = (objects(trained_by_two / f"{label}-{rank}.jsonl") for rank in (0, 1))
    assert len(one) == 3 * 2  # 32 pictures, in batches of eight for each of the two
    for (weights, pictures, views), (same_weights, other_pictures, other_views) in zip(
        one, other, strict=True
    ):
        assert weights == same_weights and pictures != other_pictures and views != other_views
    assert len({weights for weights, _, _ in one}) == 6


@pytest.mark.slow
def test_the_command_trains_in_two_processes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 20, size=48)
    small = (
        "model.widths=[8,8,16,16]",
        "model.dims=[8,16]",
        "schedule.epochs=1",
        "schedule.batch=8",
        'schedule.sizes={"0"=32}',
    )
    settings = [part for setting in small for part in ("--set", setting)]
    pictures, out = str(tmp_path / "pictures"), str(tmp_path / "run")
    command = ["train", pictures, "--recipe", "small", "--out", out, *settings]
    done = two_processes(tmp_path, "-m", "mrl_search", *command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (done.stdout + done.stderr).count("model in ") == 1  # one of them speaks
    assert load_model(tmp_path / "run").classes == ("cat", "dog")
