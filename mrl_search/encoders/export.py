"""Write an encoder as an ONNX file that onnxruntime runs without torch."""

import contextlib
import io
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrl_search.encoders.base import Access, Encoder, Preprocessing, TextEncoder
from mrl_search.encoders.graph_file import checksum_entry, properties
from mrl_search.encoders.network_encoder import NetworkEncoder, normalised
from mrl_search.encoders.onnx import cached_graph, open_encoder
from mrl_search.errors import ModelError, first_line, installed
from mrl_search.files import expanded, make_folder, refuse_existing, write_atomically

__all__ = ["Exported", "export_encoder"]

TOLERANCE = 1e-4  # of the largest value of a vector
LARGEST = 2**31 - 2**20  # bytes of a protobuf message, and room for metadata
NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written.

    Attributes:
        file: where it is.
        opset: version of ONNX's operators.
        nbytes: its size.
        difference: the largest difference of a value from torch's.
        largest: the largest value.
    """

    file: Path
    opset: int
    nbytes: int
    difference: float
    largest: float


class _Graph(nn.Module):
    """A network with the normalisation of its pixels before it: (n, size, size, 3) uint8."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing

    def forward(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self.network(normalised(pixels, self.preprocessing)).float()
        return vectors


def export_encoder(encoder: Encoder, out: str | Path | None = None) -> Exported:
    """Write an encoder's network as an ONNX graph from pixels to vectors.

    The file says what `Facts` has, and opens as `onnx:FILE` with the fingerprint of `encoder`. It
    is only written if it gives the vectors of torch, for random pictures, alone and by three.

    Args:
        encoder: of torch.
        out: the new file; default: `cached_graph`, where queries find it.

    Raises:
        ModelError: not an encoder of torch; onnx is not installed; the network cannot be exported,
            or its graph gives other vectors.
        IndexFolderError: `out` exists.
        FileError: it cannot be written.
    """
    if not isinstance(encoder, NetworkEncoder):
        hint = "Name bundled, general, a run folder, timm:NAME or torchvision:NAME."
        raise ModelError(f"{encoder.model} does not run in torch, so it has no graph.", hint)
    if isinstance(encoder, TextEncoder) and out is None:
        message = f"{encoder.model} embeds words, too; its graph would only embed pictures."
        raise ModelError(message, "Name a file to export that part: --out FILE.onnx")
    for name in NEEDED:
        installed(name, "onnx")
    file = cached_graph(encoder.fingerprint) if out is None else expanded(out)
    if out is not None:
        refuse_existing(file)
    make_folder(file.parent)
    model = _graph(encoder)
    for node in model.graph.node:
        del node.metadata_props[:]  # traces of the exporter, with paths of this machine
    for key, value in properties(encoder).items():
        model.metadata_props.add(key=key, value=value)
    if (size := model.ByteSize()) > LARGEST:
        raise ModelError(f"The graph of {encoder.model} has {size / 1e9:.1f} GB; ONNX allows 2.")
    data = model.SerializeToString()
    data += checksum_entry(data)
    difference, largest = _compared(encoder, data)
    with write_atomically(file) as opened:
        opened.write(data)
    opset = next(each.version for each in model.opset_import if not each.domain)
    return Exported(file, opset, len(data), difference, largest)


def _graph(encoder: NetworkEncoder) -> Any:  # noqa: ANN401
    """The ONNX model, a protobuf message."""
    size = encoder.preprocessing.size
    graph = _Graph(encoder.network, encoder.preprocessing).eval()
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8, device=encoder.device)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph, (pixels,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},),
                input_names=["pixels"], output_names=["vectors"], verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter has many
        reason = first_line(error.__cause__ or error)
        raise ModelError(f"{encoder.model} cannot be exported: {reason}") from error
    assert program is not None
    return program.model_proto


def _compared(encoder: NetworkEncoder, data: bytes) -> tuple[float, float]:
    """The largest difference of a value from torch's, and the largest value.

    Raises:
        ModelError: the difference is too large.
    """
    size = encoder.preprocessing.size
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8) for n in (1, 3)]
    with tempfile.TemporaryDirectory(prefix="mrl-search-") as folder:
        file = Path(folder) / "graph.onnx"
        file.write_bytes(data)
        written = open_encoder(str(file), Access(device="cpu"))
        assert (written.fingerprint, written.dims) == (encoder.fingerprint, encoder.dims)
        ours = np.concatenate([written.encode(each) for each in pictures])
        del written
    torchs = np.concatenate([encoder.encode(each) for each in pictures])
    difference, largest = float(np.abs(ours - torchs).max()), float(np.abs(torchs).max())
    if not difference <= TOLERANCE * largest:  # NaN, too
        message = (
            f"The graph of {encoder.model} gives other vectors than torch: they differ by up to"
            f" {difference:.1e}, where {TOLERANCE * largest:.1e} is allowed."
        )
        raise ModelError(message, "Nothing was written. Search with torch.")
    return difference, largest
