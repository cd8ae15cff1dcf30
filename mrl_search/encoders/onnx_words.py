"""The words of an ONNX pair: a graph from tokens, or from texts, to vectors.

A graph of tokens has an input (n, length) of whole numbers and may have one for their mask, whose
name has `mask`. Tokens come from a `tokenizer.json` beside it (library tokenizers), else from the
tokenizer of CLIP (library open_clip). A graph of texts has one input (n,) of strings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrl_search.encoders.graph_file import content_hash
from mrl_search.encoders.onnx_session import Session, output_of, settings_of
from mrl_search.errors import ModelError, first_line
from mrl_search.files import open_regular

__all__ = ["WordGraph", "WordSettings", "open_words"]

STRINGS, WHOLE = "tensor(string)", {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
TOKENIZER = "tokenizer.json"
CLIP_LENGTH = 77  # tokens of a text (arXiv 2103.00020, section 2.4)
EXPORT = "Export it with tokens (n, length) as the input, and the embedding (n, dim) as the output."

Tokenize: TypeAlias = Callable[[Sequence[str]], tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class WordSettings:
    """FILE.json beside a graph of words FILE.onnx.

    Attributes:
        length: tokens of a text; default: what the graph takes, else 77.
        output: the name of the embedding, where the graph has several outputs.
        scale: what cosines of pictures and words are multiplied by, for a softmax over labels.
    """

    length: int = 0
    output: str = ""
    scale: float = 100.0


@dataclass(eq=False)
class WordGraph:
    """A graph that embeds texts; `mark` is a checksum of everything that changes a vector."""

    file: Path
    session: Session
    settings: WordSettings
    output: str
    mark: str
    dim: int = field(init=False)

    def __post_init__(self) -> None:
        row = self.encode(["a photo of a cat"])
        if row.ndim != 2 or len(row) != 1:
            shape = ", ".join(map(str, row.shape))
            message = f"The output {self.output} of {self.file} is ({shape}) for one text."
            raise ModelError(message, EXPORT)
        self.dim = row.shape[1]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (n, dim) float32, not normalised.

        Raises:
            ModelError: the tokenizer cannot be opened, or the graph cannot run on its tokens.
        """
        feeds: dict[str, NDArray[Any]]
        fixed = self.session.inputs[0].shape[:1]
        if fixed and isinstance(fixed[0], int) and 0 < fixed[0] != len(texts):
            if fixed[0] > 1:
                raise ModelError(f"{self.file} takes {fixed[0]} texts at once.", EXPORT)
            return np.concatenate([self.encode([text]) for text in texts])
        if self.session.inputs[0].type == STRINGS:
            feeds = {self.session.inputs[0].name: np.array(list(texts), dtype=object)}
        else:
            tokens, mask = self._tokenize(texts)
            feeds = {
                each.name: (mask if "mask" in each.name else tokens).astype(WHOLE[each.type])
                for each in self.session.inputs
            }
        try:
            rows = self.session.run(feeds, self.output)
        except Exception as error:  # of onnxruntime
            message = f"{self.file} cannot run on these tokens: {first_line(error)}"
            raise ModelError(message, EXPORT) from error
        return rows.astype(np.float32)

    @cached_property
    def _tokenize(self) -> Tokenize:
        length = self.settings.length or self._graph_length() or CLIP_LENGTH
        beside = self.file.with_name(TOKENIZER)
        return _from_file(beside, length) if beside.is_file() else _of_clip(length)

    def _graph_length(self) -> int:
        shape = self.session.inputs[0].shape
        return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 0


def open_words(file: Path, device: str) -> WordGraph:
    """The graph of words in a file.

    Raises:
        ModelError: there is no such file; it is not an ONNX file; its inputs or its output are not
            as above; or its tokenizer cannot be opened.
    """
    if not file.is_file():
        raise ModelError(f"There is no file {file}.", "Name it: onnx:IMAGE.onnx+TEXT.onnx")
    session = Session(file, device)
    inputs = session.inputs
    kinds = [each.type for each in inputs]
    masks = sum("mask" in each.name for each in inputs)
    one_text = kinds == [STRINGS]
    if not one_text and (set(kinds) - set(WHOLE) or len(inputs) - masks != 1 or masks > 1):
        shown = ", ".join(f"{each.name} {each.type}" for each in inputs)
        raise ModelError(f"{file} is no graph of words: its inputs are {shown}.", EXPORT)
    settings = settings_of(WordSettings, file)
    output = output_of(file, session, settings.output)
    with open_regular(file) as opened:
        marks = [content_hash(file, opened.read()), output, str(settings.length)]
    tokenizer = file.with_name(TOKENIZER)
    if not one_text and tokenizer.is_file():
        with open_regular(tokenizer) as opened:
            marks.append(content_hash(tokenizer, opened.read()))
    return WordGraph(file, session, settings, output, " ".join(marks))


def _from_file(file: Path, length: int) -> Tokenize:
    """Tokens as the library tokenizers makes them, cut and padded to `length`."""
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        if error.name != "tokenizers":
            raise
        message = f"To read {file}, the library tokenizers is needed, which is not installed."
        raise ModelError(message, "pip install tokenizers") from error
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
        padding = tokenizer.padding or {}
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(**padding | {"length": length, "pad_to_multiple_of": None})
    except Exception as error:  # the library raises Exception itself
        message = f"{file} cannot be opened as a tokenizer: {first_line(error)}"
        raise ModelError(message, f"Copy the {TOKENIZER} of the model again.") from error

    def tokenize(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        found = tokenizer.encode_batch(list(texts))
        return np.array([f.ids for f in found]), np.array([f.attention_mask for f in found])

    return tokenize


def _of_clip(length: int) -> Tokenize:
    """The tokens of CLIP; after the end of a text, they are 0."""
    from mrl_search.encoders.weights import import_library

    tokenizer = import_library("open_clip", "models").SimpleTokenizer(context_length=length)

    def tokenize(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        tokens: NDArray[np.int64] = tokenizer(list(texts)).numpy()
        return tokens, (tokens != 0).astype(np.int64)

    return tokenize
