"""Axes that an index is stored along: fitted, measured on held-out pictures, applied to queries."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, write_corpus
from typer.testing import CliRunner

from mrl_search import axes as module
from mrl_search.axes import CHOICES, Kept, check_choice, fit_axes, measure_axes, recommended
from mrl_search.cli.app import app
from mrl_search.errors import ConfigError, IndexFolderError, ModelError
from mrl_search.images.sources import open_source
from mrl_search.index import Index
from mrl_search.progress import silent
from mrl_search.shrink import shrink_index
from mrl_search.store.transform import Transform
from mrl_search.training.corpus_axes import KINDS, Sample, changed_views
from mrl_search.vectors import l2_normalize


@dataclass
class Mixed(FakeEncoder):
    """Random mixtures of all pixels: no prefix is better than any other."""

    axes: str = "views"
    mixture: np.ndarray = field(
        default_factory=lambda: np.random.default_rng(0).normal(size=(192, 64))
    )

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        self.batches.append(len(pictures))
        rows = pictures.reshape(len(pictures), -1) / 255 - 0.5
        return (rows @ self.mixture).astype(np.float32)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("axes")
    write_corpus(folder, 40, size=32)
    return folder


@pytest.fixture(scope="module")
def indexes(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Index]:
    place = tmp_path_factory.mktemp("indexes")
    return {
        choice: Index.build(pictures, place / choice, model=Mixed(), axes=choice)
        for choice in CHOICES
    }


def sample_of(
    rows: np.ndarray, change: np.ndarray, labels: list[str | None] | None = None
) -> Sample:
    """A sample whose rows each have one view, changed by `change`."""
    rows, change = rows.astype(np.float32), change.astype(np.float32)
    names = np.array(labels or [None] * len(rows), dtype=object)
    return Sample(rows, names, np.arange(len(rows)), (rows + change)[:, None])


def test_image_axes_ignore_what_changes() -> None:
    rng = np.random.default_rng(1)
    rows, change = rng.normal(size=(400, 3)), np.zeros((400, 3))
    rows[:, 1] *= 10  # a feature is weighed by what it tells, not by its size
    change[:, 1] = 10 * rng.normal(size=400)
    change[:, 2] = 0.1 * rng.normal(size=400)
    transform = fit_axes("views", sample_of(rows, change))
    assert np.allclose(transform.centre, rows.mean(0), atol=1e-5)
    used = np.abs(transform.rotation * rows.std(0)).max(0)
    assert used[1] < 0.55 * used[0] and used[1] < 0.55 * used[2]


def test_class_axes_come_first() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(300, 20))
    labels = ["b" if row[7] > 0 else "a" for row in rows]
    transform = fit_axes("labels", sample_of(rows, 0.1 * rng.normal(size=(300, 20)), labels))
    first = transform(rows)[:, 0]
    side = first > np.median(first)
    share = np.mean([(label == "a") == s for label, s in zip(labels, side, strict=True)])
    assert max(share, 1 - share) > 0.9
    unknown = fit_axes("labels", sample_of(rows, np.ones_like(rows), [None, *labels[1:]]))
    assert np.isfinite(unknown.rotation).all()


def test_pca_keeps_cosines_and_moves_energy_to_the_front(indexes: dict[str, Index]) -> None:
    plain, turned = (indexes[c].corpus.vectors.prefix(64) for c in ("none", "pca"))
    assert np.allclose(plain @ plain.T, turned @ turned.T, atol=4e-3)
    assert np.square(turned[:, :8]).sum() > 3 * np.square(plain[:, :8]).sum()


@pytest.mark.parametrize("choice", CHOICES)
def test_a_picture_finds_itself_along_all_axes(indexes: dict[str, Index], choice: str) -> None:
    index = indexes[choice]
    for path in index.corpus.collection.paths[::20]:
        best = index.search(path, k=1)[0]
        assert best.path == path and best.score == pytest.approx(1, abs=2e-3)
    transform = index.corpus.collection.transform
    assert (transform.centre is not None) == (choice in ("views", "labels"))
    assert transform.orthogonal == (choice in ("none", "pca"))


def test_the_choices_are_measured_and_kept_in_the_manifest(indexes: dict[str, Index]) -> None:
    assert indexes["none"].manifest.axes == {}
    record = indexes["views"].manifest.axes
    assert (record["choice"], record["fitted"], record["held_out"]) == ("views", 72, 8)
    assert (record["viewed"], record["views_held_out"]) == (72, 8 * KINDS)
    kept = record["kept"]
    assert list(kept) == list(CHOICES)
    for prefixes in kept.values():
        assert [p["dims"] for p in prefixes] == [8, 16, 32, 64]
        assert prefixes[-1]["energy"] == pytest.approx(1) and prefixes[-1]["recall"] == 1
    assert kept["pca"][0]["energy"] > kept["none"][0]["energy"]
    assert kept["labels"][0]["accuracy"] >= kept["none"][0]["accuracy"]
    assert record["recommended"] == ""  # eight pictures are too few


def test_a_measurement_by_hand() -> None:
    fitted = Sample(
        np.eye(4, dtype=np.float32)[[0, 0, 1, 1]] + np.float32(0.01),
        np.array(["a", "a", "b", "b"], dtype=object),
        np.empty(0, np.int64), np.empty((0, 1, 4), np.float32),
    )  # fmt: skip
    held = Sample(
        np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32),
        np.array(["a", "a"], dtype=object),
        np.array([1]), np.array([[[0, 1, 0, 0.001]], ], np.float32),
    )  # fmt: skip
    (kept,) = measure_axes(Transform(4, 4), fitted, held)[-1:]
    # all six pictures vote: "a" has three of five, or four of five without a "b"
    assert (kept.dims, kept.energy, kept.recall, kept.instance) == (4, 1, 1, 1)
    assert kept.accuracy == 1


@pytest.mark.parametrize(("second", "energy"), [([1, 0, 0, 0], 1.0), ([0, 0, 0, 0], 1.0)])
@pytest.mark.filterwarnings("error")
def test_vectors_of_norm_0_have_no_share_in_the_energy(second: list[int], energy: float) -> None:
    rows = np.array([[0, 0, 0, 0], second], np.float32)
    labels = np.array(["a", "a"], dtype=object)
    sample = Sample(rows, labels, np.empty(0, np.int64), np.empty((0, 1, 4), np.float32))
    (kept,) = measure_axes(Transform(4, 4), sample, sample)[-1:]
    assert (kept.dims, kept.energy) == (4, energy)


def test_the_best_short_prefixes_are_recommended() -> None:
    good, bad = Kept(8, 0.5, 0.5, 0.9, 0.9), Kept(8, 0.9, 0.9, 0.5, 0.5)
    full = Kept(512, 1, 1, 1, 1)
    assert recommended({"pca": [bad, full], "views": [good, full]}) == "views"
    unlabelled = Kept(8, 0.5, 0.5, 0.95, None)
    assert recommended({"pca": [good], "views": [unlabelled]}) == "views"


def test_views_are_those_of_readable_pictures(pictures: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path, 3, size=32)
    source = open_source(str(tmp_path))
    first = changed_views(Mixed(), source, range(6), silent)
    again = changed_views(Mixed(), source, range(6), silent)
    assert first[1].shape == (6, KINDS, 64) and np.array_equal(first[1], again[1])
    plain = Mixed().encode(np.stack([Mixed().preprocessing.decode(source.read(0))[0]]))
    assert all(not np.allclose(view, plain[0]) for view in first[1][0])
    Path(source.paths[2]).write_bytes(b"broken since")
    positions, changed = changed_views(Mixed(), source, range(6), silent)
    assert positions.tolist() == [0, 1, 3, 4, 5] and len(changed) == 5


def test_a_build_that_stopped_before_its_axes_embeds_nothing_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "index"
    with monkeypatch.context() as patched:
        patched.setattr("mrl_search.building.choose_axes", stop)
        with pytest.raises(KeyboardInterrupt):
            Index.build(pictures, out, model=Mixed())
    encoder = Mixed()
    again = Index.build(pictures, out, model=encoder)
    assert all(batch % KINDS == 0 for batch in encoder.batches)  # views alone
    whole = Index.build(pictures, tmp_path / "whole", model=Mixed())
    assert np.array_equal(again.corpus.vectors.prefix(64), whole.corpus.vectors.prefix(64))
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.folder.iterdir())


def test_a_build_says_what_it_does(pictures: Path, tmp_path: Path) -> None:
    told = dict[str, list[tuple[int, int]]]()

    def progress(what: str, done: int, total: int) -> None:
        told.setdefault(what, []).append((done, total))

    Index.build(pictures, tmp_path / "index", model=Mixed(), progress=progress)
    steps = ["embedding", f"embedding {KINDS} changed views of each", "fitting axes", "indexing"]
    assert [step for step in told if step != "checking"] == steps
    for step in steps:  # each is one bar, which only grows, to its end
        assert len({total for _, total in told[step]}) == 1 and told[step] == sorted(told[step])
        assert told[step][-1][0] == told[step][-1][1]


def test_fewer_pictures_than_dims(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 11, size=32)
    index = Index.build(tmp_path / "pictures", tmp_path / "index", model=Mixed())
    rows = index.corpus.vectors.prefix(64)
    assert rows.shape == (22, 64) and not rows[:, 32:].any() and rows[:, :16].any(axis=0).all()
    assert index.search(index.corpus.collection.paths[3], k=1, plan="8:5,64")[0].id == 3


def test_few_pictures_have_principal_axes_by_default(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 3, size=32)
    index = Index.build(tmp_path / "pictures", tmp_path / "index", model=Mixed())
    assert index.manifest.axes["choice"] == "pca" and index.manifest.axes["kept"] == {}
    assert index.search(index.corpus.collection.paths[0], k=1)[0].id == 0


@pytest.mark.parametrize(
    ("choice", "labels", "message"),
    [
        ("views ", ["a"] * 30, "There are no axes 'views '."),
        ("views", ["a"] * 19, "The axes views need at least 20 pictures; there are 19."),
        ("labels", ["a"] * 30, "The axes labels need pictures of at least two labels."),
        ("labels", [None] * 30, "The axes labels need pictures of at least two labels."),
        ("labels", ["a", "b"], "The axes labels need at least 20 pictures; there are 2."),
    ],
)
def test_axes_that_cannot_be(choice: str, labels: list[str | None], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_choice(choice, 64, labels)
    assert error.value.message == message and error.value.hint
    check_choice("labels", 64, ["a", "b"] * 10)


def test_pictures_that_are_all_alike_are_said(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 1, size=32)
    one = tmp_path / "pictures" / "cat" / "cat-0000.jpg"
    for i in range(30):
        one.with_name(f"copy-{i}.jpg").write_bytes(one.read_bytes())
    (tmp_path / "pictures" / "dog" / "dog-0000.jpg").unlink()
    with pytest.raises(ConfigError, match="too much alike"):
        Index.build(tmp_path / "pictures", tmp_path / "index", model=Mixed(), axes="views")
    default = Index.build(tmp_path / "pictures", tmp_path / "default", model=Mixed())
    assert default.manifest.axes["choice"] == "pca"


def test_an_index_along_axes_shrinks_and_knows_how_it_was_built(
    indexes: dict[str, Index], tmp_path: Path
) -> None:
    small = shrink_index(indexes["views"], tmp_path / "small", 16)
    path = small.corpus.collection.paths[5]
    small = Index.open(small.folder, Mixed())
    assert small.search(path, k=1)[0].path == path
    wide = indexes["views"].corpus.vectors.prefix(16)
    assert np.allclose(small.corpus.vectors.prefix(16), l2_normalize(wide), atol=2e-3)
    assert "shrink" not in indexes["views"].manifest.rebuild(Path("x"))


@pytest.mark.parametrize("name", ["centre.npy", "rotation.npy"])
def test_damaged_axes_are_noticed(pictures: Path, tmp_path: Path, name: str) -> None:
    index = Index.build(pictures, tmp_path / "index", model=Mixed())
    file = index.folder / name
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    with pytest.raises(IndexFolderError, match=name):
        Index.open(index.folder)


def test_the_commands_choose_axes_and_show_them(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Mixed()
    monkeypatch.setattr("mrl_search.encoders.registry.load_encoder", lambda model, *_: encoder)
    out = tmp_path / "index"
    asked = ["build-index", str(pictures), "--out", str(out), "--axes", "labels"]
    run = CliRunner().invoke(app, asked)
    assert run.exit_code == 0 and "axes labels" in run.stderr
    shown = CliRunner().invoke(app, ["info", str(out)])
    assert "axes labels" in shown.stdout
    check = CliRunner().invoke(app, ["info", str(out), "--check"])
    assert "axes labels, this index" in check.stdout and "axes views" in check.stdout
    assert "n = 8 pictures that did not fit the measured axes" in check.stderr
    for damage in ({"a": 1}, {"kept": []}, {"kept": {"pca": [{}]}, "choice": 3}, {"viewed": "x"}):
        manifest = json.loads((out / "manifest.json").read_text())
        whole = manifest["axes"]
        manifest["axes"] = damage if "viewed" not in damage else {**whole, **damage}
        (out / "manifest.json").write_text(json.dumps(manifest))
        check = CliRunner().invoke(app, ["info", str(out), "--check"])
        assert check.exit_code == 0 and "record of axes is damaged" in check.stderr, damage
        (out / "manifest.json").write_text(json.dumps({**manifest, "axes": whole}))
    refused = CliRunner().invoke(app, [*asked[:3], str(tmp_path / "b"), "--axes", "odd"])
    assert refused.exit_code == 1 and "There are no axes 'odd'." in refused.stderr


class Odd(Mixed):
    """Gives every third picture of a batch, or all, a vector that cannot be used."""

    kind = "nan"

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        rows = super().encode(pictures)
        if self.kind == "short":
            return rows[:1]
        if self.kind == "zero":
            return np.zeros_like(rows)
        rows[::3, 1] = np.inf if self.kind == "inf" else np.nan
        return rows


@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize("axes", ["none", "pca"])
def test_pictures_without_a_finite_vector_are_skipped(
    pictures: Path, tmp_path: Path, kind: str, axes: str
) -> None:
    encoder = Odd()
    encoder.kind = kind
    index = Index.build(pictures, tmp_path / "index", model=encoder, axes=axes)
    skipped = index.corpus.collection.skipped
    assert len(skipped) == 28  # a third of a batch of 64, and of one of 16
    assert all("not finite" in entry.reason for entry in skipped)
    assert len(index) + len(skipped) == 80
    assert np.isfinite(index.corpus.vectors.rows().astype(np.float32)).all()


@pytest.mark.parametrize(("kind", "message"), [("short", "of shape"), ("zero", "of zeros")])
def test_an_encoder_that_gives_nothing_useful_is_said(
    pictures: Path, tmp_path: Path, kind: str, message: str
) -> None:
    encoder = Odd()
    encoder.kind = kind
    with pytest.raises(ModelError, match=message):
        Index.build(pictures, tmp_path / "index", model=encoder)


def test_only_pictures_that_can_be_read_count_for_axes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 15, size=32)
    for path in sorted((tmp_path / "pictures").rglob("*.jpg"))[3:]:
        path.write_bytes(b"broken")
    with pytest.raises(ConfigError, match="at least 20 pictures; there are 3"):
        Index.build(tmp_path / "pictures", tmp_path / "index", model=Mixed(), axes="views")
    default = Index.build(tmp_path / "pictures", tmp_path / "default", model=Mixed())
    assert default.manifest.axes["choice"] == "pca" and len(default) == 3


def test_constants_leave_pictures_to_measure() -> None:
    assert module.MEASURED <= module.FITTED and module.TESTED <= module.HELD_OUT
