"""Pictures of one individual: how paths name it, who is paired, and what training makes of it."""

from dataclasses import replace
from pathlib import Path

import accelerate
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import TINY, change, noise_pixels, same, train_tiny, weights_of
from torch import Tensor, nn

from mrl_search.errors import ConfigError
from mrl_search.training.config import DataConfig
from mrl_search.training.individuals import individual_numbers, individuals_of, partners
from mrl_search.training.objective import InfoNCE, Objective
from mrl_search.training.split import split_rows

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
BY_NAME = DataConfig(validation=0.25, individual=r"([^/]+)-\d+\.jpg$")
TAUGHT = change(
    TINY, data__individual=r"(\d+)-\d+\.jpg$", data__validation=0.2, objective__individual=1.0
)


def test_the_group_of_the_expression_names_the_individual() -> None:
    paths, hashes = ["a/tom-1.jpg", "a/tom-2.jpg", "b/tom.png", "b/kit-1.jpg"], list("wxyz")
    assert individuals_of(paths, hashes, BY_NAME.individual) == ["tom", "tom", "y", "kit"]
    assert individuals_of(paths, hashes, "([^/]+)/[^/]+$") == ["a", "a", "b", "b"]
    assert individuals_of(paths, hashes, "") == hashes
    assert individuals_of([], hashes, BY_NAME.individual) == hashes
    names = ["tom", "tom", "y", "kit", "y"]
    numbers = individual_numbers(names, torch.tensor([0, 1, 2, 4]).numpy())
    assert numbers.tolist() == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match="no individual with two of the 2 training images"):
        individual_numbers(["tom", "kit"], torch.arange(2).numpy())


@pytest.mark.parametrize("pattern", ["(", "abc", "(a)(b)"])
def test_an_expression_has_one_group(pattern: str) -> None:
    with pytest.raises(ConfigError, match="must be a regular expression with one group"):
        individuals_of(["a"], ["b"], pattern)


def test_an_individual_trains_or_validates_as_a_whole() -> None:
    paths = [f"cat/tom{i // 3}-{i}.jpg" for i in range(60)]
    hashes, labels = [f"{i:03d}" for i in range(60)], ["cat"] * 60
    train, validation = split_rows(labels, hashes, BY_NAME, paths)
    assert len(validation) == 15 and not {i // 3 for i in train} & {i // 3 for i in validation}
    without = split_rows(labels, hashes, replace(BY_NAME, individual=""), paths)
    assert [rows.tolist() for rows in without] == [
        rows.tolist() for rows in split_rows(labels, hashes, BY_NAME)
    ]


def test_partners_are_other_pictures_of_the_same_individual() -> None:
    individuals = torch.tensor([3, 1, 3, 2, 1, 3])
    drawn = torch.stack(
        [partners(individuals, torch.Generator().manual_seed(i)) for i in range(40)]
    )
    assert (individuals[drawn] == individuals).all()
    own = drawn == torch.arange(6)
    assert own[:, 3].all() and not own[:, [0, 1, 2, 4, 5]].any()
    assert {tuple(row) for row in drawn[:, [0]].tolist()} == {(2,), (5,)}


def test_rows_of_one_individual_do_not_repel() -> None:
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    unit = F.normalize(rows, dim=1)
    logits = unit @ unit.T / 0.1
    near = InfoNCE(0.1)
    expected = []
    for i, other, left_out in ((0, 2, (0, 4)), (1, 3, (1, 5)), (2, 0, (2, 4)), (3, 1, (3, 5))):
        kept = [j for j in range(6) if j not in left_out]
        expected.append(torch.logsumexp(logits[i, kept], 0) - logits[i, other])
    assert near(rows, torch.tensor([7, 8, 7, 8])).item() == pytest.approx(
        torch.stack(expected).mean().item(), rel=1e-5
    )


class Fixed(nn.Module):
    """Gives the same embeddings (3n, 4) and no logits."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        assert len(x) == len(self.rows)
        return self.rows, []


def test_each_part_of_similarity_has_its_own_weights() -> None:
    config = change(
        TAUGHT,
        model__dims=(2, 4),
        objective__label=0.0,
        objective__instance=2.0,
        objective__individual=3.0,
        objective__instance_weights=(0.0, 1.0),
        objective__individual_weights=(1.0, 0.0),
    )
    made = Objective(config, 0, accelerate.Accelerator(cpu=True, mixed_precision="no"))
    made.begin(0)
    a, b, c = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).split(2)
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    chance, shown = torch.Generator(), torch.tensor([0, 1])
    total, _, both = made(Fixed(torch.cat((a, b, c))), pictures, shown, chance, pictures + 1, shown)
    near = InfoNCE(config.objective.temperature)
    instance = near(torch.cat((a, b, c)), torch.arange(4))
    ids = shown.repeat(2)
    one, two = near(torch.cat((a, c, b))[:, :2], ids), near(torch.cat((b, c, a))[:, :2], ids)
    assert total.item() == pytest.approx((2 * instance + 3 * (one + two) / 2).item(), rel=1e-5)
    assert both.item() == pytest.approx((instance + (one + two) / 2).item(), rel=1e-5)
    alone = made(Fixed(torch.cat((a, b, c))), pictures, shown, chance, pictures, shown)[0]
    left_out = near(
        torch.cat((a, b, c)), torch.tensor([0, 1, 0, 1])
    )  # the same picture does not repel itself
    assert alone.item() == pytest.approx((2 * left_out + 3 * (one + two) / 2).item(), rel=1e-5)


def test_training_learns_which_pictures_show_one_individual(tmp_path: Path) -> None:
    """Five individuals of eight noisy pictures each, a tint apart; without labels."""
    pixels = noise_pixels(labels=False)
    images = torch.randint(
        0, 120, pixels.images.shape, generator=torch.Generator().manual_seed(0)
    ).to(torch.uint8)
    tints = torch.tensor(
        [[90, 0, 0], [0, 90, 0], [0, 0, 90], [90, 90, 0], [0, 90, 90]], dtype=torch.uint8
    )
    images += tints[torch.arange(40) % 5][:, :, None, None]
    pixels = replace(pixels, images=images)
    config = change(
        TAUGHT,
        objective__label=0.0,
        objective__instance=0.0,
        schedule__epochs=4,
        augment__jitter=(0.1, 0.1, 0.1, 0.0),
    )
    first, *_, last = train_tiny(tmp_path / "a", config, pixels)
    assert last.instance_loss < 0.7 * first.instance_loss and (
        first.n_train,
        first.n_validation,
    ) == (32, 8)
    train_tiny(tmp_path / "b", config, pixels)
    assert same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))


def test_individuals_need_an_expression() -> None:
    with pytest.raises(
        ConfigError, match=r"objective\.individual is 1\.0; it needs data\.individual\."
    ):
        change(TINY, objective__individual=1.0)
