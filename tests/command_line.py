"""Running commands in a test, and small pictures to run them on."""

import json
from pathlib import Path

import numpy as np
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from mrl_search.cli.app import app


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def ok(*args: object) -> Result:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_error(result: Result, text: str) -> None:
    assert result.exit_code == 1, result.output
    assert text in result.stderr and "error: " in result.stderr and "Traceback" not in result.output


def write_pictures(folder: Path, count: int, seed: int = 0, shift: int = 90) -> None:
    """Write `count` noisy pictures of each of two classes; `shift` tells them apart by colour."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        for channel, name in ((0, "cat"), (2, "dog")):
            pixels = rng.integers(0, 160, (8, 8, 3), dtype=np.uint8)
            pixels[..., channel] += shift
            out = folder / name / f"{name}-{number:04d}.png"
            out.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(out)
