"""Embedding words, and adding them to pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.encoders.base import Encoder, TextEncoder
from mrl_search.encoders.words import Words
from mrl_search.errors import ModelError
from mrl_search.vectors import combined, l2_normalize

__all__ = ["check_reads_words", "embed_texts", "with_words"]

BATCH = 64  # texts a batch
JOINT = "open_clip:NAME/PRETRAINED, onnx:IMAGE.onnx+TEXT.onnx"  # models that read words


def check_reads_words(encoder: Encoder) -> TextEncoder:
    """The encoder, if it embeds words, too.

    Raises:
        ModelError: the model embeds pictures alone.
    """
    if not isinstance(encoder, TextEncoder):
        message = f"The model {encoder.name} embeds pictures alone; it reads no words."
        raise ModelError(message, f"Models of pictures and words: {JOINT}.")
    return encoder


def embed_texts(texts: Sequence[str], encoder: Encoder) -> NDArray[np.float32]:
    """Embed texts: (n, dim) float32 rows of norm 1.

    Raises:
        ModelError: the model embeds pictures alone, or gives vectors that are not finite.
    """
    joint = check_reads_words(encoder)
    starts = range(0, len(texts), BATCH)
    rows = np.concatenate([joint.encode_text(texts[i : i + BATCH]) for i in starts])
    if not np.isfinite(rows).all():
        message = f"The model {encoder.name} gives words vectors that are not finite."
        raise ModelError(message, "Its weights may be damaged: download them again.")
    return l2_normalize(rows)


def with_words(
    queries: Sequence[Any], rows: NDArray[np.float32], encoder: Encoder
) -> NDArray[np.float32]:
    """Rows of queries with their words added; other rows stay as they are.

    Args:
        queries: n queries; those that are `Words` change their row.
        rows: (n, dim) float32, the embedded pictures; any row where there is no picture.
        encoder: embeds the words.

    Raises:
        DataError: words and picture cancel each other.
        ModelError: the model embeds pictures alone.
    """
    asked = {i: q for i, q in enumerate(queries) if isinstance(q, Words) and q.phrases}
    if not asked:
        return rows
    phrases = list(dict.fromkeys(p for query in asked.values() for p in query.phrases))
    unit = dict(zip(phrases, embed_texts(phrases, encoder), strict=True))
    rows = rows.copy()
    for i, query in asked.items():
        parts = [(unit[phrase], weight) for phrase, weight in query.phrases.items()]
        if query.picture is not None:
            parts.append((rows[i], 1.0))
        rows[i] = combined(*zip(*parts, strict=True))
    return rows
