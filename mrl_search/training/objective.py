"""The loss of a training step: views of its images, and their weighted losses by prefix."""

from collections.abc import Sequence

import accelerate
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.errors import require
from mrl_search.training.config import TrainConfig
from mrl_search.training.views import views

__all__ = ["InfoNCE", "MatryoshkaLoss", "Objective"]


class InfoNCE(nn.Module):
    """Two views of an image attract, all other images repel (NT-Xent, arXiv 2002.05709, 2.1).

    Takes (2n, d) rows of any norm: rows i and n + i are the two views of image i. Rows beyond 2n
    only repel, as in a cross-batch memory (arXiv 1912.06798, 3.2). With them, an (n + rest,) int64
    tensor numbers the subject of each image and of each row beyond 2n: rows of one subject do not
    repel.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, rows: Tensor, subjects: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of finding the other view among all other rows."""
        if subjects is None:
            subjects = torch.arange(len(rows) // 2, device=rows.device)
        n = len(rows) - len(subjects)
        subject = torch.cat((subjects[:n], subjects))
        unit = F.normalize(rows.float(), dim=1)
        similarity = unit[: 2 * n] @ unit.T / self.temperature
        every = torch.arange(2 * n, device=rows.device)
        other = every.roll(n)
        same = subject[: 2 * n, None] == subject
        same[every, other] = False
        return F.cross_entropy(similarity.masked_fill(same, -torch.inf), other)


class MatryoshkaLoss(nn.Module):
    """The weighted sum of a criterion over prefixes (arXiv 2205.13147, equation 1)."""

    def __init__(
        self, criterion: nn.Module, dims: Sequence[int], weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        message = f"{len(weights)} weights for {len(dims)} dims; each prefix needs one."
        require(not weights or len(weights) == len(dims), message)
        self.criterion = criterion
        self.dims = tuple(dims)
        self.weights = tuple(weights) or (1.0,) * len(self.dims)

    def forward(self, parts: Sequence[Tensor] | Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of `parts`: one tensor a prefix, or an embedding (n, dim) to take them from."""
        weights = self.weights
        if isinstance(parts, Tensor):
            used = [(w, d) for w, d in zip(weights, self.dims, strict=True) if w]
            weights = tuple(w for w, _ in used)
            zero, parts = parts.sum() * 0, [parts[:, :d] for _, d in used]
        terms = [w * self.criterion(part, target) for w, part in zip(weights, parts, strict=True)]
        return torch.stack(terms).sum() if terms else zero


class Objective:
    """The loss of a recipe (`ObjectiveConfig`), called once a step.

    Args:
        config: the recipe.
        classes: number of classes.
        accelerator: of the network, for its device and precision.
        init: the network that the run starts from, in evaluation mode, for `objective.distil`.
    """

    def __init__(
        self,
        config: TrainConfig,
        classes: int,
        accelerator: accelerate.Accelerator,
        init: nn.Module | None = None,
    ) -> None:
        objective, dims = config.objective, config.model.dims
        self.config, self.classes, self.accelerator = config, classes, accelerator
        cross_entropy = nn.CrossEntropyLoss(label_smoothing=objective.smoothing)
        self.labels = MatryoshkaLoss(cross_entropy, dims, objective.weights)
        nce, every = InfoNCE(objective.temperature), objective.weights
        self.instances = MatryoshkaLoss(nce, dims, objective.instance_weights or every)
        self.individuals = MatryoshkaLoss(nce, dims, objective.individual_weights or every)
        self.teacher = init.to(accelerator.device) if init and objective.distil else None

    def begin(self, epoch: int) -> None:
        """Start `epoch`, from 0. The memory is emptied, so that no image repels itself."""
        self.size = self.config.schedule.size(epoch)
        self.instance, self.individual = self.config.objective.similarity_in(epoch)
        self.memory = torch.empty(0, self.config.model.dims[-1], device=self.accelerator.device)

    def __call__(
        self,
        network: nn.Module,
        pictures: Tensor,
        target: Tensor,
        generator: torch.Generator,
        others: Tensor | None = None,
        individuals: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and its unweighted label and similarity parts; 0 for a part without weight.

        Args:
            network: a `MatryoshkaNetwork`, or its wrapper.
            pictures: (n, 3, s, s) uint8.
            target: (n,) int64 classes.
            generator: of the views.
            others: (n, 3, s, s) uint8, another picture of each individual, or the same one.
            individuals: (n,) int64, the number of each individual.
        """
        config, objective, n = self.config, self.config.objective, len(pictures)
        second = [pictures] if self.instance else []
        if self.individual and others is not None:
            second.append(others)
        x = views(pictures, self.size, config.augment, generator)
        if second:
            weak = config.weak or config.augment
            x = torch.cat((x, *(views(part, self.size, weak, generator) for part in second)))
            target = target.repeat(1 + len(second))
        if self.teacher:
            with torch.no_grad(), self.accelerator.autocast():
                predicted = self.teacher(x)[1][-1].float().softmax(1)
            target = torch.lerp(
                F.one_hot(target, self.classes).float(), predicted, objective.distil
            )
        with self.accelerator.autocast():
            embedding, logits = network(x)
        rows, zero = embedding.float(), embedding.sum() * 0
        label = self.labels(logits, target) if objective.label else zero
        instance = individual = zero
        if self.instance:
            subjects = torch.arange(len(rows) - n + len(self.memory), device=rows.device)
            if len(second) == 2 and others is not None:  # a picture must not repel itself
                alone = (others == pictures).flatten(1).all(1)
                subjects[n : 2 * n][alone] = subjects[:n][alone]
            instance = self.instances(torch.cat((rows, self.memory)), subjects)
        if self.individual and individuals is not None:
            *ahead, other = rows.split(n)
            numbers = individuals.repeat(len(second))
            terms = [torch.cat((v, other, *(w for w in ahead if w is not v))) for v in ahead]
            losses = [self.individuals(term, numbers) for term in terms]
            individual = torch.stack(losses).mean()
        if self.instance and objective.memory:
            kept = torch.cat((self.memory, rows[n : 2 * n].detach()))
            self.memory = kept[-objective.memory :]
        loss = objective.label * label + self.instance * instance + self.individual * individual
        return loss, label, instance + individual
