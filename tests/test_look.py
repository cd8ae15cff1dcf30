"""The second look: changed copies of a picture pass, other shots of its scene do not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, PngImagePlugin

from mrl_search.images.decode import decode
from mrl_search.images.drawn import draw_animal
from mrl_search.images.look import SAME, SIDE, likeness, look_of, pixel_hash

T = Image.Transpose
CHANGES = {
    "smaller": lambda p: p.resize((60, 60)),
    "squashed": lambda p: p.resize((200, 120)),
    "mirrored": lambda p: p.transpose(T.FLIP_LEFT_RIGHT),
    "upside down": lambda p: p.transpose(T.ROTATE_180),
    "on its side": lambda p: p.transpose(T.ROTATE_90),
    "on its side, mirrored": lambda p: p.transpose(T.TRANSVERSE),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.6),
    "without colour": lambda p: p.convert("L").convert("RGB"),
    "cropped": lambda p: p.crop((20, 12, 150, 130)),
    "cropped to a third": lambda p: p.crop((50, 40, 145, 135)),
    "cropped and mirrored": lambda p: p.crop((20, 12, 150, 130)).transpose(T.FLIP_LEFT_RIGHT),
    "turned a little": lambda p: p.rotate(8, Image.Resampling.BILINEAR).crop((20, 20, 140, 140)),
    "as a poor JPEG": lambda p: decode(saved(p, "JPEG", quality=20))[0],
}


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def like(a: Image.Image, b: Image.Image) -> float:
    return likeness(look_of(a), look_of(b))


def shots(seed: int) -> tuple[Image.Image, Image.Image]:
    """Two shots of one scene: what stands in the middle has moved."""
    rng = np.random.default_rng(seed)
    scene = np.array(draw_animal("cat", seed, 160))
    middle = np.array(draw_animal("dog", seed, 160).resize((80, 80)))
    first, second = scene.copy(), scene.copy()
    y, x = rng.integers(30, 50, 2)
    first[y : y + 80, x : x + 80] = middle
    second[y - 14 : y + 66, x + 12 : x + 92] = middle
    return Image.fromarray(first), Image.fromarray(second)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [3, 4])
def test_a_changed_copy_passes_both_ways(change: str, number: int) -> None:
    picture = draw_animal("cat", number, 160)
    copy = CHANGES[change](picture)
    assert like(picture, copy) >= SAME and like(copy, picture) >= SAME


@pytest.mark.parametrize("seed", range(6))
def test_another_shot_of_the_scene_does_not_pass(seed: int) -> None:
    one, other = shots(seed)
    assert like(one, other) < SAME and like(other, one) < SAME
    assert like(one, one.resize((90, 90))) >= SAME  # though a copy of it does


def test_other_pictures_do_not_pass() -> None:
    pictures = [draw_animal(s, n, 96) for s in ("cat", "dog") for n in range(3)]
    for i, one in enumerate(pictures):
        assert like(one, one) == pytest.approx(1, abs=1e-5)
        assert all(like(one, other) < SAME - 0.1 for other in pictures[i + 1 :])


def test_pictures_of_one_colour_have_nothing_to_compare() -> None:
    grey, white = (Image.new("RGB", (50, 40), (v, v, v)) for v in (90, 255))
    assert like(grey, white) == like(grey, grey) == 0
    assert like(grey, draw_animal("cat", 1, 60)) == pytest.approx(0, abs=0.01)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-3, 0.0]), st.booleans())
def test_likeness_is_a_correlation_whatever_the_pictures(
    seed: int, contrast: float, lines: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, SIDE, 1) if lines else (2, SIDE, SIDE)
    one, other = (
        np.float32(255 * contrast)
        * rng.random(shape, np.float32)
        * np.ones((2, SIDE, SIDE), np.float32)
    )
    found = likeness(one, other)
    assert -1 <= found <= 1.00001 and found == likeness(one, other)


def test_the_pixels_alone_decide_the_hash() -> None:
    picture = draw_animal("dog", 5, 60)
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a dog")
    same = [saved(picture, "PNG"), saved(picture, "PNG", pnginfo=text), saved(picture, "BMP")]
    same.append(saved(picture, "WEBP", lossless=True))
    turned = Image.Exif()
    turned[0x0112] = 6
    same.append(saved(picture.transpose(T.ROTATE_90), "PNG", exif=turned))
    assert len(set(same)) == 5 and len({pixel_hash(decode(data)[0]) for data in same}) == 1
    one = picture.copy()
    one.putpixel((3, 3), (1, 2, 3))
    assert pixel_hash(one) != pixel_hash(picture)
    wide, tall = (Image.new("RGB", size) for size in ((6, 2), (2, 6)))
    assert pixel_hash(wide) != pixel_hash(tall)
