"""What pixels show of their past: the steps of a JPEG, and that enlargement adds no detail."""

import io

import numpy as np
import pytest
from PIL import Image

from mrl_search.images.decode import decode
from mrl_search.images.drawn import draw_animal
from mrl_search.images.traces import enlarged, traces_of

R, T = Image.Resampling, Image.Transpose


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return decode(file.getvalue())[0]


def scaled(picture: Image.Image, by: float, kind: Image.Resampling) -> Image.Image:
    return picture.resize((round(picture.width * by), round(picture.height * by)), kind)


@pytest.mark.parametrize(("quality", "step"), [(100, 1), (85, 4), (75, 6), (60, 10), (40, 15)])
def test_the_coarsest_jpeg_shows_and_finer_ones_hide_nothing(quality: int, step: int) -> None:
    picture = jpeg(draw_animal("cat", 3, 206), quality)  # 206: blocks are cut at two edges
    seen = traces_of(picture).step
    assert seen == pytest.approx(step, abs=1)  # of the table of this quality, its middle
    for turn in (T.ROTATE_90, T.ROTATE_180, T.FLIP_LEFT_RIGHT):
        assert traces_of(picture.transpose(turn)).step == seen
    for finer in (99, 97):
        assert traces_of(jpeg(picture, finer)).step == seen
    assert traces_of(jpeg(picture, 20)).step > seen + 5


@pytest.mark.parametrize("kind", [R.BILINEAR, R.BICUBIC, R.LANCZOS])
@pytest.mark.parametrize("by", [1.35, 1.5, 2, 3])
@pytest.mark.parametrize("quality", [95, 75])
def test_enlargement_shows_and_reduction_does_not(
    kind: Image.Resampling, by: float, quality: int
) -> None:
    picture = jpeg(draw_animal("dog", 5, 180), 90)
    own = traces_of(picture)
    larger, smaller = (traces_of(jpeg(scaled(picture, s, kind), quality)) for s in (by, 1 / by))
    assert enlarged(larger, own) and not enlarged(own, larger)
    assert not enlarged(own, smaller) and not enlarged(smaller, own)
    part = traces_of(picture.crop((20, 20, 150, 140)))
    assert not enlarged(own, part) and not enlarged(part, own)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (9, 700), (64, 64), (900, 300)])
def test_any_size_and_one_colour_have_traces(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    flat, noisy = (traces_of(p) for p in (Image.new("RGB", size), Image.fromarray(noise)))
    assert flat.step == noisy.step == 1 and flat.pixels == size[0] * size[1]
    assert np.isfinite(noisy.power).all() and not flat.power.any()
    assert not enlarged(flat, noisy) and not enlarged(flat, flat)
