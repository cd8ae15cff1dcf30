"""Axes in closed form: once a network is trained, its projection is set anew, so that every prefix classifies and tells images apart.

A projection trained by gradients lets through few directions of what the layers below it know. Here two kinds of axes are computed, both
linear in the pooled features:

- Class axes: the principal axes of what ridge regression predicts the labels to be.
- Image axes: those of linear discriminant analysis with every image as a class of its own, seen in changed views. They are ordered by the
  variance between images of one class over that between the views of an image (Fisher 1936; for cosines, within-class covariance
  normalisation: Hatch, Kajarekar and Stolcke 2006), so a prefix holds the most telling ones.

Every prefix gets both: the dims that it adds to the one before begin with class axes, scaled to keep their share of the squared length.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.config import AxesConfig
from mrl_search.data.augment import shrink, to_network, views
from mrl_search.errors import ConfigError
from mrl_search.models.backbones import CompactBackbone
from mrl_search.models.network import MatryoshkaHeads, MatryoshkaNetwork

__all__ = ["arrange", "bands", "class_axes", "fit_heads", "image_axes", "set_axes"]

BATCH = 128
RIDGE = 1e-2  # of the mean variance within an image, added to that of every feature
HEAD_STEPS = 100


def set_axes(
    network: MatryoshkaNetwork, dims: Sequence[int], images: Tensor, targets: Tensor, classes: int, size: int, config: AxesConfig,
    loss: nn.Module, seed: int, precision: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[int]:  # fmt: skip
    """Set the projection of a trained network whose `pool` is "stages", and fit its heads to that; yields how many images are read.

    Args:
        network: is changed in place.
        dims: its prefixes.
        images: (n, 3, s, s) uint8, those that trained.
        targets: (n,) int64 classes.
        classes: how many there are; 0 leaves everything to the image axes.
        size: side of the pictures in pixels.
        config: the views, and the share of the classes.
        loss: of the heads' logits and the targets.
        seed: of the views.
        precision: in which the pictures pass through the network.

    Raises:
        ConfigError: the embedding is longer than there are axes for.
    """
    network.eval()
    backbone = network.backbone
    assert isinstance(backbone, CompactBackbone) and isinstance(backbone.standard, nn.BatchNorm1d)
    device, features = backbone.project.weight.device, backbone.project.in_features
    chance = torch.Generator().manual_seed(seed)
    within = torch.zeros(features, features, dtype=torch.float64)  # on the processor: not every device has float64
    read: list[Tensor] = []
    for part in torch.split(images, BATCH):
        batch = part.to(device)
        seen = [to_network(shrink(batch, size)), *(views(batch, size, view, chance) for view in config.views)]
        with torch.no_grad(), precision():
            plain, *changed = (backbone.pooled(view).float().cpu() for view in seen)
        read.append(plain)
        for pooled in changed:
            change = (pooled - plain).double()
            within += change.T @ change
        yield sum(map(len, read))
    x = torch.cat(read)
    variance, mean = torch.var_mean(x, 0, correction=0)
    deviation = (variance.double() + backbone.standard.eps).sqrt()
    x = (x.double() - mean.double()) / deviation
    within /= len(x) * len(config.views) * torch.outer(deviation, deviation)
    within += RIDGE * within.diagonal().mean() * torch.eye(features)
    labels = F.one_hot(targets.cpu(), classes).double() if classes else x[:, :0]
    axes = arrange(class_axes(x, labels, config.ridge * within), *image_axes(x, labels, within), dims, config.share)
    embeddings = (x @ axes.T).float().to(device)
    with torch.no_grad():
        backbone.standard.running_mean, backbone.standard.running_var = mean.to(device), variance.to(device)
        backbone.project.weight.copy_(axes)
        _pass(backbone.norm, embeddings)
    fit_heads(network.heads, embeddings, targets.to(device), loss)


def _pass(norm: nn.BatchNorm1d, rows: Tensor) -> None:
    """Make `norm` let `rows` pass as they are, in evaluation and, for a batch like them, in training."""
    norm.reset_parameters()
    norm.running_var = rows.var(0, correction=0)
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())


def bands(dims: Sequence[int], classes: int, features: int, share: float) -> list[tuple[int, int, int]]:
    """What each of `dims` adds to the prefix before: how many class axes, how many image axes, and numbers to hold those.

    Args:
        dims: prefix lengths, ascending.
        classes: how many class axes there are at most.
        features: how many image axes there are.
        share: that of the class axes; 0: there are none.

    Raises:
        ConfigError: the last band is left without an image axis.
    """
    result = []
    start = used = 0
    for d in dims:
        count = min(classes, (d - start) // 2) if share else 0
        free = d - start - count
        images = min(free, features - used)
        if images < 1:
            raise ConfigError(f"There are {features} axes for {dims[-1]} dims.", "Make model.dims shorter, or model.widths larger.")
        result.append((count, images, free))
        used += images
        start = d
    return result


def class_axes(x: Tensor, labels: Tensor, within: Tensor) -> Tensor:
    """Directions along which the predicted labels lie, the widest first: (classes - 1, features), each with a variance of 1 over the rows.

    Args:
        x: (n, features) float64, standardised.
        labels: (n, classes) float64, one 1 in a row.
        within: (features, features) added to the covariance of the rows: of changes that the axes should not mind.
    """
    if labels.shape[1] < 2:
        return x.new_zeros(0, x.shape[1])
    covariance = x.T @ x / len(x)
    weights = torch.linalg.solve(covariance + within, x.T @ (labels - labels.mean(0)) / len(x))
    values, turn = torch.linalg.eigh(weights.T @ covariance @ weights)
    widest = slice(1, None)  # but the least: the scores of a row add up to 0, so one axis says nothing
    axes: Tensor = (weights @ turn)[:, widest] / values[widest].clamp(min=1e-12).sqrt()
    return axes.flip(1).T


def image_axes(x: Tensor, labels: Tensor, within: Tensor) -> tuple[Tensor, Tensor]:
    """Discriminant axes of single images: (features,) variances between images of one class, and (features, features) axes, one a row.

    The most telling come first. An axis along which views vary by 1 and images by v is scaled by v / (1 + v), the share of what is seen
    along it that is the image's.
    """
    between = x.T @ x / len(x)
    counts = labels.sum(0)
    means = labels.T @ x / counts.clamp(min=1)[:, None]
    between -= means.T @ (means * (counts / len(x))[:, None])
    inverse = torch.linalg.inv(torch.linalg.cholesky(within))
    values, turn = torch.linalg.eigh(inverse @ between @ inverse.T)
    values = values.clamp(min=0).flip(0)
    own = values / (1 + values)
    return values * own**2, (inverse.T @ turn).flip(1).T * own[:, None]


def arrange(classes: Tensor, values: Tensor, images: Tensor, dims: Sequence[int], share: float) -> Tensor:
    """All axes in the order of the embedding: (dims[-1], features).

    Each of `dims` adds a band of numbers to the prefix before. At most half of it are class axes, in turn, with so much weight that `share`
    of the prefix's squared length is theirs; then come the image axes that are next. Where those end inside the last band, they are turned
    at random, so that they fill it.

    Args:
        classes: (r, features) axes with variance 1.
        values: (features,) variances of the image axes.
        images: (features, features) image axes.
        dims: prefix lengths, ascending.
        share: from 0 to below 1.

    Raises:
        ConfigError: the last band is left without an image axis.
    """
    rows: list[Tensor] = []
    turns = cycle(range(len(classes)))
    used = 0
    spent = 0.0  # squared length of the class axes so far
    for count, some, free in bands(dims, len(classes), len(images), share):
        band = images[used : used + some]
        used += some
        if some < free:
            generator = torch.Generator().manual_seed(0)
            band = torch.linalg.qr(torch.randn(free, some, dtype=band.dtype, generator=generator))[0] @ band
        if count:
            wanted = max(0.0, share / (1 - share) * float(values[:used].sum()) - spent)
            spent += wanted
            rows.append(classes[list(islice(turns, count))] * (wanted / count) ** 0.5)
        rows.append(band)
    return torch.cat(rows)


def fit_heads(heads: MatryoshkaHeads, embeddings: Tensor, targets: Tensor, loss: nn.Module) -> None:
    """Fit the heads, and nothing else, to (n, dim) embeddings: the problem of each is a small one, solved by L-BFGS."""
    if not heads.dims:
        return
    optimizer = torch.optim.LBFGS(heads.parameters(), max_iter=HEAD_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(heads(embeddings), targets)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    heads.requires_grad_(True)
    optimizer.step(closure)  # type: ignore[no-untyped-call]
