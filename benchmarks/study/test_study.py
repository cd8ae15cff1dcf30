"""A study from its definition to tables and figures, on a few pictures; its parts by hand."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState
from controls import plane, principal, shuffled, spectrum
from definition import jobs_of, load_study
from figures import draw_part
from PIL import Image
from quality import Part, Representation, head_answers, neighbours, probe_answers, quality
from records import bits_of, outcomes_of, read_part, write_records
from running import Places, run_part, state_of, with_sources
from significance import equivalence_test, holm
from tables import part_tables
from typer.testing import CliRunner

from mrl_search.encoders.embed import embed_pictures
from mrl_search.encoders.registry import load_encoder
from mrl_search.errors import ConfigError, DataError
from mrl_search.images.decode import decode
from mrl_search.images.sources import open_source
from mrl_search.measure.copies import changed_copy
from mrl_search.metrics import mcnemar_exact
from mrl_search.search.cascade import learn_cascade, run_cascade
from mrl_search.training.pixels import load_pixels
from mrl_search.training.recipes import recipe_names
from mrl_search.training.records import StepRecord
from mrl_search.training.split import split_rows
from mrl_search.vectors import prefix

STUDY = Path(__file__).parent
SPECIES = ("cat", "dog")
DEFINITION = """
[sources.drawn]
path = "PICTURES"
group = "group"

[parts.all]
about = "Everything, in small."
source = "drawn"
dims = [8, 12, 16]
compare = [["single", "many"]]
instance = ["standard"]
scatter = [8, 16]
runs = [
  { name = "many", row = "MRL", recipe = "tiny.toml" },
  { name = "tied", row = "MRL-E", recipe = "tiny.toml", set = ["model.heads=tied"] },
  { name = "single", row = "FF", recipe = "tiny.toml", prefixes = false, controls = true, set = [
    "model.dims=[16]",
  ] },
  { name = "eight", row = "FF", recipe = "tiny.toml", prefixes = false, controls = true, set = [
    "model.dims=[8]",
  ] },
  { name = "similarity", recipe = "tiny.toml", set = [
    "objective.label=0", "objective.instance=1",
  ] },
]

[parts.folds]
about = "5x2."
source = "drawn"
cross_validate = true
compare = [["single", "many"]]
dims = [8, 16]
runs = [
  { name = "many", recipe = "tiny.toml", set = ["schedule.epochs=1"] },
  { name = "single", recipe = "tiny.toml", prefixes = false, set = [
    "schedule.epochs=1", "model.dims=[16]",
  ] },
]
"""
TINY = """
name = "tiny"
[model]
widths = [8, 8, 16, 16]
dims = [8, 16]
[data]
validation = 0.25
[augment]
scale = [1.0, 1.0]
[objective]
instance = 0.0
[schedule]
epochs = 2
batch = 8
lr = 0.01
precision = "no"
sizes = { "0" = 32 }
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study of 48 noisy pictures and a broken one, completely run."""
    import datasets

    folder = tmp_path_factory.mktemp("study")
    animals = [(s, i) for i in range(24) for s in range(len(SPECIES))]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(SPECIES)),
            "group": datasets.ClassLabel(names=["even", "odd"]),
        }
    )
    rng = np.random.default_rng(0)
    images: list = []
    for s, _ in animals:
        pixels = rng.integers(0, 120, (6, 6, 3), dtype=np.uint8)
        pixels[..., 2 * s] += 120
        images.append(Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC))
    images.insert(7, {"bytes": b"no picture", "path": "broken.png"})
    species = [s for s, _ in animals]
    species.insert(7, 0)
    rows = {"image": images, "label": species, "group": species}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "animals.parquet"))
    (folder / "tiny.toml").write_text(TINY)
    (folder / "study.toml").write_text(
        DEFINITION.replace("PICTURES", str(folder / "animals.parquet"))
    )
    study, places = load_study(folder / "study.toml"), Places(folder / "runs", folder / "records")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr("mrl_search.provenance.commit", lambda: "0123456789")
        patch.setattr("mrl_search.search.cascade.GIVES", (0.01, 1.0))  # the second stops all
        for part in study.parts:
            for _ in run_part(study, part, places):
                pass
        yield folder
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def lines(place: Path, key: str, kind: str) -> list[dict]:
    return [
        r
        for r in map(
            json.loads, (place / "records" / "all" / f"{key}.jsonl").read_text().splitlines()
        )
        if r["kind"] == kind
    ]


# The committed definition


def test_the_definition_of_the_study_is_whole() -> None:
    study = load_study(STUDY / "study.toml")
    counts = {name: len(jobs_of(study, name)) for name in study.parts}
    assert counts == {
        "seed": 3,
        "seed-reduced-published": 3,
        "seed-reduced": 3,
        "significance": 30,
        "significance-rates": 3,
        "animals": 12,
        "ablation": 6,
        "ablation-reduced": 12,
    }
    seed, reduced = (jobs_of(study, name)[0].config for name in ("seed", "seed-reduced"))
    assert (seed.model.widths, seed.schedule.size(0)) == ((256, 512, 512, 512), 256)
    assert (reduced.model.widths, reduced.schedule.size(0)) == ((64, 128, 128, 128), 128)
    folds = jobs_of(study, "significance")
    assert {
        (
            j.repetition,
            j.fold,
            j.config.data.split_seed,
            j.config.data.swap,
            j.config.data.validation,
            j.config.seed,
        )
        for j in folds
    } == {(r, f, r, f == 1, 0.5, r) for r in range(5) for f in (0, 1)}
    animals = jobs_of(study, "animals")
    assert [j.config.model.heads for j in animals][:3] == ["linear", "tied", "linear"]
    alone = [j.config.model.dims[0] for j in animals if len(j.config.model.dims) == 1]
    assert sorted(alone) == [
        8,
        16,
        32,
        64,
        128,
        256,
        512,
        1024,
        1024,
    ]  # the last one twice, at two rates
    assert {12, 24, 48, 96, 192, 384, 768} < set(study.part("animals").dims)
    parts = {
        (j.run.name, j.config.objective.label > 0, j.config.objective.instance > 0)
        for j in jobs_of(study, "ablation")
    }
    assert parts == {("joint", True, True), ("labels", True, False), ("similarity", False, True)}
    assert "tiny-animals" in recipe_names()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[parts.all]", "[parts.all]\nspeed = 3"), "unknown key 'speed'"),
        (('source = "drawn"', 'source = "films"'), "wants the source 'films'"),
        (('compare = [["single", "many"]]', 'compare = [["single", "none"]]'), "compares 'none'"),
        (('name = "tied"', 'name = "many"'), "need names, each its own"),
        (('recipe = "tiny.toml"', 'recipe = "none.toml"'), "There is no recipe"),
        (
            ('instance = ["standard"]', 'instance = ["harder"]'),
            "has other protocols than standard, hard: harder",
        ),
        (("[sources", "[[sources"), "is not TOML"),
    ],
)
def test_a_definition_that_makes_no_sense_is_a_sentence(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "study.toml").write_text(DEFINITION.replace(*change))
    with pytest.raises(ConfigError, match=words):
        load_study(tmp_path / "study.toml")


@pytest.mark.slow
def test_other_sources_and_unknown_names(place: Path) -> None:
    study = load_study(place / "study.toml")
    assert with_sources(study, ["drawn=elsewhere"]).sources["drawn"].path == "elsewhere"
    assert with_sources(study, ["drawn=elsewhere"]).sources["drawn"].group == "group"
    for wrong in ("films=x", "drawn"):
        with pytest.raises(ConfigError, match="is not NAME=PATH"):
            with_sources(study, [wrong])
    with pytest.raises(ConfigError, match="no part 'none'"):
        study.part("none")
    with pytest.raises(ConfigError, match="no run 'none'"):
        next(run_part(study, "all", Places(place / "runs", place / "records"), only="none"))


# Running


@pytest.mark.slow
def test_every_job_leaves_its_records(place: Path) -> None:
    names = sorted(p.stem for p in (place / "records" / "all").iterdir())
    assert names == ["eight-seed0", "many-seed0", "similarity-seed0", "single-seed0", "tied-seed0"]
    assert len(list((place / "records" / "folds").iterdir())) == 20
    (job,) = lines(place, "many-seed0", "job")
    assert (job["images"], job["skipped"], job["recipe"]["name"], job["row"]) == (
        48,
        1,
        "all-many",
        "MRL",
    )
    epochs = lines(place, "many-seed0", "epoch")
    assert [e["epoch"] for e in epochs] == [1, 2] and list(epochs[0]["accuracy"]) == ["8", "16"]
    assert job["seconds"] > sum(e["seconds"] for e in epochs)
    prefixes = lines(place, "many-seed0", "prefix")
    assert [(p["of"], p["dims"], p["n"], p["n_train"]) for p in prefixes] == [
        ("own", d, 12, 36) for d in (8, 12, 16)
    ]
    common = {"probe", "nn1", "nn20", "map10", "group_nn20", "instance_standard"}
    headed = common | {"head", "head_train", "group_head"}
    assert [set(p["shares"]) for p in prefixes] == [
        headed,
        common,
        headed,
    ]  # nobody trained a head at 12
    assert [set(p["shares"]) for p in lines(place, "tied-seed0", "prefix")] == [
        headed
    ] * 3  # a tied head serves any prefix
    for p in prefixes:
        if "head" in p["right"]:
            assert outcomes_of(p["right"]["head"], 12).mean() == p["shares"]["head"]
            assert p["shares"]["group_head"] == p["shares"]["head"]  # here a group is a class
    gap = prefixes[2]["shares"]["head"] - epochs[-1]["accuracy"]["16"]
    assert (
        abs(gap) < 0.1
    )  # the model on disk is the one that was validated, with weights in half precision
    controls = [(p["of"], p["dims"]) for p in lines(place, "single-seed0", "prefix")]
    wanted = ["pca", "random 0", "random 1", "random 2"]
    assert controls == [("own", 16)] + [(of, d) for of in wanted for d in (8, 12, 16)]
    assert {p["dims"] for p in lines(place, "eight-seed0", "prefix")} == {
        8
    }  # it cannot be cut to more than it has
    assert [set(p["shares"]) for p in lines(place, "similarity-seed0", "prefix")] == [common] * 3
    (line,) = lines(place, "many-seed0", "spectrum")
    assert (
        len(line["values"]) == 16
        and line["values"][0] == 1
        and line["values"] == sorted(line["values"], reverse=True)
    )
    scatter = lines(place, "many-seed0", "scatter")
    assert [(s["dims"], len(s["x"])) for s in scatter] == [(8, 12), (16, 12)]
    cascades = lines(place, "many-seed0", "cascade")
    assert [(c["by"], c["give"]) for c in cascades][:2] == [("head", 0.01), ("head", 1.0)]
    dims = {give: c["expected_dims"] for c in cascades if c["by"] == "head" for give in [c["give"]]}
    assert dims[1.0] <= dims[0.01]  # a larger loss never needs more dims
    assert all(c["n"] == 6 and 8 <= c["expected_dims"] <= 16 for c in cascades)


@pytest.mark.slow
def test_the_principal_axes_lose_nothing_at_full_length(place: Path) -> None:
    own, *rest = lines(place, "single-seed0", "prefix")
    for of in rest:
        if of["dims"] == 16:
            assert (
                of["shares"]["head"] == own["shares"]["head"]
                and of["right"]["head"] == own["right"]["head"]
            )
            assert of["shares"]["probe"] == pytest.approx(own["shares"]["probe"], abs=0.1)


@pytest.mark.slow
def test_records_say_what_the_stored_model_does(place: Path) -> None:
    """Copies, adaptive classification and spectrum again, without the broken picture."""
    (job,) = [
        job for job in jobs_of(load_study(place / "study.toml"), "all") if job.key == "many-seed0"
    ]
    encoder, source = (
        load_encoder(str(place / "runs" / "all" / job.key)),
        open_source(str(place / "animals.parquet")),
    )
    pixels = load_pixels(source, encoder.preprocessing.size)
    train, held_out = split_rows(pixels.labels, pixels.hashes, job.config.data)
    rows = embed_pictures(encoder, pixels.images.permute(0, 2, 3, 1).numpy())
    assert 7 not in pixels.rows and len(rows) == 48

    pictures = [(row, decode(source.read(row))[0]) for row in (pixels.rows[i] for i in held_out)]
    copies = embed_pictures(
        encoder,
        np.stack(
            [changed_copy(image, encoder.preprocessing.size, seed=row) for row, image in pictures]
        ),
    )
    for line in lines(place, job.key, "prefix"):
        first = (prefix(copies, line["dims"]) @ prefix(rows, line["dims"]).T).argmax(axis=1)
        assert line["shares"]["instance_standard"] == np.mean(first == held_out)

    (line,) = lines(place, job.key, "spectrum")
    values = np.linalg.svd(rows[train] - rows[train].mean(axis=0), compute_uv=False)
    assert line["values"] == pytest.approx(values / values[0], abs=1e-4)

    part = Part(rows[held_out], np.array(pixels.labels, dtype=object)[held_out])
    own = Representation("own", part, part, encoder.heads.weights, encoder.heads.classes)
    answers = [head_answers(own, d, part) for d in (8, 16)]
    sure, right = (
        np.stack([confidence for _, confidence in answers], axis=1),
        np.stack([labels == part.labels for labels, _ in answers], axis=1),
    )
    learn, test = np.split(np.random.default_rng(0).permutation(12), 2)
    for line in (line for line in lines(place, job.key, "cascade") if line["by"] == "head"):
        cascade = learn_cascade(sure[learn], right[learn], (8, 16), line["give"])
        assert line["thresholds"] == pytest.approx(cascade.thresholds, abs=1e-5)
        assert line["accuracy"] == run_cascade(cascade, sure[test], right[test]).accuracy
        assert line["fixed"] == {"8": right[test, 0].mean(), "16": right[test, 1].mean()}


@pytest.mark.slow
def test_what_is_recorded_is_not_run_again_and_what_was_stopped_goes_on(
    place: Path, tmp_path: Path
) -> None:
    study, places = load_study(place / "study.toml"), Places(place / "runs", place / "records")
    assert {s.state for s in state_of(study, "all", places)} == {"done"}
    assert list(run_part(study, "all", places)) == []
    fresh = Places(tmp_path / "runs", tmp_path / "records")

    def stop(job: object, record: object) -> None:
        if isinstance(record, StepRecord) and (record.epoch, record.done) == (2, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_part(study, "all", fresh, only="many", notify=stop))
    assert [s.state for s in state_of(study, "all", fresh)] == [
        "begun",
        "open",
        "open",
        "open",
        "open",
    ]
    (job,) = run_part(study, "all", fresh, only="many")
    assert job.key == "many-seed0"
    broken, whole = (
        (root / "records" / "all" / "many-seed0.jsonl").read_text().splitlines()
        for root in (tmp_path, place)
    )
    timeless = [
        [line for line in text if '"kind": "job"' not in line and '"kind": "epoch"' not in line]
        for text in (broken, whole)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.slow
def test_records_of_another_recipe_are_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("lr = 0.01", "lr = 0.02"))
    (tmp_path / "study.toml").write_text((place / "study.toml").read_text())
    with pytest.raises(DataError, match=r"many-seed0.jsonl was made by another recipe"):
        state_of(
            load_study(tmp_path / "study.toml"), "all", Places(place / "runs", place / "records")
        )
    (tmp_path / "study.toml").write_text(
        (place / "study.toml").read_text().replace('name = "tied"', 'name = "bound"')
    )
    (tmp_path / "tiny.toml").write_text(TINY)
    with pytest.raises(DataError, match=r"tied-seed0.jsonl is of no run that the study has"):
        state_of(
            load_study(tmp_path / "study.toml"), "all", Places(place / "runs", place / "records")
        )


@pytest.mark.slow
def test_a_model_of_another_recipe_or_source_is_not_measured(place: Path, tmp_path: Path) -> None:
    """A job that stopped while it was measured, and has another definition since."""
    (tmp_path / "tiny.toml").write_text(TINY.replace("lr = 0.01", "lr = 0.02"))
    (tmp_path / "study.toml").write_text((place / "study.toml").read_text())
    other_source = with_sources(
        load_study(place / "study.toml"), [f"drawn={place}/./animals.parquet"]
    )
    for study in (load_study(tmp_path / "study.toml"), other_source):
        with pytest.raises(DataError, match="was trained by another recipe or on another source"):
            list(run_part(study, "all", Places(place / "runs", tmp_path / "records"), only="many"))
    assert not (tmp_path / "records").exists()


@pytest.mark.slow
def test_a_run_of_axes_alone_is_measured(place: Path, tmp_path: Path) -> None:
    axes = TINY.replace("epochs = 2", "epochs = 0").replace(
        "dims = [8, 16]", 'dims = [8, 16]\npool = "stages"'
    )
    (tmp_path / "axes.toml").write_text(
        f'init = "{place / "runs" / "all" / "many-seed0"}"\n{axes}[axes]\nshare = 0.3\n'
    )
    (tmp_path / "tiny.toml").write_text(TINY)
    text = (place / "study.toml").read_text().split("[parts.folds]")[0]
    text = text.replace(
        'name = "tied", row = "MRL-E", recipe = "tiny.toml", set = ["model.heads=tied"]',
        'name = "axes", recipe = "axes.toml"',
    )
    (tmp_path / "study.toml").write_text(text)
    study, places = (
        load_study(tmp_path / "study.toml"),
        Places(tmp_path / "runs", tmp_path / "records"),
    )
    assert [job.key for job in run_part(study, "all", places, only="axes")] == ["axes-seed0"]
    (record,) = read_part(places.records, "all")
    assert record.of("epoch") == [] and record.job["seconds"] > 0
    assert [p["dims"] for p in record.of("prefix")] == [8, 12, 16]


# Tables and figures


@pytest.mark.slow
def test_tables_are_made_from_records_alone(place: Path) -> None:
    study = load_study(place / "study.toml")
    jobs = read_part(place / "records", "all")
    text = part_tables("all", study.part("all"), jobs)
    assert text == part_tables("all", study.part("all"), read_part(place / "records", "all"))
    assert "5 runs on 48 images, 12 of them for validation" in text
    head = text.split("**Linear head, top-1**")[1].split("**")[0]
    cells = {
        row.split("|")[1].strip(): [c.strip() for c in row.split("|")[2:5]]
        for row in head.splitlines()
        if row.startswith("| ")
    }
    own = {
        p["dims"]: p["shares"]["head"]
        for p in lines(place, "many-seed0", "prefix")
        if "head" in p["shares"]
    }
    assert cells["dims"] == ["8", "12", "16"]
    assert cells["MRL"] == [f"{own[8]:.1%}", "", f"{own[16]:.1%}"]
    assert cells["FF"][1] == "" and "" not in (
        cells["FF"][0],
        cells["FF"][2],
    )  # two networks in one row
    assert {"MRL-E", "single, PCA", "single, random dims"} <= set(cells)
    assert "(one seed; random dims: mean of 3 shuffles ± half their range)" in text
    assert "| many-seed0, linear heads | " in text and " at 16 | " in text
    slow = [
        type(jobs[0])(
            jobs[0].job,
            [
                dict(line, seconds=7200) if line["kind"] == "epoch" else line
                for line in jobs[0].lines
            ],
        )
    ]
    assert "; 4.0 hours on " in part_tables(
        "all", study.part("all"), slow
    )  # of a job that was stopped, and only knows its last hour
    again = type(jobs[0])({**jobs[0].job, "seed": 1}, jobs[0].lines)
    both = part_tables("all", study.part("all"), [jobs[0], again, jobs[1]])
    assert f"(mean of 2 seeds ± half their range; {jobs[1].job['run']}: one seed" in both
    for title in (
        "20-NN, top-1",
        "mAP@10",
        "Group by 20-NN",
        "Instance recall@1, standard copies",
        "Adaptive classification",
    ):
        assert title in text
    right = {
        (key, p["dims"]): outcomes_of(p["right"]["head"], 12)
        for key in ("many-seed0", "single-seed0")
        for p in lines(place, key, "prefix")
        if p["of"] == "own" and "head" in p["right"]
    }
    short, long, single = right["many-seed0", 8], right["many-seed0", 16], right["single-seed0", 16]
    rows = text.split("against single at 16 dims")[1]
    two = [mcnemar_exact(single, right) for right in (short, long)]
    other, own_length = equivalence_test(short, single, 0.01), equivalence_test(short, long, 0.01)
    assert [cell.strip() for cell in rows.split("| 8 |")[1].split("\n")[0].split("|")] == [
        f"{other.difference:+.2%} ({other.interval[0]:+.1%} to {other.interval[1]:+.1%})",
        f"{mcnemar_exact(single, short):.3f}",
        f"{holm(two)[0]:.3f}",
        f"{other.p:.3f}",
        f"{own_length.p_worse:.3f}",
        f"{own_length.p:.3f}",
        "",
    ]
    last = [cell.strip() for cell in rows.split("| 16 |")[1].split("\n")[0].split("|")]
    assert last[1:] == [
        f"{mcnemar_exact(single, long):.3f}",
        f"{holm(two)[1]:.3f}",
        f"{equivalence_test(long, single, 0.01).p:.3f}",
        "",
        "",
        "",
    ]


@pytest.mark.slow
def test_the_tables_of_a_cross_validation(place: Path) -> None:
    spec = load_study(place / "study.toml").part("folds")
    jobs = read_part(place / "records", "folds")
    text = part_tables("folds", spec, jobs)
    assert (
        "F(10, 5)" in text
        and "many, each prefix, against single at 16 dims" in text
        and "margin 1%" in text
    )
    accuracy = {
        (j.job["run"], j.job["repetition"], j.job["fold"]): {
            p["dims"]: p["shares"]["head"] for p in j.of("prefix")
        }
        for j in jobs
    }
    mean = np.mean(
        [accuracy["many", r, f][8] - accuracy["single", r, f][16] for r in range(5) for f in (0, 1)]
    )
    row = text.split("| dims | many minus single")[1].split("\n| 8 |")[1].split("|")
    assert row[0].strip() == f"{mean:+.2%}"
    right = {
        (job.job["run"], job.job["repetition"], p["dims"], job.job["fold"]): outcomes_of(
            p["right"]["head"], p["n"]
        )
        for job in jobs
        for p in job.of("prefix")
        if p["of"] == "own"
    }
    both = {key[:3]: np.concatenate([right[(*key[:3], fold)] for fold in (0, 1)]) for key in right}
    spans = [
        [mcnemar_exact(both["single", r, 16], both["many", r, 8]) for r in range(5)],
        [equivalence_test(both["many", r, 8], both["many", r, 16], 0.01).p_worse for r in range(5)],
        [equivalence_test(both["many", r, 8], both["many", r, 16], 0.01).p for r in range(5)],
    ]
    assert [cell.strip() for cell in row[4:7]] == [
        f"{min(span):.3f} to {max(span):.3f}" for span in spans
    ]
    some = [j for j in jobs if j.job["repetition"] < 3]
    assert "3 of 5 repetitions are done" in part_tables("folds", spec, some)
    assert part_tables("folds", spec, []) == ""


@pytest.mark.slow
def test_figures_are_drawn_and_always_the_same(place: Path, tmp_path: Path) -> None:
    jobs = read_part(place / "records", "all")
    first, again = (draw_part("all", jobs, tmp_path / name) for name in ("a", "b"))
    assert [f.name for f in first] == [
        f"all-{w}.png" for w in ("curves", "planes", "spectra", "adaptive")
    ]
    for a, b in zip(first, again, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
        assert a.stat().st_size > 5000
    changed = json.loads(json.dumps(jobs[1].lines))
    changed[0]["accuracy"]["8"] = 0.123
    other = draw_part(
        "all", [jobs[0], type(jobs[1])(jobs[1].job, changed), *jobs[2:]], tmp_path / "c"
    )
    assert (
        other[0].read_bytes() != first[0].read_bytes()
        and other[2].read_bytes() == first[2].read_bytes()
    )
    assert draw_part("none", [], tmp_path / "d") == []


@pytest.mark.slow
def test_the_script_does_it_all(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(STUDY))
    monkeypatch.setattr("mrl_search.provenance.commit", lambda: "0123456789")
    sys.modules.pop("study", None)
    import study as script

    here = ["--study", str(place / "study.toml"), "--records", str(place / "records")]
    run = CliRunner().invoke
    listed = run(script.app, ["list", *here, "--runs", str(place / "runs")])
    assert (
        listed.exit_code == 0 and listed.output.count("done") == 25 and "open" not in listed.output
    )
    (place / "records" / "all" / "many-seed0.jsonl").unlink()
    shutil.rmtree(place / "runs" / "all" / "many-seed0")
    ran = run(script.app, ["run", "all", *here, "--runs", str(place / "runs")])
    assert ran.exit_code == 0 and "next:" in ran.output
    assert (
        "many-seed0  epoch 2/2" in ran.output
        and "many-seed0  measuring" in ran.output
        and "many-seed0  recorded in" in ran.output
    )
    assert run(script.app, ["tables", *here, "--out", str(tmp_path / "tables.md")]).exit_code == 0
    assert "## folds" in (tmp_path / "tables.md").read_text()
    assert run(script.app, ["figures", *here, "--out", str(tmp_path / "figures")]).exit_code == 0
    assert (tmp_path / "figures" / "folds-curves.png").exists()
    wrong = run(script.app, ["run", "none", *here])
    assert wrong.exit_code == 1 and "error: The study has no part 'none'." in wrong.output


# What is measured, by hand


def _part(rows: list[list[float]], labels: list[str], groups: tuple[str, ...] = ()) -> Part:
    return Part(
        np.array(rows, dtype=np.float32),
        np.array(labels, dtype=object),
        np.array(groups, dtype=object),
    )


def test_one_prefix_by_hand() -> None:
    """On the first dim cats are right and dogs left; the head is wrong on the third image."""
    train = _part(
        [[2, 0], [1, 0], [-1, 1], [-2, 0]],
        ["cat", "cat", "dog", "dog"],
        ("pet", "pet", "pet", "pet"),
    )
    held_out = _part([[3, 0], [-1, 0], [0.5, -9]], ["cat", "dog", "dog"], ("pet", "pet", "wild"))
    heads = {1: (np.array([[1.0], [-1.0]], np.float32), np.array([0.25, -0.25], np.float32))}
    of = Representation("own", train, held_out, heads, ("cat", "dog"))
    shares, answers = quality(of, 1, probe_answers(of, [1])[1])
    assert answers["head"].right.tolist() == [True, True, False]
    odds = 1 / (1 + np.exp(-(2 * np.array([3, -1, 0.5]) + 0.5)))
    assert answers["head"].confidence == pytest.approx(np.maximum(odds, 1 - odds))
    assert (
        shares["head"] == shares["nn1"] == shares["probe"] == shares["nn20"] == pytest.approx(2 / 3)
    )
    assert shares["head_train"] == 1
    assert shares["group_head"] == shares["group_nn20"] == pytest.approx(2 / 3)
    right_first, wrong_first = (
        2 / 4,
        (1 / 3 + 2 / 4) / 4,
    )  # four neighbours: the two of the own class come first, or last
    assert shares["map10"] == pytest.approx((2 * right_first + wrong_first) / 3)


def test_a_head_without_bias_reads_the_prefix_at_unit_length() -> None:
    part = _part([[3, 4], [0.3, 0.4]], ["a", "b"])
    head = {2: (np.array([[5.0, 0], [0, 5.0]], np.float32), np.zeros(2, np.float32))}
    of = Representation("own", part, part, head, ("a", "b"))
    assert head_answers(of, 2, part)[1] == pytest.approx([1 / (1 + np.exp(-1))] * 2)


def test_neighbours_are_the_exact_ones_in_order() -> None:
    rng = np.random.default_rng(0)
    corpus, queries = (
        rng.normal(size=(300, 6)).astype(np.float32),
        rng.normal(size=(270, 6)).astype(np.float32),
    )
    hits = neighbours(corpus, queries, 5)
    cosine = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        corpus / np.linalg.norm(corpus, axis=1, keepdims=True)
    ).T
    assert np.array_equal(hits.ids, np.argsort(-cosine, axis=1)[:, :5])
    assert neighbours(corpus[:3], queries, 5).ids.shape == (270, 3)


def test_a_probe_is_least_squares() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 4)).astype(np.float32)
    labels = np.where(rows[:, 2] > 0.2, "up", "down").astype(object)
    part = Part(rows, labels)
    of = Representation("own", part, part)
    found = probe_answers(of, [2, 4])
    design = np.c_[rows, np.ones(200)]
    wanted = (
        design @ np.linalg.lstsq(design, np.where(labels == "up", 1.0, -1.0), rcond=None)[0] > 0
    )
    assert np.mean((found[4] == "up") == wanted) > 0.99
    assert (
        np.mean(found[2] == labels) < 0.75 < np.mean(found[4] == labels)
    )  # what decides lies in the third dim


def test_principal_axes_by_hand() -> None:
    """Points on a line: one axis holds them, and the network's head works on it as before."""
    rows = [[3, 3], [1, 1], [-1, -1], [-3, -3.1]]
    part = _part(rows, ["a", "a", "b", "b"])
    head = {2: (np.array([[1, 1], [-1, -1]], np.float32), np.array([0.1, 0], np.float32))}
    of = Representation("own", part, part, head, ("a", "b"))
    turned = principal(of, (1, 2))
    assert np.abs(turned.train.rows[:, 1]).max() < 0.1
    assert np.linalg.norm(turned.train.rows[0]) == pytest.approx(np.hypot(3, 3.025), rel=1e-3)
    for d in (1, 2):
        assert head_answers(turned, d, turned.validation)[0].tolist() == ["a", "a", "b", "b"]
    for d in (2,):
        assert head_answers(turned, d, turned.validation)[1] == pytest.approx(
            head_answers(of, d, part)[1], abs=1e-5
        )


def test_principal_axes_are_those_of_the_training_part() -> None:
    train = _part([[8, 8], [6, 6], [4, 4], [2, 2]], ["a", "a", "b", "b"])
    held_out = _part(
        [[6, 4], [15, -5], [-15, 25], [7, 7]], ["a", "a", "b", "b"]
    )  # they vary across the line
    turned = principal(Representation("own", train, held_out), (1, 2)).validation.rows
    assert np.abs(turned) == pytest.approx(
        np.sqrt(2) * np.array([[0, 1], [0, 10], [0, 20], [2, 0]]), abs=1e-5
    )


def test_random_dims_take_their_columns_of_the_head_along() -> None:
    rng = np.random.default_rng(2)
    part = Part(
        rng.normal(size=(9, 6)).astype(np.float32), np.array(["a", "b", "c"] * 3, dtype=object)
    )
    head = {6: (rng.normal(size=(3, 6)).astype(np.float32), rng.normal(size=3).astype(np.float32))}
    of = Representation("own", part, part, head, ("a", "b", "c"))
    for seed in range(3):
        cut = shuffled(of, (2, 6), seed)
        assert cut.name == f"random {seed}"
        assert head_answers(cut, 6, cut.train)[1] == pytest.approx(
            head_answers(of, 6, part)[1], rel=1e-5
        )
        columns = [
            int(np.flatnonzero((part.rows == cut.train.rows[:, [i]]).all(axis=0))[0])
            for i in range(2)
        ]
        assert np.array_equal(cut.heads[2][0], head[6][0][:, columns])
    assert not np.array_equal(shuffled(of, (2,), 0).train.rows, shuffled(of, (2,), 1).train.rows)


def test_spectrum_and_plane_by_hand() -> None:
    rows = np.array([[2, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]], np.float32)
    assert spectrum(rows + 7) == pytest.approx([1, 0.5, 0])
    points = plane(rows)
    assert np.abs(points) == pytest.approx(np.abs(rows[:, :2]), abs=1e-6)
    assert (
        points[:, 0].max() == pytest.approx(2)
        and (points[np.abs(points).argmax(axis=0), [0, 1]] > 0).all()
    )
    assert spectrum(np.ones((3, 2), np.float32)).tolist() == [0, 0]


def test_outcomes_survive_as_bits() -> None:
    right = np.random.default_rng(3).random(37) < 0.8
    assert np.array_equal(outcomes_of(bits_of(right), 37), right)
    assert bits_of(np.array([True, False, False, False, False, False, False, True])) == "81"


def test_records_of_uncommitted_code_make_no_table(tmp_path: Path) -> None:
    file, job = tmp_path / "part" / "a.jsonl", {"kind": "job", "run": "a"}
    for commit in (None, "0123456789"):
        write_records(file, [{**job, "commit": commit}])
        assert len(read_part(tmp_path, "part")) == 1
    write_records(file, [{**job, "commit": "0123456789-dirty"}])
    with pytest.raises(DataError, match=r"a.jsonl has records of uncommitted code, 0123456789-d"):
        read_part(tmp_path, "part")


def test_records_that_are_none_are_a_sentence(tmp_path: Path) -> None:
    write_records(tmp_path / "part" / "a.jsonl", [{"kind": "job", "run": "a"}, {"kind": "epoch"}])
    (job,) = read_part(tmp_path, "part")
    assert job.of("epoch") == [{"kind": "epoch"}] and job.of("prefix") == []
    (tmp_path / "part" / "b.jsonl").write_text('{"kind": "epoch"}\n')
    with pytest.raises(DataError, match=r"b.jsonl does not hold the records of a job"):
        read_part(tmp_path, "part")
    assert read_part(tmp_path, "none") == []
