"""Axes in closed form: set the projection of a trained network again, after training.

A projection trained by gradients passes few of the directions that the layers below it know. Here
two kinds of axes are computed, both linear in the pooled features:

- Class axes: the principal axes of the labels that ridge regression predicts.
- Image axes: linear discriminant analysis with every image as a class of its own, in changed
  views. They are ordered by the variance between images of one class over the variance between
  the views of an image (Fisher 1936; for cosines, within-class covariance normalisation: Hatch,
  Kajarekar and Stolcke 2006), so that a prefix has the most distinctive ones.

The dims that each prefix adds to the one before start with class axes, scaled to their share of the
squared norm. Image axes follow. `axes.weights` lets the energy fall along the prefixes: the more of
the squared norm the first dims have, the better their shortlists are. With `axes.after`, a trained
prefix takes the place of the class axes, and the image axes fill the dims beyond it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrl_search.encoders.network import MatryoshkaHeads, MatryoshkaNetwork, to_network
from mrl_search.encoders.pooled import PooledBackbone
from mrl_search.errors import require
from mrl_search.training.config import TrainConfig
from mrl_search.training.views import shrink, views

__all__ = ["arrange", "bands", "class_axes", "fit_heads", "image_axes", "set_axes"]

BATCH = 128
RIDGE = 1e-2  # share of the mean variance within an image, added to that of every feature
HEAD_STEPS = 100


def set_axes(
    network: MatryoshkaNetwork, config: TrainConfig, images: Tensor, targets: Tensor, size: int,
    loss: nn.Module, precision: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[int]:  # fmt: skip
    """Set the projection of a network with standardised features in place, and fit its heads.

    Args:
        network: trained.
        config: of the run, with `axes`.
        images: (n, 3, s, s) uint8, the training images.
        targets: (n,) int64 classes.
        size: side of the images that the network embeds, in pixels.
        loss: of the heads' logits and the targets.
        precision: a context for the passes through the network.

    Yields:
        How many images have been read.

    Raises:
        ConfigError: the embedding has more dims than there are axes.
    """
    network.eval()
    backbone, axes_config = network.backbone, config.axes
    assert isinstance(backbone, PooledBackbone) and isinstance(backbone.standard, nn.BatchNorm1d)
    assert axes_config is not None
    device, features = backbone.project.weight.device, backbone.project.in_features
    generator = torch.Generator().manual_seed(config.seed)
    # covariances stay on the CPU: not every device has float64
    within = torch.zeros(features, features, dtype=torch.float64)
    whole: list[Tensor] = []
    viewed = _spread(len(images), axes_config.viewed or len(images))
    for part, some in zip(torch.split(images, BATCH), torch.split(viewed, BATCH), strict=True):
        batch = part.to(device)
        kinds = axes_config.views if some.any() else ()
        changed = [views(batch[some.to(device)], size, kind, generator) for kind in kinds]
        inputs = [to_network(shrink(batch, size)), *changed]
        with torch.no_grad(), precision():
            plain, *others = (backbone.pooled(x).float().cpu() for x in inputs)
        whole.append(plain)
        for pooled in others:
            change = (pooled - plain[some]).double()
            within += change.T @ change
        yield sum(map(len, whole))
    x = torch.cat(whole)
    variance, mean = torch.var_mean(x, 0, correction=0)
    deviation = (variance.double() + backbone.standard.eps).sqrt()
    x = (x.double() - mean.double()) / deviation
    within /= int(viewed.sum()) * len(axes_config.views) * torch.outer(deviation, deviation)
    within += RIDGE * within.diagonal().mean() * torch.eye(features)
    heads = network.heads
    classes = len(heads.weights(heads.dims[-1])[0]) if heads.dims else 0
    labels = F.one_hot(targets.cpu(), classes).double() if classes else x[:, :0]
    after, share = axes_config.after, axes_config.share
    axes = arrange(
        class_axes(x, labels, axes_config.ridge * within),
        *image_axes(x, labels, within),
        [d - after for d in config.model.dims if d > after],
        0.0 if after else share,
        axes_config.weights,
    )
    with torch.no_grad():
        if after:
            norm = backbone.norm  # its output has a mean of `bias` and a deviation of `weight`
            kept = float((norm.weight**2 + norm.bias**2)[:after].sum())
            energy = float((x @ axes.T).square().sum(1).mean())
            axes = axes * (kept / energy * (1 - share) / share) ** 0.5
            axes = torch.cat((backbone.project.weight[:after].cpu().double(), axes))
        embeddings = (x @ axes.T).float().to(device)
        backbone.standard.running_mean = mean.to(device)
        backbone.standard.running_var = variance.to(device)
        backbone.project.weight.copy_(axes)
        _pass(backbone.norm, embeddings, after)
        embeddings = backbone.norm(embeddings)
    fit_heads(heads, embeddings, targets.to(device), loss)


def _spread(n: int, count: int) -> Tensor:
    """(n,) bool with `count` true values at even distances; all of them if `count` is more."""
    places = torch.arange(n + 1) * min(count, n) // n
    return places[1:] > places[:-1]


def _pass(norm: nn.BatchNorm1d, rows: Tensor, after: int = 0) -> None:
    """Make `norm` the identity for `rows`: in evaluation, and in training for a similar batch.

    The first `after` dims keep their weight and bias, and get the variance of the rows.
    """
    weight, bias = norm.weight[:after].clone(), norm.bias[:after].clone()
    norm.reset_parameters()
    norm.running_var = rows.var(0, correction=0)
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
    norm.weight[:after], norm.bias[:after] = weight, bias


def bands(
    dims: Sequence[int], classes: int, features: int, share: float
) -> list[tuple[int, int, int]]:
    """The band that each of `dims` adds to the prefix before.

    Args:
        dims: prefix lengths, ascending.
        classes: number of class axes.
        features: number of image axes.
        share: of the class axes; 0: none are used.

    Returns:
        For each band, the numbers of class axes and of image axes, and of dims for the latter.
    """
    result = []
    start = used = 0
    for d in dims:
        count = min(classes, (d - start) // 2) if share else 0
        free = d - start - count
        images = min(free, features - used)
        hint = "Use a shorter model.dims, or a larger model.widths."
        require(images > 0, f"There are {features} axes for {dims[-1]} dims.", hint)
        result.append((count, images, free))
        used += images
        start = d
    return result


def class_axes(x: Tensor, labels: Tensor, within: Tensor) -> Tensor:
    """The principal axes of the predicted labels, by descending variance.

    Args:
        x: (n, features) float64, standardised.
        labels: (n, classes) float64, one-hot.
        within: (features, features) covariance of the changes that the axes should ignore.

    Returns:
        (classes - 1, features); along each axis the rows have variance 1.
    """
    if labels.shape[1] < 2:
        return x.new_zeros(0, x.shape[1])
    covariance = x.T @ x / len(x)
    weights = torch.linalg.solve(covariance + within, x.T @ (labels - labels.mean(0)) / len(x))
    values, vectors = torch.linalg.eigh(weights.T @ covariance @ weights)
    # the first eigenvalue is 0: the scores of a row add up to 0
    axes: Tensor = (weights @ vectors)[:, 1:] / values[1:].clamp(min=1e-12).sqrt()
    return axes.flip(1).T


def image_axes(x: Tensor, labels: Tensor, within: Tensor) -> tuple[Tensor, Tensor]:
    """Discriminant axes of single images, the most distinctive first.

    Args:
        x: (n, features) float64, standardised.
        labels: (n, classes) float64, one-hot; may have no columns.
        within: (features, features) covariance between the views of an image.

    Returns:
        (features,) variances between images of one class, and (features, features) axes, one a row.
        An axis with variance 1 between views and v between images is scaled by v / (1 + v).
    """
    between = x.T @ x / len(x)
    counts = labels.sum(0)
    means = labels.T @ x / counts.clamp(min=1)[:, None]
    between -= means.T @ (means * (counts / len(x))[:, None])
    inverse = torch.linalg.inv(torch.linalg.cholesky(within))
    values, vectors = torch.linalg.eigh(inverse @ between @ inverse.T)
    values = values.clamp(min=0).flip(0)
    share = values / (1 + values)
    return values * share**2, (inverse.T @ vectors).flip(1).T * share[:, None]


def arrange(
    classes: Tensor, values: Tensor, images: Tensor, dims: Sequence[int], share: float,
    weights: Sequence[float] = (),
) -> Tensor:  # fmt: skip
    """All axes in the order of the embedding: (dims[-1], features).

    At most half of each band (`bands`) are class axes, in turn, weighted so that `share` of the
    squared norm of the prefix is theirs. The next image axes follow. Where too few are left for the
    last band, a random rotation spreads them over it.

    Args:
        classes: (r, features) axes of variance 1.
        values: (features,) variances of the image axes.
        images: (features, features) image axes.
        dims: prefix lengths, ascending.
        share: 0 or more, and below 1.
        weights: factor of the dims that each prefix adds; empty: 1 each.
    """
    rows: list[Tensor] = []
    turns = cycle(range(len(classes)))
    used = 0
    spent = 0.0  # squared norm of the class axes so far
    counts = bands(dims, len(classes), len(images), share)
    for (count, image_count, free), weight in zip(
        counts, weights or [1.0] * len(dims), strict=True
    ):
        band = images[used : used + image_count]
        used += image_count
        if image_count < free:
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(free, image_count, dtype=band.dtype, generator=generator)
            band = torch.linalg.qr(noise)[0] @ band
        if count:
            due = max(0.0, share / (1 - share) * float(values[:used].sum()) - spent)
            spent += due
            rows.append(weight * classes[list(islice(turns, count))] * (due / count) ** 0.5)
        rows.append(weight * band)
    return torch.cat(rows)


def fit_heads(heads: MatryoshkaHeads, embeddings: Tensor, targets: Tensor, loss: nn.Module) -> None:
    """Fit the heads to (n, dim) embeddings by L-BFGS."""
    if not heads.dims:
        return
    optimizer = torch.optim.LBFGS(
        heads.parameters(), max_iter=HEAD_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(heads(embeddings), targets)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    heads.requires_grad_(True)
    optimizer.step(closure)  # type: ignore[no-untyped-call]
