"""Pictures of other things than pets: stamps, wallpapers, sample photographs and plots, by class.

    apt-get install tuxpaint-stamps-default desktop-base gnome-backgrounds
    pip download --no-deps scikit-image
    python benchmarks/encoders/other.py OUT scikit_image-*.whl

Writes a folder a class into OUT. `changed` makes twelve changed copies of a picture.
"""

import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps, UnidentifiedImageError

STAMPS = Path("/usr/share/tuxpaint/stamps")
WALLPAPERS = (Path("/usr/share/backgrounds"), Path("/usr/share/desktop-base"))
FEWEST, MOST = 8, 20  # pictures of a class of stamps
PLOTS = 20  # of each kind
SAMPLES = (".png", ".jpg", ".jpeg", ".tif", ".gif")


def changed(image: Image.Image) -> Mapping[str, Image.Image]:
    """Twelve changed copies of an RGB picture, by the name of the change."""
    width, height = image.size

    def crop(area: float) -> Image.Image:
        w, h = round(width * area**0.5), round(height * area**0.5)
        left, top = (width - w) // 3, (height - h) // 3
        return image.crop((left, top, left + w, top + h))

    third = image.resize((max(8, width // 3), max(8, height // 3)), Image.Resampling.LANCZOS)
    red, green, blue = ImageEnhance.Brightness(image).enhance(1.15).split()
    tinted = Image.merge("RGB", (red.point(lambda v: min(255, v * 6 // 5)), green, blue))
    recoloured = ImageEnhance.Color(tinted).enhance(1.5)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=10)
    letterbox = Image.new("RGB", (width, round(height * 1.4)))
    letterbox.paste(image, (0, round(height * 0.2)))
    banner = image.copy()
    banner.paste((240, 240, 60), (0, round(height * 0.8), width, height))
    return {
        "third": third,
        "crop 60%": crop(0.6),
        "crop 30%": crop(0.3),
        "mirrored": ImageOps.mirror(image),
        "recoloured": recoloured,
        "grey": ImageOps.grayscale(image).convert("RGB"),
        "turned by 10": image.rotate(10, Image.Resampling.BILINEAR),
        "turned by 90": image.transpose(Image.Transpose.ROTATE_90),
        "blurred": image.filter(ImageFilter.GaussianBlur(max(1.0, min(width, height) / 80))),
        "JPEG 10": Image.open(file).convert("RGB"),
        "letterbox": letterbox,
        "banner": banner,
    }


def _save(image: Image.Image, out: Path, label: str, name: str) -> None:
    folder = out / label
    folder.mkdir(parents=True, exist_ok=True)
    if image.mode in ("P", "LA", "PA"):
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.thumbnail((800, 800))
    image.save(folder / f"{name}.png")


def _stamps(out: Path) -> None:
    folders = sorted({p.parent for p in STAMPS.rglob("*.png")})
    for folder in folders:
        files = sorted(folder.glob("*.png"))
        if len(files) < FEWEST or "alphabets" in folder.parts:  # letters alone
            continue
        step = max(1, len(files) // MOST)
        for file in files[::step][:MOST]:
            label = "-".join(folder.relative_to(STAMPS).parts)
            _save(Image.open(file), out, label, file.stem)


def _plots(out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(0)
    for kind in ("lines", "bars", "points", "maps"):
        for i in range(PLOTS):
            figure, axes = plt.subplots(figsize=(rng.uniform(3, 6), rng.uniform(3, 5)))
            n, colour = rng.integers(6, 40), rng.uniform(0, 1, 3)
            if kind == "lines":
                axes.plot(np.cumsum(rng.normal(size=(n, 1 + i % 4)), 0))
            elif kind == "bars":
                axes.bar(range(n), rng.uniform(size=n), color=colour)
            elif kind == "points":
                axes.scatter(*rng.normal(size=(2, 3 * n)), s=rng.uniform(5, 60), color=colour)
            else:
                names = ["viridis", "plasma", "gray", "coolwarm", "terrain"]
                axes.imshow(rng.normal(size=(n, n)).cumsum(0).cumsum(1), cmap=names[i % 5])
            axes.set_title(f"{kind} {i}")
            file = io.BytesIO()
            figure.savefig(file, dpi=80)
            plt.close(figure)
            _save(Image.open(file), out, f"plots-{kind}", f"{i:02d}")


def _photographs(out: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if "skimage/data/" in name and name.endswith(SAMPLES):
                try:
                    image = Image.open(io.BytesIO(archive.read(name)))
                except UnidentifiedImageError:
                    continue
                if image.mode in ("RGB", "L", "RGBA") and min(image.size) >= 64:
                    _save(image, out, "photographs", Path(name).stem)


def main(out: Path, wheel: Path) -> None:
    _stamps(out)
    _plots(out)
    _photographs(out, wheel)
    files = [p for root in WALLPAPERS for p in sorted(root.rglob("*")) if not p.is_symlink()]
    seen = set()
    for file in files:
        if file.suffix.lower() in (".jpg", ".png", ".webp") and file.name not in seen:
            seen.add(file.name)
            image = Image.open(file)
            if min(image.size) >= 200:
                _save(image, out, "wallpapers", f"{len(seen):02d}-{file.stem}")
    print(f"{sum(1 for _ in out.rglob('*.png'))} pictures of {len(list(out.iterdir()))} classes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
