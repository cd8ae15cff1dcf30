"""Encoders of the library open_clip: joint models of pictures and words."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mrl_search.encoders.base import Access, Offer, Preprocessing, fingerprint
from mrl_search.encoders.network_encoder import NetworkEncoder, output_dims
from mrl_search.encoders.weights import (
    cached_file,
    downloading,
    import_library,
    unknown_model,
    weights_hash,
    wrong_weights,
)
from mrl_search.errors import ModelError, first_line
from mrl_search.files import expanded
from mrl_search.vectors import default_dims

__all__ = ["ClipEncoder", "described", "open_encoder", "preprocessing_of"]

FITS = {"shortest": "cover", "longest": "contain", "squash": "squash"}
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # of a repository
LICENCES = {  # of the weights by a part of their repository, as the model cards state them
    "laion/": "MIT",
    "SigLIP": "Apache-2.0",
    "PE-Core": "Apache-2.0",
    "metaclip": "CC-BY-NC-4.0",
    "apple/": "apple-amlr, for research",
    "MobileCLIP": "apple-amlr, for research",
}


class ImageTower(nn.Module):
    """The network of a joint model as a function of pictures."""

    def __init__(self, joint: nn.Module) -> None:
        super().__init__()
        self.joint = joint

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.joint.encode_image(x)  # type: ignore[operator]
        return embedding


@dataclass(eq=False)
class ClipEncoder(NetworkEncoder):
    """A `NetworkEncoder` around an `ImageTower` that also embeds texts.

    `open_tokenizer` opens the function from texts to (n, length) tokens, when first used.
    """

    open_tokenizer: Callable[[], Callable[[list[str]], Tensor]] = field(kw_only=True)

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        return self.open_tokenizer()

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        joint: Any = self.network.joint
        tokens = self._tokenizer(list(texts)).to(self.device)
        with torch.inference_mode():
            rows: NDArray[np.float32] = joint.encode_text(tokens).float().cpu().numpy()
        return rows

    @property
    def logit_scale(self) -> float:
        """What a cosine of picture and text is multiplied by, for a softmax over texts."""
        joint: Any = self.network.joint
        return float(joint.logit_scale.exp())


def open_encoder(text: str, access: Access) -> ClipEncoder:
    """The model `NAME/PRETRAINED`; with `@FILE`, its weights from a file.

    `NAME@FILE` is a checkpoint of one's own, and `NAME@FOLDER` a copy of a repository of the hub.

    Raises:
        ModelError: open_clip is not installed, or has no such model or weights; the weights cannot
            be downloaded, or may not be; or the file has other weights.
    """
    library = import_library("open_clip", "models")
    named, _, place = text.partition("@")
    given = expanded(place).absolute() if place else None
    start, slash, end = named.rpartition("/")
    name, tag = (start.replace("/", "-"), end) if slash else (named, "")
    if name not in library.list_models():
        raise unknown_model("open_clip", name, library.list_models(), "ViT-B-32")
    model = f"open_clip:{name}" + (f"/{tag}" if tag else "")
    if tag and given and given.is_dir():
        message = f"{given} is a folder; it says itself how its weights were trained."
        raise ModelError(message, f"Name it without {tag}: open_clip:{name}@{given}")
    config = _pretrained(library, name, tag, given)
    if "hf_model_name" in library.get_model_config(name)["text_cfg"]:
        _check_transformers(model)
    with _library_calls(access):
        path = given or _file(library, model, config, access)
        joint = _load(library, model, name, path, config)
    preprocessing = preprocessing_of(joint.visual.preprocess_cfg)
    source = f"local-dir:{path}" if path.is_dir() else name
    quick = any(type(module).__name__ == "QuickGELU" for module in joint.modules())
    weights = weights_hash(joint) + ("quick" if quick else "")
    model += f"@{given}" if given else ""
    network = ImageTower(joint).eval()
    dims = default_dims(output_dims(network, preprocessing.size))
    whole = fingerprint(weights, preprocessing, Preprocessing(preprocessing.size))
    return ClipEncoder(
        model, name, whole, dims, preprocessing, network, device=access.device, axes="pca",
        open_tokenizer=lambda: _tokenizer(library, model, source, access),
    )  # fmt: skip


def preprocessing_of(config: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing of a model's `PreprocessCfg`, as its transform for evaluation does it."""
    size = config["size"]
    height, width = size if isinstance(size, Sequence) else (size, size)
    if height != width:
        raise ModelError(f"The model takes {width} x {height} pixels; only squares are supported.")
    (r, g, b), (dr, dg, db), fill = config["mean"], config["std"], int(config["fill_color"])
    return Preprocessing(
        height,
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=(float(r), float(g), float(b)),
        std=(float(dr), float(dg), float(db)),
        fit=FITS[config["resize_mode"]],
        resize=height,
        fill=(fill, fill, fill),
    )


def _pretrained(library: Any, name: str, tag: str, given: Path | None) -> dict[str, Any]:  # noqa: ANN401
    """What open_clip knows of the weights `tag`: where they are, and their preprocessing.

    Without a tag, what all weights of the model have in common; empty where it has none.
    """
    tags = library.list_pretrained_tags_by_model(name)
    known = ", ".join(f"{name}/{each}" for each in tags)
    if tag:
        config: dict[str, Any] = library.get_pretrained_cfg(name, tag)
        if config:
            return config
        message = f"open_clip has no weights {tag!r} for {name}."
        raise ModelError(message, f"It has {known or f'none; name a file: {name}@FILE'}.")
    if given is None:
        message = f"open_clip:{name} does not say which weights."
        raise ModelError(message, f"Name one of {known or f'your own: {name}@FILE'}.")
    keys = ("mean", "std", "interpolation", "resize_mode")
    found = [{key: library.get_pretrained_cfg(name, t)[key] for key in keys} for t in tags]
    if given.is_file() and any(each != found[0] for each in found):
        message = f"The weights of {name} differ in their preprocessing."
        raise ModelError(message, f"Say which ones are in the file: {name}/{tags[0]}@FILE")
    return found[0] if found else {}


def _file(library: Any, model: str, config: Mapping[str, Any], access: Access) -> Path:  # noqa: ANN401
    """The file of pretrained weights, from the cache of the hub or downloaded."""
    repository, _, file = config["hf_hub"].rpartition("/")
    names = (str(Path(file).with_suffix(".safetensors")), file) if file else WEIGHTS
    cached = cached_file(repository, names)
    if cached:
        return cached
    source = f"huggingface.co/{repository}"
    name = model.removeprefix("open_clip:").partition("/")[0]
    licence, size = _licence(config) or f"see https://{source}", _size(library, name)
    offer = Offer(model, source, licence, size, "the cache of the hub")
    by_hand = f"download {names[0]} from https://{source} elsewhere and name it: {model}@FILE"
    with downloading(offer, access, by_hand):
        return Path(library.download_pretrained(config))


def _load(library: Any, model: str, name: str, path: Path, config: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """The model with the weights in a file, or in a folder as of a repository of the hub."""
    if not path.exists():
        message = f"There is no file {path}."
        raise ModelError(message, f"Name a file of weights: open_clip:{name}@FILE")
    needed = library.get_model_config(name)
    try:
        if path.is_dir():
            joint = library.create_model(f"local-dir:{path}", require_pretrained=True)
            dims = library.get_model_config(f"local-dir:{path}")["embed_dim"]
            if dims != needed["embed_dim"]:
                raise ValueError(f"it has {dims} dims, not {needed['embed_dim']}")
        else:
            quick = bool(config.get("quick_gelu"))
            joint = library.create_model(
                name, str(path), force_quick_gelu=quick, force_preprocess_cfg=config
            )
    except Exception as error:  # a damaged file raises anything
        raise wrong_weights(path, model, error) from error
    return joint


def described(text: str) -> tuple[int, int, str]:
    """Dims of the vectors of a model `NAME/PRETRAINED`, bytes of its weights, and their licence.

    Without weights. The bytes are 0 where the network is needed to know.
    """
    library = import_library("open_clip", "models")
    name, _, tag = text.rpartition("/")
    dims = int(library.get_model_config(name)["embed_dim"])
    return dims, _size(library, name), _licence(library.get_pretrained_cfg(name, tag))


def _licence(config: Mapping[str, Any]) -> str:
    """The licence of weights; empty where it is not known here."""
    return next((LICENCES[part] for part in LICENCES if part in config["hf_hub"]), "")


def _size(library: Any, name: str) -> int:  # noqa: ANN401
    """Bytes of the weights of a model in float32; 0 where the network is needed to know."""
    try:
        with _library_calls(Access(fetch=False)), torch.device("meta"):
            joint = library.create_model(name, device="meta", pretrained_text=False)
    except (OSError, RuntimeError):  # the description of the text model is on the hub
        return 0
    return sum(p.numel() * p.element_size() for p in joint.parameters())


def _tokenizer(library: Any, model: str, source: str, access: Access) -> Any:  # noqa: ANN401
    if "hf_tokenizer_name" in library.get_model_config(source)["text_cfg"]:
        _check_transformers(model)
    try:
        with _library_calls(access):
            return library.get_tokenizer(source)
    except Exception as error:  # a damaged file raises anything
        message = f"The tokenizer of {model} cannot be opened: {first_line(error)}"
        hint = f"To download it, name the model: --model {model}. Or name a folder that has it."
        raise ModelError(message, hint) from error


def _check_transformers(model: str) -> None:
    """Raise ModelError unless the library transformers is installed."""
    try:
        import_module("transformers")
    except ImportError as error:
        message = f"To read words, {model} needs the library transformers, which is not installed."
        raise ModelError(message, "pip install transformers") from error


@contextmanager
def _library_calls(access: Access) -> Iterator[None]:
    """Keep the libraries from logging, and from the network unless they may download."""
    from huggingface_hub import constants

    offline, level = constants.HF_HUB_OFFLINE, logging.root.manager.disable
    constants.HF_HUB_OFFLINE = offline or not access.fetch
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)
        constants.HF_HUB_OFFLINE = offline
