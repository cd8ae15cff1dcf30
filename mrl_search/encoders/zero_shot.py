"""Zero-shot classification: a joint model compares pictures with the words of labels."""

from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mrl_search.encoders.base import Encoder
from mrl_search.encoders.texts import embed_texts
from mrl_search.errors import require
from mrl_search.vectors import l2_normalize

__all__ = ["check_labels", "label_vectors", "zero_shot"]

PROMPTS = {"simple": "SIMPLE_IMAGENET_TEMPLATES", "imagenet": "OPENAI_IMAGENET_TEMPLATES"}
CLIP_SCALE = 100.0  # of the cosines, for a model that does not say its own


def zero_shot(
    rows: NDArray[np.floating], labels: Sequence[str], encoder: Encoder, prompts: str = "simple"
) -> NDArray[np.float64]:
    """The probability of each label for each picture: (n, len(labels)), rows that add up to 1.

    The softmax of cosines times the logit scale of the model, as of CLIP (arXiv 2103.00020,
    section 3.1.2).

    Args:
        rows: (n, dim) pictures as `encoder` embeds them, of any norm.
        labels: two or more names.
        encoder: a joint model of pictures and words.
        prompts: see `label_vectors`.

    Raises:
        ConfigError: fewer than two labels, or equal ones; or unknown prompts.
        ModelError: the model embeds pictures alone; or the prompts need open_clip.
    """
    check_labels(labels)
    scale = getattr(encoder, "logit_scale", CLIP_SCALE)
    words = label_vectors(labels, encoder, prompts)
    logits = scale * (l2_normalize(rows).astype(np.float64) @ words.T)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def check_labels(labels: Sequence[str]) -> None:
    """Raise ConfigError unless there are two labels or more, none empty and none twice."""
    message = f"The labels are {', '.join(labels) or 'empty'}; name two or more, each once."
    require(len(set(labels)) == len(labels) > 1 and all(labels), message, "For example cat,dog.")


def label_vectors(
    labels: Sequence[str], encoder: Encoder, prompts: str = "simple"
) -> NDArray[np.float32]:
    """The normalised mean of the unit vectors of a label's prompts: (len(labels), dim) float32.

    Args:
        labels: names.
        encoder: a joint model of pictures and words.
        prompts: `simple`, 7 prompts, or `imagenet`, 80 prompts, both of open_clip; or a prompt of
            one's own, in which {} stands for the label.
    """
    templates = _templates(prompts)
    texts = list(chain.from_iterable([t(label) for t in templates] for label in labels))
    rows = embed_texts(texts, encoder).reshape(len(labels), len(templates), -1)
    return l2_normalize(rows.mean(axis=1))


def _templates(prompts: str) -> Sequence[Callable[[str], str]]:
    if prompts in PROMPTS:
        from mrl_search.encoders.weights import import_library

        import_library("open_clip", "models")
        metadata = import_module("open_clip.zero_shot_metadata")
        found: Sequence[Callable[[str], str]] = getattr(metadata, PROMPTS[prompts])
        return found
    message = (
        f"The prompts are {prompts!r}; they must be one of {', '.join(PROMPTS)}, or have a {{}}."
    )
    require("{}" in prompts, message, "For example 'a photo of a {}.'")
    return [lambda label: prompts.replace("{}", label)]
