"""What a training step minimises: views of its pictures, what they are compared with, and the two losses of that, weighed."""

import accelerate
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.config import TrainConfig
from mrl_search.data.augment import views
from mrl_search.losses import InfoNCE, MatryoshkaLoss

__all__ = ["Objective"]


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
        self.instances = MatryoshkaLoss(InfoNCE(objective.temperature), dims, objective.instance_weights or objective.weights)
        self.individuals = MatryoshkaLoss(InfoNCE(objective.temperature), dims, objective.individual_weights or objective.weights)
        self.teacher = begun.to(accelerator.device) if begun and objective.distil else None

    def begin(self, epoch: int) -> None:
        """Make ready for `epoch`, from 0: the size of its pictures, what similarity weighs in it, and nothing to remember."""
        self.size = self.config.schedule.size(epoch)
        self.similarity = self.config.objective.instance_in(epoch)
        self.likeness = self.config.objective.individual if epoch >= self.config.objective.instance_from else 0.0
        self.memory = torch.empty(0, self.config.model.dims[-1], device=self.accelerator.device)  # no image repels itself

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

        Similarity within individuals is in the second part, added to that of instances.

        Args:
            network: a `MatryoshkaNetwork`, or what wraps it.
            pictures: (n, 3, s, s) uint8.
            target: (n,) int64 classes.
            chance: the views are drawn from it.
            others: (n, 3, s, s) uint8, another picture of the individual in each picture, or the same one where there is no other.
            individuals: (n,) int64, the number of each.
        """
        objective, n = self.config.objective, len(pictures)
        x = views(pictures, self.size, self.config.augment, chance)
        near = self.config.weak or self.config.augment
        second = [pictures] if self.similarity else []
        if self.likeness and others is not None:
            second.append(others)
        if second:
            x = torch.cat((x, *(views(some, self.size, near, chance) for some in second)))
            target = target.repeat(1 + len(second))
        if self.teacher:
            with torch.no_grad(), self.accelerator.autocast():
                told = self.teacher(x)[1][-1].float().softmax(1)
            target = torch.lerp(F.one_hot(target, self.classes).float(), told, objective.distil)
        with self.accelerator.autocast():
            embedding, logits = network(x)
        zero = embedding.sum() * 0
        label = self.labels(logits, target) if objective.label else zero
        instance, likeness, rows = zero, zero, embedding.float()
        if self.similarity:
            pairs: int | Tensor = n
            if len(second) == 2 and others is not None:  # a picture without another must not repel itself
                own, alone = torch.arange(n, device=rows.device), (others == pictures).flatten(1).all(1)
                pairs = torch.cat((own, torch.where(alone, own, own + n), 2 * n + torch.arange(len(self.memory), device=rows.device)))
            instance = self.instances(torch.cat((rows, self.memory)), pairs)
        if self.likeness and individuals is not None:
            parts, shown = rows.split(n), individuals.repeat(len(second))
            *ahead, other = parts
            terms = [torch.cat((view, other, *(v for v in ahead if v is not view))) for view in ahead]
            likeness = torch.stack([self.individuals(term, shown) for term in terms]).mean()
        if self.similarity and objective.memory:
            self.memory = torch.cat((self.memory, rows[n : 2 * n].detach()))[-objective.memory :]
        total = objective.label * label + self.similarity * instance + self.likeness * likeness
        return total, label, instance + likeness
