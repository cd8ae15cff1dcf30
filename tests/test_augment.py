"""Training views and changed copies: what each option does; the seed decides everything."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mrl_search.encoders.network import to_network
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.measure.copies import HARD, PROTOCOLS, STANDARD, CopyProtocol, changed_copy
from mrl_search.training.config import AugmentConfig
from mrl_search.training.views import GREY, compressed, shrink, views

STILL = AugmentConfig(
    scale=(1.0, 1.0), aspect=(1.0, 1.0), rotate=0.0, flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0)
)
LUMA = torch.tensor(GREY)


def _images(n: int = 6, side: int = 24, low: int = 70, high: int = 150) -> Tensor:
    """Smooth random pictures in the middle of the range, so that no change of colour is clipped."""
    noise = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    return (
        torch.nn.functional.interpolate(noise, (side, side), mode="bilinear")
        .round()
        .to(torch.uint8)
    )


def _views(images: Tensor, config: AugmentConfig, seed: int = 0, size: int | None = None) -> Tensor:
    """Views in (0, 1), as pictures are easier to think of."""
    return (
        views(images, size or images.shape[-1], config, torch.Generator().manual_seed(seed)) + 1
    ) / 2


def test_without_any_change_a_view_is_the_image() -> None:
    images = _images()
    view = views(images, 24, STILL, torch.Generator())
    assert (view.dtype, view.shape) == (torch.float32, (6, 3, 24, 24))
    assert view.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(view, to_network(images), atol=1e-5)


def test_flip_mirrors() -> None:
    images = _images()
    assert torch.allclose(_views(images, replace(STILL, flip=1.0)), images.flip(3) / 255, atol=1e-5)


def test_flip_is_a_probability() -> None:
    images = _images(400, 8)
    view = _views(images, replace(STILL, flip=0.25))
    flipped = (view - images.flip(3) / 255).abs().amax((1, 2, 3)) < 1e-4
    kept = (view - images / 255).abs().amax((1, 2, 3)) < 1e-4
    assert torch.all(flipped ^ kept)
    assert 70 <= int(flipped.sum()) <= 130


def _ramps(n: int, side: int = 64) -> Tensor:
    """Red grows to the right and green downwards, from 0 to 1: a colour is a position."""
    ramp = ((torch.arange(side) + 0.5) / side * 255).round().to(torch.uint8)
    blank = torch.zeros(n, 1, side, side, dtype=torch.uint8)
    return torch.cat(
        (ramp.expand(n, 1, side, side), ramp[:, None].expand(n, 1, side, side), blank), 1
    )


def _extent(view: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of what a view shows of ramps, as shares of the image; (n,) each."""
    size = view.shape[-1]
    wide = (view[:, 0, :, -1] - view[:, 0, :, 0]).mean(1) * size / (size - 1)
    high = (view[:, 1, -1] - view[:, 1, 0]).mean(1) * size / (size - 1)
    return wide, high


def test_a_crop_keeps_its_share_of_the_area() -> None:
    wide, high = _extent(_views(_ramps(200), replace(STILL, scale=(0.25, 0.25)), size=32))
    assert torch.allclose(wide, torch.full_like(wide, 0.5), atol=0.01)
    assert torch.allclose(high, torch.full_like(high, 0.5), atol=0.01)
    wide, high = _extent(_views(_ramps(300), replace(STILL, scale=(0.2, 0.6)), size=32))
    area = wide * high
    assert area.min() > 0.19
    assert area.max() < 0.61
    assert abs(area.mean() - 0.4) < 0.02


def test_a_crop_has_its_aspect() -> None:
    wide, high = _extent(
        _views(_ramps(4), replace(STILL, scale=(0.25, 0.25), aspect=(2.0, 2.0)), size=32)
    )
    assert torch.allclose(wide / high, torch.full_like(wide, 2.0), atol=0.05)
    assert torch.allclose(wide * high, torch.full_like(wide, 0.25), atol=0.01)


def test_crops_lie_all_over_the_image_and_never_outside() -> None:
    view = _views(_ramps(500), replace(STILL, scale=(0.25, 0.25)), size=32)
    left, top = view[:, 0, :, 0].mean(1), view[:, 1, 0].mean(1)
    for edge in (left, top):
        assert edge.min() >= 0
        assert edge.max() < 0.53
        assert abs(edge.mean() - 0.25) < 0.03
    assert abs(torch.corrcoef(torch.stack((left, top)))[0, 1]) < 0.15


def test_shrinking_loses_what_is_fine_and_keeps_what_is_coarse() -> None:
    stripes = torch.zeros(1, 3, 24, 24, dtype=torch.uint8)
    stripes[..., ::2] = 200
    coarse = torch.zeros(1, 3, 24, 24, dtype=torch.uint8)
    coarse[..., :12] = 200
    strong = replace(STILL, shrink=4.0)
    fine = [_views(stripes, strong, seed).std() for seed in range(20)]
    assert min(fine) < 0.1 * _views(stripes, STILL).std()  # by up to four times smaller
    assert len({round(float(s), 4) for s in fine}) > 2  # the factor is drawn
    assert _views(coarse, strong).std() > 0.8 * _views(coarse, STILL).std()


def test_grey_is_a_probability_and_keeps_the_luma() -> None:
    images = _images(400, 8)
    view = _views(images, replace(STILL, grey=0.25, jitter=(0, 0, 0, 0.5)))
    grey = (view.amax(1) - view.amin(1)).amax((1, 2)) < 1e-4
    assert 0.2 < grey.float().mean() < 0.3
    luma = torch.einsum("nchw,c->nhw", images / 255, LUMA)
    assert torch.allclose(view[grey, 0], luma[grey], atol=2e-3)


def test_rotation_turns_about_the_centre_by_at_most_the_angle() -> None:
    view = _views(_ramps(200), replace(STILL, rotate=20.0))
    inner = view[:, :, 24:40, 24:40]
    angle = torch.atan2(
        (inner[:, 1, :, -1] - inner[:, 1, :, 0]).mean(1),
        (inner[:, 0, :, -1] - inner[:, 0, :, 0]).mean(1),
    ).rad2deg()
    assert 17 < angle.abs().max() <= 20.1
    assert angle.min() < -17
    assert torch.allclose(inner[:, :2].mean((2, 3)), torch.tensor(0.5), atol=0.01)


def test_brightness_multiplies() -> None:
    images = _images()
    ratio = _views(images, replace(STILL, jitter=(0.4, 0, 0, 0))) / (images / 255)
    factor = ratio.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(ratio, factor.expand_as(ratio), atol=1e-3)
    assert 0.6 <= factor.min() < 0.9
    assert 1.1 < factor.max() <= 1.4


def test_contrast_spreads_around_the_mean_grey() -> None:
    images = _images()
    view, before = _views(images, replace(STILL, jitter=(0, 0.4, 0, 0))), images / 255
    grey = torch.einsum("nchw,c->n", before, LUMA).view(-1, 1, 1, 1) / 24**2
    ratio = (view - grey).flatten(1).norm(dim=1) / (before - grey).flatten(1).norm(dim=1)
    assert torch.allclose(view - grey, (before - grey) * ratio.view(-1, 1, 1, 1), atol=1e-4)
    assert ratio.min() < 0.9
    assert ratio.max() > 1.1
    assert torch.all((ratio > 0.6) & (ratio < 1.4))


def test_saturation_moves_towards_grey_and_keeps_the_luma() -> None:
    images = _images()
    view, before = _views(images, replace(STILL, jitter=(0, 0, 0.4, 0))), images / 255
    luma = torch.einsum("nchw,c->nhw", before, LUMA)[:, None]
    ratio = (view - luma).flatten(1).norm(dim=1) / (before - luma).flatten(1).norm(dim=1)
    assert torch.allclose(view - luma, (before - luma) * ratio.view(-1, 1, 1, 1), atol=1e-4)
    assert ratio.min() < 0.9
    assert ratio.max() > 1.1


def test_hue_turns_the_colours_and_keeps_the_luma() -> None:
    images = _images()
    view, before = _views(images, replace(STILL, jitter=(0, 0, 0, 0.2))), images / 255
    assert (view - before).abs().amax((1, 2, 3)).min() > 0.01
    assert torch.allclose(
        torch.einsum("nchw,c->nhw", view, LUMA),
        torch.einsum("nchw,c->nhw", before, LUMA),
        atol=1e-3,
    )


def test_a_half_turn_of_hue_makes_red_cyan() -> None:
    red = torch.tensor([160, 110, 110], dtype=torch.uint8).view(1, 3, 1, 1).expand(40, 3, 4, 4)
    turned = _views(red, replace(STILL, jitter=(0, 0, 0, 0.5)))[
        :, :, 0, 0
    ]  # (40, 3), turned by up to half a turn either way
    assert torch.allclose((turned @ LUMA), torch.tensor([160.0, 110, 110]) @ LUMA / 255, atol=1e-3)
    furthest = turned[(turned[:, 0] - 160 / 255).abs().argmax()]
    assert furthest[0] < furthest[1]
    assert furthest[0] < furthest[2]


@pytest.mark.parametrize("jitter", [(0, 0, 0.4, 0), (0, 0, 0, 0.1), (0, 0, 0.4, 0.5)])
def test_grey_stays_grey_and_the_same_whatever_the_colours_do(
    jitter: tuple[float, float, float, float],
) -> None:
    grey = _images()[:, :1].expand(6, 3, 24, 24)
    assert torch.allclose(_views(grey, replace(STILL, jitter=jitter)), grey / 255, atol=1e-3)


def test_all_changes_together_leave_grey_grey() -> None:
    view = _views(_images()[:, :1].expand(6, 3, 24, 24), AugmentConfig())
    assert torch.allclose(view[:, 0], view[:, 1], atol=1e-3)
    assert torch.allclose(view[:, 0], view[:, 2], atol=1e-3)


def test_values_stay_in_range() -> None:
    images = torch.randint(
        0, 256, (32, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    view = views(
        images, 16, AugmentConfig(jitter=(0.9, 0.9, 0.9, 0.5)), torch.Generator().manual_seed(0)
    )
    assert view.shape == (32, 3, 16, 16)
    assert (float(view.min()), float(view.max())) == (-1.0, 1.0)


def test_the_generator_decides_and_the_global_one_is_left_alone() -> None:
    images, before = _images(), torch.get_rng_state()
    generator = torch.Generator().manual_seed(3)
    first, second = (views(images, 16, AugmentConfig(), generator) for _ in range(2))
    assert torch.equal(first, views(images, 16, AugmentConfig(), torch.Generator().manual_seed(3)))
    assert not torch.allclose(first, second, atol=0.05)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_image_is_changed_in_its_own_way() -> None:
    images = _images(1).expand(8, 3, 24, 24)
    view = _views(images, AugmentConfig())
    differences = (view[:, None] - view[None]).abs().mean((2, 3, 4)) + torch.eye(8)
    assert differences.min() > 0.005


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_shrinks_bytes_too() -> None:
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    assert (shrink(images.cuda(), 32).cpu().int() - shrink(images, 32).int()).abs().max() <= 1


def test_to_network_maps_bytes_to_minus_one_and_one() -> None:
    values = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.allclose(to_network(values).flatten(), torch.tensor([-1.0, -0.6, 1.0]))


def test_shrink_averages() -> None:
    stripes = torch.tensor([0, 200], dtype=torch.uint8).repeat(8).expand(1, 3, 16, 16)
    small = shrink(stripes, 4)
    assert (small.dtype, small.shape) == (torch.uint8, (1, 3, 4, 4))
    assert torch.all((small.float() - 100).abs() <= 8)  # without antialiasing it would be 0 or 200
    assert shrink(stripes, 16) is stripes


# Changed copies


def _picture() -> Image.Image:
    return Image.fromarray(_images(1, 64)[0].permute(1, 2, 0).numpy())


def test_the_same_seed_gives_the_same_copy() -> None:
    a, b, c = (changed_copy(_picture(), 32, seed) for seed in (1, 1, 2))
    assert (a.shape, a.dtype) == ((32, 32, 3), np.uint8)
    assert np.array_equal(a, b)
    assert np.abs(a.astype(int) - c).mean() > 2


def test_a_copy_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    changed_copy(_picture(), 16, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_protocol_that_changes_nothing_gives_the_picture() -> None:
    nothing = CopyProtocol(
        area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0)
    )
    assert np.array_equal(changed_copy(_picture(), 64, 9, nothing), np.asarray(_picture()))
    mirrored = changed_copy(_picture(), 64, 9, replace(nothing, flip=1.0))
    assert np.array_equal(mirrored, np.asarray(_picture())[:, ::-1])


def test_the_standard_copy_is_the_published_protocol() -> None:
    assert CopyProtocol((0.5, 0.9), (0.8, 1.25), 0.5, (0.3, 0.3, 0.3, 0.02)) == STANDARD
    ramps = Image.fromarray(_ramps(1, 128)[0].permute(1, 2, 0).numpy())
    still = replace(STANDARD, flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0))
    copies = (
        torch.from_numpy(
            np.stack([changed_copy(ramps, 32, seed, still) for seed in range(60)])
        ).permute(0, 3, 1, 2)
        / 255
    )
    wide, high = _extent(copies)
    area, aspect = wide * high, wide / high
    assert 0.47 < area.min() < 0.56
    assert 0.84 < area.max() < 0.93
    assert math.isclose(float(aspect.min()), 0.8, abs_tol=0.06)
    assert math.isclose(float(aspect.max()), 1.25, abs_tol=0.08)


NOTHING = CopyProtocol(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0))


def test_the_hard_protocol_has_its_published_values() -> None:
    assert PROTOCOLS == {"standard": STANDARD, "hard": HARD}
    assert (HARD.area, HARD.rotate, HARD.jitter, HARD.blur, HARD.quality) == (
        (0.25, 0.5),
        20.0,
        (0.5, 0.5, 0.5, 0.05),
        True,
        30,
    )
    ramps = Image.fromarray(_ramps(1, 128)[0].permute(1, 2, 0).numpy())
    still = replace(HARD, flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0), rotate=0.0, blur=False, quality=0)
    copies = (
        torch.from_numpy(
            np.stack([changed_copy(ramps, 32, seed, still) for seed in range(60)])
        ).permute(0, 3, 1, 2)
        / 255
    )
    wide, high = _extent(copies)
    assert 0.22 < (wide * high).min() < 0.3
    assert 0.45 < (wide * high).max() < 0.54


def test_a_copy_is_turned_by_at_most_the_angle() -> None:
    white = Image.new("RGB", (64, 64), "white")
    black = [
        float((changed_copy(white, 64, seed, replace(NOTHING, rotate=20.0)) < 128).mean())
        for seed in range(40)
    ]
    assert min(black) < 0.02 < max(black) < 0.2


def test_a_copy_is_blurred_and_saved_as_a_jpeg() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    blurred = [
        changed_copy(noise, 64, seed, replace(NOTHING, blur=True)).std() for seed in range(20)
    ]
    assert min(blurred) < 0.5 * np.asarray(noise).std() < max(blurred)
    file = io.BytesIO()
    noise.save(file, "JPEG", quality=30)
    assert np.array_equal(
        changed_copy(noise, 64, 3, replace(NOTHING, quality=30)), np.asarray(Image.open(file))
    )


def test_the_standard_copy_is_drawn_as_before_there_was_a_hard_one() -> None:
    v2 = import_torchvision("torchvision.transforms.v2")
    torch.manual_seed(11)
    steps = [
        v2.RandomResizedCrop(32, scale=(0.5, 0.9), ratio=(0.8, 1.25)),
        v2.RandomHorizontalFlip(0.5),
        v2.ColorJitter(0.3, 0.3, 0.3, 0.02),
    ]
    assert np.array_equal(
        changed_copy(_picture(), 32, 11), np.asarray(v2.Compose(steps)(_picture()))
    )


def test_beyond_the_edges_is_black_or_a_reflection() -> None:
    images = torch.full((50, 3, 32, 32), 200, dtype=torch.uint8)
    turned = replace(STILL, rotate=45.0)
    assert _views(images, turned).min() > 0.7
    black = _views(images, replace(turned, outside="zeros"))[:, 0]
    assert black[:, [0, 0, -1, -1], [0, -1, 0, -1]].min(dim=1).values.lt(0.1).sum() > 40
    assert torch.allclose(black[:, 12:20, 12:20], torch.tensor(200 / 255))


def test_jpeg_is_that_of_a_file() -> None:
    images = _images(20, low=0, high=255)
    assert torch.equal(
        _views(images, replace(STILL, jpeg=95)), _views(images, replace(STILL, jpeg=95))
    )
    best, worst = (
        (_views(images, replace(STILL, jpeg=q)) - images / 255).abs().mean((1, 2, 3))
        for q in (95, 1)
    )
    assert 0 < best.max() < 0.02 < worst.max()
    for quality in (5, 50):
        file = io.BytesIO()
        Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        saved = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert torch.equal(
            compressed(images[:1] / 255, torch.tensor([float(quality)]))[0], saved / 255
        )
