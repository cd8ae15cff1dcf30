"""Twins: found by pixels, and kept on one side of the split."""

import io
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from tiny_runs import noise_pixels

from mrl_search.training.config import DataConfig
from mrl_search.training.pixels import Pixels
from mrl_search.training.split import split_rows
from mrl_search.training.twins import twins_of


def saved_again(pixels: torch.Tensor) -> torch.Tensor:
    """A picture (3, side, side) as a JPEG of other pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=90)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def smooth_pixels(n: int = 40) -> Pixels:
    """Blurred noise, which a JPEG keeps; 5 and 17 are 3 again, 8 is 8's bytes again."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    large = [
        np.array(Image.fromarray(c).resize((64, 64), Image.Resampling.BICUBIC)) for c in coarse
    ]
    images = torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).contiguous()
    images[5] = saved_again(images[3])
    images[17] = saved_again(images[5])
    return replace(noise_pixels(n), images=images)


def test_pictures_that_were_saved_again_are_twins_of_the_first() -> None:
    pixels = smooth_pixels()
    assert not torch.equal(pixels.images[3], pixels.images[5])
    assert twins_of(pixels) == {"0005": "0003", "0017": "0003"}
    same = replace(pixels, hashes=[h if h != "0005" else "0003" for h in pixels.hashes])
    assert twins_of(same) == {"0017": "0003"}


def test_pictures_of_one_colour_are_no_twins() -> None:
    plain = torch.full((6, 3, 64, 64), 200, dtype=torch.uint8)
    assert twins_of(replace(noise_pixels(6), images=plain)) == {}


def test_twins_train_together_and_no_other_picture_moves() -> None:
    pixels, data = smooth_pixels(), DataConfig(validation=0.3)
    train, validation = split_rows(pixels.labels, pixels.hashes, data)
    held_out, other = (pixels.hashes[i] for i in (validation[0], train[0]))
    for twins in ({held_out: other}, {other: held_out}):
        new_train, new_validation = split_rows(pixels.labels, pixels.hashes, data, (), twins)
        assert new_validation.tolist() == validation[1:].tolist()
        assert new_train.tolist() == sorted([*train, validation[0]])
    both = {pixels.hashes[validation[1]]: held_out}
    assert split_rows(pixels.labels, pixels.hashes, data, (), both)[1].tolist() == list(validation)
