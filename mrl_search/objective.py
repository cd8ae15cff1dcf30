"""What a training step minimises: views of its pictures, what they are compared with, and the two losses of that, weighed."""

import accelerate
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.config import TrainConfig
from mrl_search.data.augment import views
from mrl_search.losses import InfoNCE, MatryoshkaLoss

__all__ = ["Objective", "partners"]


def partners(individuals: Tensor, chance: torch.Generator) -> Tensor:
    """For each of (n,) individuals the position of another with the same number, drawn at random; its own where there is none."""
    order = torch.argsort(individuals, stable=True)
    _, group, counts = torch.unique_consecutive(individuals[order], return_inverse=True, return_counts=True)
    count, first = counts[group], (counts.cumsum(0) - counts)[group]
    step = 1 + (torch.rand(len(order), generator=chance) * (count - 1)).long()
    place = torch.arange(len(order)) - first
    other = torch.empty_like(order)
    other[order] = order[first + (place + step) % count]
    return other


class Objective:
    """The objective of a recipe (`ObjectiveConfig`), called once a step; within an epoch it remembers the embeddings of earlier steps.

    Args:
        config: the recipe.
        classes: how many there are.
        accelerator: that of the network, for its device and precision.
        begun: the network that the run began with, in evaluation; `objective.distil` learns from it.
    """

    def __init__(self, config: TrainConfig, classes: int, accelerator: accelerate.Accelerator, begun: nn.Module | None = None) -> None:
        objective, dims = config.objective, config.model.dims
        self.config, self.classes, self.accelerator = config, classes, accelerator
        self.labels = MatryoshkaLoss(nn.CrossEntropyLoss(label_smoothing=objective.smoothing), dims, objective.weights)
        self.instances = MatryoshkaLoss(InfoNCE(objective.temperature), dims, objective.weights)
        self.teacher = begun.to(accelerator.device) if begun and objective.distil else None

    def begin(self, epoch: int) -> None:
        """Make ready for `epoch`, from 0: the size of its pictures, what similarity weighs in it, and nothing to remember."""
        self.size = self.config.schedule.size(epoch)
        self.similarity = self.config.objective.instance_in(epoch)
        self.memory = torch.empty(0, self.config.model.dims[-1], device=self.accelerator.device)  # no image repels itself
        self.remembered = torch.empty(0, dtype=torch.long, device=self.accelerator.device)  # the individuals in `memory`

    def __call__(
        self,
        network: nn.Module,
        pictures: Tensor,
        target: Tensor,
        chance: torch.Generator,
        others: Tensor | None = None,
        individuals: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is minimised, and its parts before they are weighed, of labels and of similarity; 0 where one is not asked for.

        Args:
            network: a `MatryoshkaNetwork`, or what wraps it.
            pictures: (n, 3, s, s) uint8.
            target: (n,) int64 classes.
            chance: the views are drawn from it.
            others: (n, 3, s, s) uint8, for each picture the one that its second view is drawn from; None: the same picture.
            individuals: (n,) int64, what each picture and its other show; None: something else each.
        """
        objective, n = self.config.objective, len(pictures)
        x = views(pictures, self.size, self.config.augment, chance)
        if self.similarity:
            second = pictures if others is None else others
            x = torch.cat((x, views(second, self.size, self.config.weak or self.config.augment, chance)))
            target = torch.cat((target, target))
        if self.teacher:
            with torch.no_grad(), self.accelerator.autocast():
                told = self.teacher(x)[1][-1].float().softmax(1)
            target = torch.lerp(F.one_hot(target, self.classes).float(), told, objective.distil)
        with self.accelerator.autocast():
            embedding, logits = network(x)
        zero = embedding.sum() * 0
        label = self.labels(logits, target) if objective.label else zero
        pairs = n if individuals is None else torch.cat((individuals, self.remembered))
        instance = self.instances(torch.cat((embedding.float(), self.memory)), pairs) if self.similarity else zero
        if self.similarity and objective.memory:
            self.memory = torch.cat((self.memory, embedding[n:].detach().float()))[-objective.memory :]
            if individuals is not None:
                self.remembered = torch.cat((self.remembered, individuals))[-objective.memory :]
        return objective.label * label + self.similarity * instance, label, instance
