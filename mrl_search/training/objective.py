"""The loss of a training step: views of its images, and the two weighted losses of these."""

import accelerate
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.training.config import TrainConfig
from mrl_search.training.losses import InfoNCE, MatryoshkaLoss
from mrl_search.training.views import views

__all__ = ["Objective"]


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
        self.instances = MatryoshkaLoss(InfoNCE(objective.temperature), dims, objective.weights)
        self.teacher = init.to(accelerator.device) if init and objective.distil else None

    def begin(self, epoch: int) -> None:
        """Start `epoch`, from 0. The memory is emptied, so that no image repels itself."""
        self.size = self.config.schedule.size(epoch)
        self.similarity = self.config.objective.instance_in(epoch)
        self.memory = torch.empty(0, self.config.model.dims[-1], device=self.accelerator.device)

    def __call__(
        self, network: nn.Module, pictures: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and its unweighted label and instance parts; 0 for a part without weight.

        Args:
            network: a `MatryoshkaNetwork`, or its wrapper.
            pictures: (n, 3, s, s) uint8.
            target: (n,) int64 classes.
            generator: of the views.
        """
        config, objective, n = self.config, self.config.objective, len(pictures)
        x = views(pictures, self.size, config.augment, generator)
        if self.similarity:
            second = views(pictures, self.size, config.weak or config.augment, generator)
            x, target = torch.cat((x, second)), torch.cat((target, target))
        if self.teacher:
            with torch.no_grad(), self.accelerator.autocast():
                predicted = self.teacher(x)[1][-1].float().softmax(1)
            target = torch.lerp(
                F.one_hot(target, self.classes).float(), predicted, objective.distil
            )
        with self.accelerator.autocast():
            embedding, logits = network(x)
        zero = embedding.sum() * 0
        label = self.labels(logits, target) if objective.label else zero
        instance = zero
        if self.similarity:
            instance = self.instances(torch.cat((embedding.float(), self.memory)), n)
            if objective.memory:
                rows = torch.cat((self.memory, embedding[n:].detach().float()))
                self.memory = rows[-objective.memory :]
        return objective.label * label + self.similarity * instance, label, instance
