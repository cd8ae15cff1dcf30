"""The loss of a training step by hand: views, negatives, memory and distilled labels."""

from dataclasses import replace

import accelerate
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import TINY, change
from torch import Tensor, nn

from mrl_search.training import objective as module
from mrl_search.training.config import AugmentConfig, TrainConfig
from mrl_search.training.objective import InfoNCE, Objective

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
CONFIG = change(
    TINY, model__dims=(2, 4), objective__weights=(1.0, 0.5), objective__label=2.0,
    objective__instance=3.0, objective__smoothing=0.0,
)  # fmt: skip
WEAK = AugmentConfig(flip=0.25)
PICTURES, TARGET = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])


class Scripted(nn.Module):
    """A network that returns fixed embeddings (2n, 4) and logits, step by step."""

    def __init__(self, steps: int, seed: int = 0) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(seed)
        self.rows = [torch.randn(4, 4, generator=chance) for _ in range(steps)]
        self.logits = [
            [torch.randn(4, 2, generator=chance) for _ in range(2)] for _ in range(steps)
        ]
        self.step = 0

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        rows, logits = self.rows[self.step], self.logits[self.step]
        self.step += 1
        return rows[: len(x)], [part[: len(x)] for part in logits]


def begun(config: TrainConfig, teacher: nn.Module | None = None) -> Objective:
    made = Objective(config, 2, accelerate.Accelerator(cpu=True, mixed_precision="no"), teacher)
    made.begin(0)
    return made


def step(made: Objective, network: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    return made(network, PICTURES, TARGET, torch.Generator())


def test_a_step_is_the_weighed_sum_of_its_parts_over_the_prefixes() -> None:
    network = Scripted(1)
    total, label, instance = step(begun(CONFIG), network)
    (rows,), ((short, full),) = network.rows, network.logits
    both = torch.tensor([0, 1, 0, 1])
    assert label.item() == pytest.approx(
        (F.cross_entropy(short, both) + 0.5 * F.cross_entropy(full, both)).item()
    )
    near = InfoNCE(CONFIG.objective.temperature)
    assert instance.item() == pytest.approx((near(rows[:, :2]) + 0.5 * near(rows)).item())
    assert total.item() == pytest.approx(2 * label.item() + 3 * instance.item())


def test_the_views_are_drawn_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, AugmentConfig]] = []

    def recorded(
        pictures: Tensor, size: int, how: AugmentConfig, chance: torch.Generator
    ) -> Tensor:
        drawn.append((size, how))
        return pictures.float()

    monkeypatch.setattr(module, "views", recorded)
    for config, wanted in (
        (CONFIG, [CONFIG.augment, CONFIG.augment]),
        (replace(CONFIG, weak=WEAK), [CONFIG.augment, WEAK]),
        (change(CONFIG, objective__instance_from=1), [CONFIG.augment]),
    ):
        drawn.clear()
        step(begun(config), Scripted(1))
        assert drawn == [(32, how) for how in wanted]


def test_the_latest_second_views_are_remembered_until_the_epoch_ends() -> None:
    made, network = begun(change(CONFIG, objective__memory=3)), Scripted(4)
    found = [step(made, network)[2].item() for _ in range(3)]
    made.begin(1)
    found.append(step(made, network)[2].item())
    a, b, c, d = network.rows
    near = InfoNCE(CONFIG.objective.temperature)
    for value, rows in zip(
        found, (a, torch.cat((b, a[2:])), torch.cat((c, a[3:], b[2:])), d), strict=True
    ):
        each = torch.arange(len(rows) - 2)
        assert value == pytest.approx((near(rows[:, :2], each) + 0.5 * near(rows, each)).item())


def test_distilled_labels_are_the_first_network_s_predictions_at_full_length() -> None:
    network, teacher = Scripted(1), Scripted(1, seed=1)
    _, label, _ = step(
        begun(change(replace(CONFIG, init="first"), objective__distil=0.75), teacher), network
    )
    target = 0.25 * F.one_hot(torch.tensor([0, 1, 0, 1]), 2) + 0.75 * teacher.logits[0][1].softmax(
        1
    )
    short, full = network.logits[0]
    assert label.item() == pytest.approx(
        (F.cross_entropy(short, target) + 0.5 * F.cross_entropy(full, target)).item()
    )
