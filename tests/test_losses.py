"""Losses against values worked out in numpy, in double precision."""

import numpy as np
import pytest
import torch
from torch import nn

from mrl_search.errors import ConfigError
from mrl_search.training.objective import InfoNCE, MatryoshkaLoss


def _info_nce(rows: np.ndarray, temperature: float) -> float:
    """Equation 1 of arXiv 2002.05709, written out row by row."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    n = len(rows) // 2
    terms = []
    for i in range(2 * n):
        scores = np.exp(unit @ unit[i] / temperature)
        terms.append(-np.log(scores[(i + n) % (2 * n)] / (scores.sum() - scores[i])))
    return float(np.mean(terms))


@pytest.mark.parametrize(("n", "dim", "temperature"), [(2, 3, 1.0), (8, 16, 0.1), (16, 8, 0.5)])
def test_info_nce_is_the_published_formula(n: int, dim: int, temperature: float) -> None:
    rows = np.random.default_rng(n).normal(size=(2 * n, dim)) * 3
    value = InfoNCE(temperature)(torch.from_numpy(rows)).item()
    assert value == pytest.approx(_info_nce(rows, temperature), rel=1e-5)


def test_info_nce_by_hand() -> None:
    """Two orthogonal images with equal views: the terms are exp(1) and twice exp(0)."""
    rows = torch.tensor([[2.0, 0], [0, 3], [5, 0], [0, 7]])
    assert InfoNCE(1.0)(rows).item() == pytest.approx(np.log((np.e + 2) / np.e), rel=1e-6)
    assert InfoNCE(0.1)(rows).item() == pytest.approx(np.log1p(2 * np.exp(-10)), abs=1e-7)
    assert InfoNCE(1.0)(rows[[0, 1, 3, 2]]).item() == pytest.approx(
        np.log(np.e + 2), rel=1e-6
    )  # the views swapped: the worst


def test_rows_beyond_the_pairs_only_repel() -> None:
    """The same images, and an earlier one half way between them: one term more."""
    rows = torch.tensor([[2.0, 0], [0, 3], [5, 0], [0, 7], [4, 4]])
    assert InfoNCE(1.0)(rows, torch.arange(3)).item() == pytest.approx(
        np.log((np.e + 2 + np.exp(0.5**0.5)) / np.e), rel=1e-6
    )
    loss = MatryoshkaLoss(InfoNCE(1.0), (1, 2))
    assert loss(rows[:4] + 1, torch.arange(2)) == loss(rows[:4] + 1)


def test_info_nce_does_not_see_lengths_and_is_fine_with_low_precision() -> None:
    rows = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    value = InfoNCE(0.2)(rows)
    assert torch.isclose(InfoNCE(0.2)(rows * torch.linspace(0.5, 9, 12)[:, None]), value, rtol=1e-5)
    low = InfoNCE(0.2)(rows.bfloat16())
    assert low.dtype == torch.float32
    assert torch.isclose(low, value, rtol=0.02)


def test_info_nce_pulls_views_together_and_pushes_images_apart() -> None:
    rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    criterion = InfoNCE(0.5)
    before = criterion(rows)
    before.backward()
    moved = (rows - 0.5 * rows.grad).detach()
    assert criterion(moved) < before
    unit = nn.functional.normalize(moved, dim=1)
    old = nn.functional.normalize(rows.detach(), dim=1)
    assert (unit[:4] * unit[4:]).sum() > (old[:4] * old[4:]).sum()


def test_the_sum_over_prefixes_is_the_published_formula() -> None:
    rows = np.random.default_rng(2).normal(size=(12, 16))
    dims, weights = (2, 4, 16), (0.5, 1.0, 3.0)
    wanted = [_info_nce(rows[:, :d], 0.3) for d in dims]
    assert MatryoshkaLoss(InfoNCE(0.3), dims)(torch.from_numpy(rows)).item() == pytest.approx(
        sum(wanted), rel=1e-5
    )
    value = MatryoshkaLoss(InfoNCE(0.3), dims, weights)(torch.from_numpy(rows)).item()
    assert value == pytest.approx(np.dot(weights, wanted), rel=1e-5)


def test_logits_of_heads_are_summed_with_their_weights() -> None:
    rng = np.random.default_rng(3)
    logits, target = [rng.normal(size=(10, 3)) for _ in range(3)], rng.integers(0, 3, 10)
    entropies = [
        np.mean([np.log(np.exp(row).sum()) - row[t] for row, t in zip(part, target, strict=True)])
        for part in logits
    ]
    parts, weights = [torch.from_numpy(part) for part in logits], (1.0, 0.25, 2.0)
    value = MatryoshkaLoss(nn.CrossEntropyLoss(), (8, 16, 32), weights)(
        parts, torch.from_numpy(target)
    )
    assert value.item() == pytest.approx(np.dot(weights, entropies), rel=1e-12)


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_every_weight_counts(changed: int) -> None:
    rows = torch.from_numpy(np.random.default_rng(4).normal(size=(12, 16)))
    weights = [1.0, 1.0, 1.0]
    base = MatryoshkaLoss(InfoNCE(0.3), (2, 4, 16), weights)(rows).item()
    weights[changed] = 1.5
    alone = InfoNCE(0.3)(rows[:, : (2, 4, 16)[changed]]).item()
    assert MatryoshkaLoss(InfoNCE(0.3), (2, 4, 16), weights)(rows).item() == pytest.approx(
        base + 0.5 * alone, rel=1e-6
    )


def test_a_loss_on_the_shortest_prefix_moves_only_its_dims() -> None:
    rows = torch.randn(12, 32, generator=torch.Generator().manual_seed(5)).requires_grad_()
    MatryoshkaLoss(InfoNCE(0.3), (8, 16, 32), (1.0, 0.0, 0.0))(rows).backward()
    assert torch.all(rows.grad[:, :8].abs() > 0)
    assert torch.all(rows.grad[:, 8:] == 0)


def test_the_criterion_may_be_any() -> None:
    class Mean(nn.Module):
        def forward(self, rows: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
            return rows.mean() if target is None else (rows.mean(1) - target).square().mean()

    rows = torch.tensor([[1.0, 3.0, 5.0, 7.0]])
    assert MatryoshkaLoss(Mean(), (1, 2, 4), (1.0, 10.0, 100.0))(rows).item() == 1 + 20 + 400
    assert MatryoshkaLoss(Mean(), (1, 4))(rows, torch.tensor([2.0])).item() == 1 + 4


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0)])
def test_there_is_one_weight_for_each_prefix(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        MatryoshkaLoss(InfoNCE(), (8, 16), weights)
    assert error.value.message == f"{len(weights)} weights for 2 dims; each prefix needs one."


def test_parts_and_prefixes_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        MatryoshkaLoss(nn.CrossEntropyLoss(), (8, 16))([torch.zeros(2, 3)], torch.tensor([0, 1]))
