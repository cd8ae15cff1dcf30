"""The training loop: its records, stopping and continuing, and every setting."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker
from safetensors import safe_open
from tiny_runs import (
    TINY,
    change,
    noise_pixels,
    same,
    stop_after,
    train_all,
    train_tiny,
    weights_of,
)  # fmt: skip
from torch import Tensor

from mrl_search.encoders.registry import load_encoder
from mrl_search.errors import ConfigError, DataError, IndexFolderError, ModelError, MrlSearchError
from mrl_search.mapping import to_mapping, to_toml
from mrl_search.provenance import commit
from mrl_search.training import loop as training
from mrl_search.training import objective, run_folder
from mrl_search.training.config import AugmentConfig, ScheduleConfig, TrainConfig
from mrl_search.training.loop import train_pixels
from mrl_search.training.objective import InfoNCE, Objective
from mrl_search.training.pixels import Pixels
from mrl_search.training.records import EpochRecord, StepRecord
from mrl_search.training.split import digest, split_rows, stratified_split

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def test_a_run_that_diverges_leaves_no_model(tmp_path: Path) -> None:
    words = r"Training diverged in epoch \d: the loss is infinite or NaN."
    with pytest.raises(ModelError, match=words):
        train_tiny(tmp_path, change(TINY, schedule__lr=1e30))
    assert not (tmp_path / "model.json").exists()


def test_a_large_seed_is_a_seed(tmp_path: Path) -> None:
    assert len(train_tiny(tmp_path, change(TINY, seed=2**32 - 1, schedule__epochs=2))) == 2


def test_a_warning_where_validation_pictures_may_have_trained(tmp_path: Path) -> None:
    train_tiny(tmp_path / "first")
    begun = change(TINY, init=str(tmp_path / "first"))
    train_tiny(tmp_path / "same", begun)  # warnings are errors in these tests
    with pytest.warns(UserWarning, match="Some images that validate may have trained it"):
        train_tiny(tmp_path / "other part", change(begun, data__split_seed=1))
    pixels = noise_pixels()
    pixels.hashes[0] = "another"
    with pytest.warns(UserWarning, match="Some images that validate may have trained it"):
        train_tiny(tmp_path / "other pictures", begun, pixels)


# A whole run


def test_a_run_yields_its_progress_and_leaves_a_model(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "tiny"
    records = train_all(out)
    assert [type(r) for r in records] == [*[StepRecord] * 4, EpochRecord] * 3
    assert [r for r in records if isinstance(r, StepRecord)] == [
        StepRecord(f"epoch {e}/3", s, 4, e) for e in (1, 2, 3) for s in (1, 2, 3, 4)
    ]
    epochs = [r for r in records if isinstance(r, EpochRecord)]
    assert [(r.epoch, r.epochs, r.size, r.n_train, r.n_validation) for r in epochs] == [
        (e, 3, 32, 32, 8) for e in (1, 2, 3)
    ]
    for r in epochs:
        assert list(r.accuracy) == [8, 16]
        assert all(a * 8 == round(a * 8) for a in r.accuracy.values())  # of eight images
        assert r.images_per_second == pytest.approx(32 / r.seconds)
    names = {"model.json", "model.safetensors", "recipe.toml", "records.jsonl"}
    assert {p.name for p in out.iterdir()} == names
    assert (out / "recipe.toml").read_text() == to_toml(TINY)
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    made = {k: lines[0][k] for k in ("created", "versions", "commit", "pictures", "init")}
    assert made["versions"]["torch"] == torch.__version__ and made["commit"] == commit()
    assert made["pictures"] == digest(noise_pixels().labels, noise_pixels().hashes)
    own = [json.loads(json.dumps(asdict(r))) for r in epochs]
    assert lines == [r | made for r in own]
    encoder = load_encoder(str(out))
    assert (encoder.name, encoder.dims, encoder.preprocessing.size) == ("tiny", (8, 16), 32)
    assert encoder.heads.classes == ("cat", "dog")
    assert encoder.training == {
        "source": "a list", "recipe": to_mapping(TINY),
        "last_epoch": own[-1], **made, "torch": torch.__version__.split("+")[0], "twins": {},
    }  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked on Windows")
def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    refused: list[str] = []

    def second(*_: object) -> None:
        if not refused:
            with pytest.raises(IndexFolderError) as error:
                train_tiny(tmp_path)
            refused.append(error.value.message)

    train_pixels(noise_pixels(), TINY, tmp_path, "a list", on_record=second)
    assert refused == [f"Another process works in {tmp_path}."]


def test_it_learns_and_the_accuracy_it_reports_is_that_of_the_model(tmp_path: Path) -> None:
    config = change(TINY, schedule__epochs=16, objective__instance=0.1)
    records = train_tiny(tmp_path, config)
    assert records[-1].label_loss < 0.5 * records[0].label_loss
    encoder, pixels = load_encoder(str(tmp_path)), noise_pixels()
    _, validation = stratified_split(pixels.labels, pixels.hashes, 0.2, 0)
    shrunk = training.shrink(pixels.images[validation], 32)
    rows = encoder.encode(shrunk.permute(0, 2, 3, 1).numpy())
    truth = np.array([encoder.heads.classes.index(pixels.labels[i]) for i in validation])
    for d, accuracy in records[-1].accuracy.items():
        weight, bias = encoder.heads.weights[d]
        assert np.mean((rows[:, :d] @ weight.T + bias).argmax(1) == truth) == accuracy
    assert max(records[-1].accuracy.values()) == 1


def test_the_instance_part_brings_the_views_of_an_image_together(tmp_path: Path) -> None:
    config = change(TINY, schedule__epochs=8, objective__label=0.0)
    records = train_tiny(tmp_path, config, noise_pixels(labels=False))
    assert records[-1].instance_loss < records[0].instance_loss - 0.2
    assert all(r.label_loss == 0 for r in records)


# Stopping and going on


def test_labels_alone_come_first_where_the_recipe_says_so(tmp_path: Path) -> None:
    late = change(TINY, objective__instance_from=2)
    records = train_tiny(tmp_path / "late", late)
    assert [r.instance_loss == 0 for r in records] == [True, True, False]
    labels = train_tiny(tmp_path / "labels", change(TINY, objective__instance=0.0))
    assert [r.label_loss for r in records[:2]] == [r.label_loss for r in labels[:2]]
    assert records[2].label_loss != labels[2].label_loss


@pytest.mark.parametrize(("epochs", "memory"), [(1, 0), (2, 0), (1, 24)])
def test_a_stopped_run_continues_with_the_same_result(
    tmp_path: Path, epochs: int, memory: int
) -> None:
    config = change(TINY, objective__memory=memory)
    whole = train_tiny(tmp_path / "whole", config)
    stop_after(tmp_path / "parts", epochs, config)
    names = {"checkpoint.safetensors", "recipe.toml", "records.jsonl"}
    assert {p.name for p in (tmp_path / "parts").iterdir()} == names
    with pytest.raises(ModelError, match="There is no finished model"):
        load_encoder(str(tmp_path / "parts"))
    rest = train_tiny(tmp_path / "parts", config)
    assert [r.epoch for r in rest] == list(range(epochs + 1, 4))
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    for a, b in zip(whole[epochs:], rest, strict=True):
        assert (a.label_loss, a.instance_loss) == (b.label_loss, b.instance_loss)
        assert a.accuracy == b.accuracy
    lines = (tmp_path / "parts" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_a_run_stopped_inside_an_epoch_repeats_that_epoch(tmp_path: Path) -> None:
    train_tiny(tmp_path / "whole")
    train_all(
        tmp_path / "parts", stop=lambda r: isinstance(r, StepRecord) and (r.epoch, r.done) == (2, 3)
    )
    assert [r.epoch for r in train_tiny(tmp_path / "parts")] == [2, 3]
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))


def test_a_run_stopped_after_its_last_epoch_only_writes_the_model(tmp_path: Path) -> None:
    train_tiny(tmp_path / "whole")
    stop_after(tmp_path / "parts", 3)
    assert train_tiny(tmp_path / "parts") == []
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    assert load_encoder(str(tmp_path / "parts")).training["last_epoch"]["epoch"] == 3


def test_a_run_stopped_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    train_tiny(tmp_path / "whole")
    train_all(tmp_path / "parts", stop=lambda _: True)
    assert [r.epoch for r in train_tiny(tmp_path / "parts")] == [1, 2, 3]
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))


def test_a_kill_between_the_record_and_the_checkpoint_loses_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = run_folder.save

    def killed(tensors: dict, metadata: dict) -> bytes:
        if metadata["epoch"] == "2":
            raise KeyboardInterrupt
        return save(tensors, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(tmp_path)
    train_tiny(tmp_path)
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_a_checkpoint_holds_the_epoch_the_weights_and_the_optimizer(tmp_path: Path) -> None:
    stop_after(tmp_path, 2)
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        assert file.metadata()["epoch"] == "2"
        keys = set(file.keys())
        assert file.get_tensor("optimizer.0.step").item() == 8
    assert {"network.backbone.project.weight", "network.heads.heads.0.bias"} <= keys
    assert {"optimizer.0.exp_avg", "optimizer.0.exp_avg_sq"} <= keys


def test_a_damaged_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    stop_after(tmp_path, 1)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError) as error:
        train_tiny(tmp_path)
    assert str(file) in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("content", [b"", b"\xff\x00\n", b"{}\n", b"[1]\n", b'{"epoch": 3'])
def test_damaged_records_are_a_sentence(tmp_path: Path, content: bytes) -> None:
    stop_after(tmp_path, 3)
    (tmp_path / "records.jsonl").write_bytes(content)
    with pytest.raises(ModelError, match=r"records.jsonl are damaged") as error:
        train_tiny(tmp_path)
    assert f"Remove {tmp_path}" in error.value.hint


def test_records_that_are_no_text_stop_no_run(tmp_path: Path) -> None:
    stop_after(tmp_path, 1)
    (tmp_path / "records.jsonl").write_bytes(b"\xff\x00\n")
    assert [r.epoch for r in train_tiny(tmp_path)] == [2, 3]


def test_a_checkpoint_of_another_network_is_a_sentence(tmp_path: Path) -> None:
    stop_after(tmp_path, 1)
    (tmp_path / "recipe.toml").unlink()
    with pytest.raises(ModelError, match="or of another network"):
        train_tiny(tmp_path, change(TINY, model__widths=(8, 8, 16, 24)))


# What is refused


def test_another_recipe_in_the_folder_is_refused(tmp_path: Path) -> None:
    stop_after(tmp_path, 1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ConfigError) as error:
        train_tiny(tmp_path, change(TINY, schedule__lr=0.02))
    assert error.value.message == f"The run in {tmp_path} has another recipe."
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def _some_without_labels() -> Pixels:
    pixels = noise_pixels()
    pixels.labels[3] = pixels.labels[5] = None
    return pixels


@pytest.mark.parametrize(
    ("changes", "pixels", "kind", "words"),
    [
        ({}, _some_without_labels(), DataError, "2 of 40 images have no label"),
        ({}, noise_pixels(labels=False), DataError, "40 of 40 images have no label"),
        (
            {"schedule__batch": 33},
            noise_pixels(),
            DataError,
            "32 training images do not fill a batch of 33",
        ),
        ({}, noise_pixels(2), DataError, "2 images cannot be split"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, changes: dict, pixels: Pixels, kind: type[MrlSearchError], words: str
) -> None:
    with pytest.raises(kind) as error:
        train_tiny(tmp_path / "out", change(TINY, **changes), pixels)
    assert words in error.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings(
    "ignore:`log_with=:UserWarning"
)  # accelerate goes on without the tracker
@pytest.mark.parametrize(
    ("tracker", "words"), [("tensorboard", "'tensorboard' is not installed"), ("abacus", "abacus")]
)
def test_a_tracker_that_is_not_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, words: str
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ConfigError) as error:
        train_pixels(noise_pixels(), TINY, tmp_path / "out", "a list", tracker)
    assert words in error.value.message
    assert "tracker" in error.value.hint


class Notebook(GeneralTracker):
    """A tracker that keeps what it logs."""

    name = "notebook"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[int, dict]] = []

    @property
    def tracker(self) -> object:
        return self.logged

    def log(self, values: dict, step: int, **_: object) -> None:
        self.logged.append((step, values))


def test_a_tracker_logs_every_epoch(tmp_path: Path) -> None:
    notebook = Notebook()
    records: list[EpochRecord] = []

    def kept(_: TrainConfig, record: object) -> None:
        if isinstance(record, EpochRecord):
            records.append(record)

    train_pixels(noise_pixels(), TINY, tmp_path, "a list", notebook, kept)
    assert len(records) == len(notebook.logged) == 3
    for r, logged in zip(records, notebook.logged, strict=True):
        losses = {"label_loss": r.label_loss, "instance_loss": r.instance_loss}
        shares = {"accuracy/8": r.accuracy[8], "accuracy/16": r.accuracy[16]}
        assert logged == (r.epoch, losses | shares)


# Settings


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What views were drawn: images, side before, side after, for each call."""
    calls: list[tuple[int, int, int]] = []

    def views(
        images: Tensor, size: int, config: AugmentConfig, generator: torch.Generator
    ) -> Tensor:
        calls.append((len(images), images.shape[-1], size))
        return real(images, size, config, generator)

    real = objective.views
    monkeypatch.setattr(objective, "views", views)
    return calls


def test_instance_similarity_takes_two_views_and_labels_alone_take_one(
    tmp_path: Path, drawn: list[tuple[int, int, int]]
) -> None:
    train_tiny(tmp_path / "two", change(TINY, schedule__epochs=1))
    assert drawn == [(8, 40, 32)] * 8
    drawn.clear()
    (record,) = train_tiny(
        tmp_path / "one", change(TINY, schedule__epochs=1, objective__instance=0.0)
    )
    assert drawn == [(8, 40, 32)] * 4
    assert record.instance_loss == 0
    assert record.label_loss > 0


def test_sizes_grow_from_epoch_to_epoch(tmp_path: Path, drawn: list[tuple[int, int, int]]) -> None:
    config = change(TINY, schedule__sizes={"0": 32, "1": 40}, objective__instance=0.0)
    records = train_tiny(tmp_path, config, noise_pixels(side=50))
    assert [r.size for r in records] == [32, 40, 40]
    assert drawn == [(8, 40, 32)] * 4 + [(8, 50, 40)] * 8
    assert load_encoder(str(tmp_path)).preprocessing.size == 40


def test_a_run_with_sizes_goes_on_at_the_right_size(
    tmp_path: Path, drawn: list[tuple[int, int, int]]
) -> None:
    config = change(TINY, schedule__sizes={"0": 32, "1": 40}, objective__instance=0.0)
    stop_after(tmp_path, 1, config, noise_pixels(side=50))
    drawn.clear()
    train_tiny(tmp_path, config, noise_pixels(side=50))
    assert drawn == [(8, 50, 40)] * 8


def test_gradients_are_added_up_before_the_weights_move(tmp_path: Path) -> None:
    moved = {}
    for accumulate in (1, 2):
        out = tmp_path / str(accumulate)
        stop_after(out, 1, change(TINY, schedule__accumulate=accumulate))
        with safe_open(out / "checkpoint.safetensors", "pt") as file:
            moved[accumulate] = file.get_tensor("optimizer.0.step").item()
    assert moved == {1: 4, 2: 2}


@dataclass
class Seen:
    """What reached the loss and the optimizer of a run."""

    views: list[tuple[int, AugmentConfig, int]] = field(default_factory=list)  # size, kind, seed
    rows: list[int] = field(default_factory=list)  # in each call of InfoNCE
    losses: list[tuple[float, ...]] = field(default_factory=list)  # total, label, instance
    pixels: int = 0  # the sum of all pixels in the batches
    rates: list[list[float]] = field(default_factory=list)
    decays: list[float] = field(default_factory=list)
    steps: list[bool] = field(default_factory=list)  # whether the optimizer stepped
    records: list[EpochRecord] = field(default_factory=list)
    objective: Objective | None = None
    network: Any = None
    precision: str = ""


def observed(out: Path, config: TrainConfig) -> Seen:
    """Train one epoch, or as many as `config` says, and watch."""
    seen = Seen()
    views, call, info_nce, set_rate = (
        objective.views, Objective.__call__, InfoNCE.forward, training._set_rate,
    )  # fmt: skip

    def watch_views(images: Tensor, size: int, kind: AugmentConfig, rng: torch.Generator) -> Tensor:
        seen.views.append((size, kind, rng.initial_seed()))
        return views(images, size, kind, rng)

    def watch_rows(self: InfoNCE, rows: Tensor, subjects: Tensor | None = None) -> Tensor:
        seen.rows.append(len(rows))
        return info_nce(self, rows, subjects)

    def watch_rate(optimizer: Any, schedule: ScheduleConfig, done: float) -> None:
        set_rate(optimizer, schedule, done)
        seen.rates.append([group["lr"] for group in optimizer.param_groups])
        seen.decays = [group["weight_decay"] for group in optimizer.param_groups]

    def watch_call(self: Objective, network: Any, pictures: Tensor, *rest: Any) -> Any:
        result = call(self, network, pictures, *rest)
        seen.objective, seen.network = self, network
        seen.precision = self.accelerator.mixed_precision
        seen.pixels += int(pictures.long().sum())
        seen.losses.append(tuple(part.item() for part in result))
        seen.steps.append(self.accelerator.sync_gradients)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "views", watch_views)
        patch.setattr(InfoNCE, "forward", watch_rows)
        patch.setattr(training, "_set_rate", watch_rate)
        patch.setattr(Objective, "__call__", watch_call)
        seen.records = train_tiny(out, config)
    return seen


def _view(name: str) -> Callable[[Seen], object]:
    return lambda seen: getattr(seen.views[0][1], name)


def _training_pixels(**data: object) -> int:
    pixels = noise_pixels()
    config = change(TINY, **{f"data__{key}": value for key, value in data.items()})
    rows, _ = split_rows(pixels.labels, pixels.hashes, config.data, pixels.paths)
    return int(pixels.images[rows].long().sum())


NUMBER = r"(\d+)-\d+\.jpg$"  # the individual in the paths of `noise_pixels`
# what is changed, what is read of the run, and its value; without the change it is another value
SETTINGS: dict[str, tuple[dict, Callable[[Seen], object], object]] = {
    "seed": ({"seed": 1}, lambda s: s.views[0][2], 100_000),
    "dims": ({"model__dims": (4, 16)}, lambda s: s.network.heads.dims, (4, 16)),
    "widths": (
        {"model__widths": (8, 8, 16, 24)},
        lambda s: s.network.backbone.project.in_features,
        24,
    ),
    "heads": ({"model__heads": "tied"}, lambda s: s.network.heads.tied, True),
    "scale of the cosines": (
        {"model__heads": "cosine", "model__scale": 8.0},
        lambda s: s.network.heads.scale,
        8.0,
    ),
    "validation": ({"data__validation": 0.4}, lambda s: s.records[0].n_train, 24),
    "split_seed": ({"data__split_seed": 1}, lambda s: s.pixels, _training_pixels(split_seed=1)),
    "swap": ({"data__swap": True}, lambda s: s.pixels, _training_pixels(swap=True)),
    "scale": ({"augment__scale": (0.8, 1.0)}, _view("scale"), (0.8, 1.0)),
    "aspect": ({"augment__aspect": (1.0, 1.0)}, _view("aspect"), (1.0, 1.0)),
    "rotate": ({"augment__rotate": 0.0}, _view("rotate"), 0.0),
    "flip": ({"augment__flip": 0.0}, _view("flip"), 0.0),
    "jitter": ({"augment__jitter": (0.4, 0.4, 0.4, 0.0)}, _view("jitter"), (0.4, 0.4, 0.4, 0.0)),
    "blur": ({"augment__blur": 1.0}, _view("blur"), 1.0),
    "grey": ({"augment__grey": 1.0}, _view("grey"), 1.0),
    "jpeg": ({"augment__jpeg": 20}, _view("jpeg"), 20),
    "shrink": ({"augment__shrink": 2.0}, _view("shrink"), 2.0),
    "outside": ({"augment__outside": "zeros"}, _view("outside"), "zeros"),
    "weak": (
        {"weak": AugmentConfig(rotate=1.0)},
        lambda s: s.views[1][1],
        AugmentConfig(rotate=1.0),
    ),
    "label": (
        {"objective__label": 0.25},
        lambda s: round((s.losses[0][0] - 0.5 * s.losses[0][2]) / s.losses[0][1], 4),
        0.25,
    ),
    "instance": (
        {"objective__instance": 0.1},
        lambda s: round((s.losses[0][0] - s.losses[0][1]) / s.losses[0][2], 4),
        0.1,
    ),
    "individual": (
        {"data__individual": NUMBER, "objective__instance": 0.0, "objective__individual": 0.25},
        lambda s: round((s.losses[0][0] - s.losses[0][1]) / s.losses[0][2], 4),
        0.25,
    ),
    "individuals in the split": (
        {"data__individual": NUMBER},
        lambda s: s.pixels,
        _training_pixels(individual=NUMBER),
    ),
    "temperature": (
        {"objective__temperature": 0.5},
        lambda s: s.objective.instances.criterion.temperature,
        0.5,
    ),
    "memory": (
        {"objective__memory": 20},
        lambda s: s.rows[::2],  # of each step, at the first prefix
        [16, 24, 32, 36],
    ),
    "smoothing": (
        {"objective__smoothing": 0.1},
        lambda s: s.objective.labels.criterion.label_smoothing,
        0.1,
    ),
    "weights": (
        {"objective__weights": (1.0, 0.5)},
        lambda s: (s.objective.labels.weights, s.objective.instances.weights),
        ((1.0, 0.5), (1.0, 0.5)),
    ),
    "instance_weights": (
        {"objective__instance_weights": (0.0, 2.0)},
        lambda s: (s.objective.instances.weights, s.objective.labels.weights),
        ((0.0, 2.0), (1.0, 1.0)),
    ),
    "individual_weights": (
        {"objective__individual_weights": (0.0, 2.0)},
        lambda s: (s.objective.individuals.weights, s.objective.labels.weights),
        ((0.0, 2.0), (1.0, 1.0)),
    ),
    "epochs": ({"schedule__epochs": 2}, lambda s: [r.epochs for r in s.records], [2, 2]),
    "batch": ({"schedule__batch": 16}, lambda s: len(s.losses), 2),
    "accumulate": ({"schedule__accumulate": 2}, lambda s: s.steps, [False, True] * 2),
    "lr": (
        {"schedule__lr": 0.02},
        lambda s: s.rates[3],
        pytest.approx([0.01 * (1 + math.cos(math.pi * 0.65 / 0.9))] * 2),
    ),
    "weight_decay": ({"schedule__weight_decay": 0.5}, lambda s: s.decays, [0.5, 0.0]),
    "warmup": ({"schedule__warmup": 0.5}, lambda s: s.rates[1], pytest.approx([0.01 * 0.501] * 2)),
    "decay": ({"schedule__decay": "exponential"}, lambda s: s.rates[3], pytest.approx([0.01] * 2)),
    "gamma": (
        {"schedule__decay": "exponential", "schedule__gamma": 0.5, "schedule__epochs": 2},
        lambda s: s.rates[-1],
        pytest.approx([0.005] * 2),
    ),
    "sizes": ({"schedule__sizes": {"0": 40}}, lambda s: s.views[0][0], 40),
    "precision": ({"schedule__precision": "bf16"}, lambda s: s.precision, "bf16"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One epoch with nothing changed."""
    seen = observed(tmp_path_factory.mktemp("base"), change(TINY, schedule__epochs=1))
    AcceleratorState._reset_state(reset_partial_state=True)
    return seen


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_reaches_the_loss_or_the_optimizer(
    tmp_path: Path, base: Seen, setting: str
) -> None:
    changes, read, value = SETTINGS[setting]
    seen = observed(tmp_path, change(change(TINY, schedule__epochs=1), **changes))
    assert read(seen) == value and read(base) != value


def test_no_setting_of_a_recipe_is_left_out_above() -> None:
    # test_training, _models, _reading, _seed and _axes; and above and below
    tested_elsewhere = {
        "name", "backbone", "min_side", "native", "instance_from", "embed_size", "pool", "mirror",
        "keep", "distil", "activation", "clip",
    }  # fmt: skip
    config = to_mapping(TINY)
    sections = ("model", "data", "augment", "objective", "schedule")
    names = {"seed", "name", "weak"} | {key for section in sections for key in config[section]}
    assert (
        names
        == (set(SETTINGS) - {"scale of the cosines", "individuals in the split"}) | tested_elsewhere
    )


def test_gradients_are_clipped_at_their_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *rest: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    observed(tmp_path / "free", TINY)
    free, norms = norms, []
    observed(tmp_path / "clipped", replace(TINY, schedule=replace(TINY.schedule, clip=0.01)))
    assert min(free) > 0.011 and norms == pytest.approx([0.01] * len(free), rel=1e-3)


def _rate(schedule: ScheduleConfig, done: float) -> float:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=123.0)
    training._set_rate(optimizer, schedule, done)
    return optimizer.param_groups[0]["lr"]


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    schedule = ScheduleConfig(lr=0.4, warmup=0.2)
    assert _rate(schedule, 0.0) == pytest.approx(0.4 * 0.001)
    assert _rate(schedule, 0.1) == pytest.approx(0.4 * 0.501)
    assert _rate(schedule, 0.2) == pytest.approx(0.4)
    assert _rate(schedule, 0.4) == pytest.approx(0.4 * (1 + math.cos(math.pi / 4)) / 2)
    assert _rate(schedule, 0.6) == pytest.approx(0.2)
    assert _rate(schedule, 1.0) == pytest.approx(0.0, abs=1e-9)
    rates = [_rate(schedule, done) for done in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(0.4)
    assert np.all(np.diff(rates[:21]) > 0)
    assert np.all(np.diff(rates[20:]) < 0)


def test_without_warm_up_the_learning_rate_starts_at_its_peak() -> None:
    assert _rate(ScheduleConfig(lr=0.4, warmup=0.0), 0.0) == pytest.approx(0.4)


def test_the_rate_is_set_at_every_step_and_weight_decay_spares_norms_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[float] = []
    groups: list[list[tuple[float, set[int]]]] = []

    def spy(optimizer: torch.optim.Optimizer, schedule: ScheduleConfig, share: float) -> None:
        done.append(share)
        groups.append(
            [(g["weight_decay"], {p.ndim for p in g["params"]}) for g in optimizer.param_groups]
        )

    monkeypatch.setattr(training, "_set_rate", spy)
    train_tiny(tmp_path)
    assert done == pytest.approx([i / 12 for i in range(12)])
    assert groups[0] == [(0.05, {2, 4}), (0.0, {1})]


def test_the_pixels_of_an_epoch_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate keeps the loaders that it prepared, and with each a copy of all images."""
    made: list[training.accelerate.Accelerator] = []
    accelerator = training._accelerator
    monkeypatch.setattr(
        training, "_accelerator", lambda *args: made.append(accelerator(*args)) or made[-1]
    )
    kept: list[int] = []

    def count(*_: object) -> None:
        kept.append(len(made[0]._dataloaders))

    train_pixels(noise_pixels(), TINY, tmp_path, "a list", on_record=count)
    assert set(kept) == {0}


def test_objective_weights_are_those_of_the_loss(tmp_path: Path) -> None:
    """Without weight, the head of the second prefix has no gradient and does not change."""
    config = change(
        TINY, schedule__epochs=1, schedule__weight_decay=0.0, objective__weights=(1.0, 0.0)
    )
    train_tiny(tmp_path / "a", config)
    train_tiny(tmp_path / "b", change(config, schedule__lr=0.02))
    a, b = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    assert torch.equal(a["heads.heads.1.weight"], b["heads.heads.1.weight"])
    assert not torch.equal(a["heads.heads.0.weight"], b["heads.heads.0.weight"])
    assert torch.equal(a["backbone.project.weight"][8:], b["backbone.project.weight"][8:])
    assert not torch.equal(a["backbone.project.weight"][:8], b["backbone.project.weight"][:8])


# What another model knows


@pytest.mark.filterwarnings("ignore:.*Some images that validate may have trained")
def test_full_distillation_ignores_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "split_rows", lambda *_: (np.arange(32), np.arange(32, 40)))
    train_tiny(tmp_path / "teacher")
    right = noise_pixels()
    wrong = replace(right, labels=right.labels[::-1])  # every cat a dog
    weights = {}
    taught = change(TINY, init=str(tmp_path / "teacher"))
    runs = ((1.0, right, "a"), (1.0, wrong, "b"), (0.5, right, "c"), (0.5, wrong, "d"))
    for distil, pixels, name in runs:
        train_tiny(tmp_path / name, change(taught, objective__distil=distil), pixels)
        weights[name] = weights_of(tmp_path / name)
    assert same(weights["a"], weights["b"])
    assert not same(weights["a"], weights["c"])
    assert not same(weights["c"], weights["d"])


@pytest.mark.filterwarnings("ignore:.*Some images that validate may have trained")
@pytest.mark.slow
def test_distillation_keeps_the_classes_in_spite_of_wrong_labels(tmp_path: Path) -> None:
    long = change(TINY, seed=1, schedule__epochs=12)
    train_tiny(tmp_path / "teacher", long)
    wrong = replace(noise_pixels(), labels=noise_pixels().labels[::-1])
    config = change(long, init=str(tmp_path / "teacher"))
    forgot = train_tiny(tmp_path / "forgot", config, wrong)[-1].accuracy[16]
    taught = change(config, objective__distil=0.9)
    kept = train_tiny(tmp_path / "kept", taught, wrong)[-1].accuracy[16]
    assert kept <= 0.25 < 0.5 <= forgot  # labels alone turn cats into dogs


def test_a_stopped_run_continues_to_distil(tmp_path: Path) -> None:
    train_tiny(tmp_path / "teacher")
    config = change(TINY, init=str(tmp_path / "teacher"), objective__distil=0.9)
    train_tiny(tmp_path / "whole", config)
    stop_after(tmp_path / "stopped", 1, config)
    train_tiny(tmp_path / "stopped", config)
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective__distil": 0.5}, "objective.distil is 0.5; it needs init and a positive"),
        ({"init": "a", "objective__distil": 1.5}, "objective.distil is 1.5; it must be from 0"),
    ],
)
def test_what_cannot_be_distilled_is_a_sentence(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        change(TINY, **changes)
    assert error.value.message.startswith(message)
