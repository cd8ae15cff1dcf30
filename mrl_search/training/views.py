"""Random views of a whole batch: one affine crop and one linear colour change an image."""

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mrl_search.training.config import AugmentConfig

__all__ = ["blurred", "compressed", "shrink", "views"]

BLUR = (0.1, 2.0)  # deviations in pixels, as in torchvision's GaussianBlur
GREY = (0.299, 0.587, 0.114)
TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def shrink(images: Tensor, side: int) -> Tensor:
    """(n, 3, s, s) uint8 to (n, 3, side, side) uint8, antialiased."""
    if images.shape[-1] == side:
        return images
    on_cpu = images.device.type == "cpu"  # other devices have no kernel for uint8
    source = images if on_cpu else images.float()
    resized = F.interpolate(source, (side, side), mode="bilinear", antialias=True)
    return resized if on_cpu else resized.round().clamp(0, 255).to(torch.uint8)


def views(images: Tensor, size: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """One random view of each image, on its device.

    Args:
        images: (n, 3, s, s) uint8.
        size: side of the views, in pixels.
        config: the kind of views.
        generator: on the CPU; the same state gives the same views on any device.

    Returns:
        (n, 3, size, size) float32 in (-1, 1), channels last.
    """
    n, device = len(images), images.device

    def moved(values: Tensor) -> Tensor:
        return values.to(device, non_blocking=True)  # a GPU does not wait for them

    def uniform(low: float, high: float) -> Tensor:
        return moved(torch.rand(n, generator=generator) * (high - low) + low)

    area = uniform(*config.scale)
    aspect = torch.exp(uniform(math.log(config.aspect[0]), math.log(config.aspect[1])))
    w, h = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x, y = uniform(-1, 1) * (1 - w), uniform(-1, 1) * (1 - h)
    angle = uniform(-1, 1) * math.radians(config.rotate)
    mirror = torch.where(uniform(0, 1) < config.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    across = torch.stack((w * cos * mirror, -w * sin, x), 1)
    down = torch.stack((h * sin * mirror, h * cos, y), 1)
    theta = torch.stack((across, down), 1)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    view = F.grid_sample(
        images.float() / 255, grid, padding_mode=config.outside, align_corners=False
    )

    brightness, contrast, saturation = (
        uniform(1 - j, 1 + j).view(n, 1, 1) for j in config.jitter[:3]
    )
    if config.grey:  # draws only where it is used: other recipes keep their views
        saturation = torch.where(uniform(0, 1).view(n, 1, 1) < config.grey, 0.0, saturation)
    turn = uniform(-1, 1) * 2 * math.pi * config.jitter[3]
    grey, to_yiq = torch.tensor(GREY), torch.tensor(TO_YIQ)
    from_yiq, to_yiq, grey = map(moved, (torch.linalg.inv(to_yiq), to_yiq, grey))
    hue = torch.eye(3, device=device).repeat(n, 1, 1)
    hue[:, 1, 1] = hue[:, 2, 2] = torch.cos(turn)
    hue[:, 1, 2], hue[:, 2, 1] = -torch.sin(turn), torch.sin(turn)
    saturate = saturation * torch.eye(3, device=device) + (1 - saturation) * grey.expand(3, 3)
    colour = from_yiq @ hue @ to_yiq @ saturate * (brightness * contrast)
    mean = torch.einsum("nchw,c->n", view, grey) / (size * size)
    offset = ((1 - contrast) * brightness).view(n, 1, 1) * mean.view(n, 1, 1)
    view = torch.baddbmm(offset.expand(n, 3, 1), colour, view.flatten(2)).view(n, 3, size, size)
    view = view.clamp(0, 1)
    if config.blur:
        sigma = uniform(*BLUR)
        view = blurred(view, torch.where(uniform(0, 1) < config.blur, sigma, 0.0))
    if config.shrink > 1:
        factor = float(torch.rand(1, generator=generator)) * (config.shrink - 1) + 1
        side = max(1, round(size / factor))
        small = F.interpolate(view, (side, side), mode="bilinear", antialias=True)
        view = F.interpolate(small, (size, size), mode="bilinear")
    if config.jpeg:
        view = compressed(view, uniform(config.jpeg, 95))
    return (view * 2 - 1).contiguous(memory_format=torch.channels_last)


def compressed(images: Tensor, quality: Tensor) -> Tensor:
    """Compress (n, 3, h, w) float32 in (0, 1) as JPEG files of (n,) qualities from 1 to 95."""
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = []
    for image, q in zip(pixels, quality.tolist(), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=round(q))
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images.device).float() / 255


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a 3x3 kernel and reflected edges, as torchvision's.

    Args:
        images: (n, c, h, w) float32.
        sigma: (n,) deviations in pixels; 0 for no blur.
    """
    side = torch.where(sigma > 0, torch.exp(-0.5 / sigma.clamp(min=1e-3) ** 2), 0.0)
    side = side.view(-1, 1, 1, 1)
    centre, side = 1 / (1 + 2 * side), side / (1 + 2 * side)
    wide = F.pad(images, (1, 1, 1, 1), mode="reflect")
    rows = centre * wide[:, :, 1:-1] + side * (wide[:, :, :-2] + wide[:, :, 2:])
    return centre * rows[..., 1:-1] + side * (rows[..., :-2] + rows[..., 2:])
