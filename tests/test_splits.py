"""The split: stratified, equal bytes on one side, and the same for everyone from the seed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_search.errors import DataError
from mrl_search.training.split import digest, stratified_split


def _corpus(**counts: int) -> tuple[list[str | None], list[str]]:
    labels: list[str | None] = [label for label, n in counts.items() for _ in range(n)]
    return labels, [f"{i:08x}" for i in np.random.default_rng(5).permutation(len(labels))]


def test_each_label_gives_its_share() -> None:
    labels, hashes = _corpus(cat=200, dog=100, newt=30)
    train, validation = stratified_split(labels, hashes, 0.1, 0)
    counts = {name: sum(labels[i] == name for i in validation) for name in ("cat", "dog", "newt")}
    assert counts == {"cat": 20, "dog": 10, "newt": 3}
    assert sorted([*train, *validation]) == list(range(330))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(validation) > 0)


def test_images_without_a_label_are_split_too() -> None:
    train, validation = stratified_split([None] * 50, [str(i) for i in range(50)], 0.2, 0)
    assert (len(train), len(validation)) == (40, 10)


def test_equal_bytes_stay_on_one_side() -> None:
    labels = ["cat", "dog"] * 60
    hashes = [
        f"h{i // 3}" for i in range(120)
    ]  # every picture three times, and each time under both labels
    for seed in range(5):
        train, validation = stratified_split(labels, hashes, 0.3, seed)
        assert not {hashes[i] for i in train} & {hashes[i] for i in validation}
        assert len(train) + len(validation) == 120
        assert len(validation) == 36


def test_the_seed_decides_and_nothing_else() -> None:
    labels, hashes = _corpus(cat=100, dog=100)
    splits = [stratified_split(labels, hashes, 0.1, seed)[1].tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_the_order_of_the_files_does_not_matter() -> None:
    labels, hashes = _corpus(cat=90, dog=60)
    order = np.random.default_rng(1).permutation(150)
    here = {hashes[i] for i in stratified_split(labels, hashes, 0.1, 3)[1]}
    there = {
        hashes[order[i]]
        for i in stratified_split([labels[i] for i in order], [hashes[i] for i in order], 0.1, 3)[1]
    }
    assert here == there


def test_a_digest_names_images_and_labels_in_whatever_order() -> None:
    labels, hashes = _corpus(cat=9, dog=6)
    name = digest(labels, hashes)
    assert digest(labels[::-1], hashes[::-1]) == name
    assert digest(labels[1:], hashes[1:]) != name
    assert digest(labels, ["another", *hashes[1:]]) != name
    assert digest([None, *labels[1:]], hashes) != name


def test_a_known_split_stays_what_it_is() -> None:
    """A run that was begun with one version is validated on the same images by the next."""
    hashes = [f"{i:04d}" for i in range(30)]
    assert stratified_split(["a", "b"] * 15, hashes, 0.2, 0)[1].tolist() == [4, 5, 6, 22, 23, 29]


@pytest.mark.parametrize(("n", "share"), [(0, 0.1), (1, 0.1), (4, 0.1), (1, 0.9), (3, 0.95)])
def test_too_few_images_are_refused(n: int, share: float) -> None:
    with pytest.raises(DataError, match=f"{n} images cannot be split"):
        stratified_split(["a"] * n, [str(i) for i in range(n)], share, 0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), min_size=20, max_size=80),
    st.integers(0, 3),
)
def test_whatever_the_corpus_the_sides_are_whole(items: list[tuple[str, int]], seed: int) -> None:
    labels, hashes = [a for a, _ in items], [str(b) for _, b in items]
    try:
        train, validation = stratified_split(labels, hashes, 0.3, seed)
    except DataError:
        return
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(items)))
    assert not {hashes[i] for i in train} & {hashes[i] for i in validation}
