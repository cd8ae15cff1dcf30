"""An ONNX file that onnxruntime runs, and its settings. The one place that imports onnxruntime."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError, ModelError, first_line, installed
from mrl_search.files import reading
from mrl_search.mapping import from_mapping, read_json

__all__ = ["Session", "output_of", "settings_of"]

T = TypeVar("T")

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
SETTINGS = {"cuda": {"use_tf32": "0"}}  # float32, as torch is used here
FEW = 8  # pictures that a graph embeds in the time that optimising it takes


class Session:
    """An open graph. It is optimised when it has run on some pictures, so it opens sooner.

    Args:
        file: the ONNX file, with its files of weights beside it.
        device: `auto`, `cpu` or `cuda`.

    Attributes:
        inputs: of the graph; each has `name`, `type` and `shape`.
        outputs: names.
        metadata: its `metadata_props`.

    Raises:
        ModelError: onnxruntime is not installed, or does not open the file.
        ConfigError: a device that onnxruntime does not have here.
    """

    def __init__(self, file: Path, device: str) -> None:
        self._library: Any = installed("onnxruntime", "onnx")
        there = self._library.get_available_providers()
        self.devices = [name for name, provider in PROVIDERS.items() if provider in there]
        if device != "auto":
            if device not in self.devices:
                message = f"There is no device {device!r} here for onnxruntime."
                raise ConfigError(message, f"Use auto or {' or '.join(self.devices)}.")
            self.devices = [device]
        self.file, self._stat = file, _stat(file)
        self._session, self._rest = self._opened("ORT_DISABLE_ALL"), FEW
        self.inputs = self._session.get_inputs()
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
        """The output of the graph for a batch, whose inputs are by name."""
        before, self._rest = self._rest, self._rest - len(next(iter(feeds.values())))
        if before >= 0 > self._rest and _stat(self.file) == self._stat:
            self._session = self._opened("ORT_ENABLE_ALL")
        rows: NDArray[Any] = self._session.run([output], dict(feeds))[0]
        return rows

    def _opened(self, level: str) -> Any:  # noqa: ANN401
        """A session of onnxruntime, with as many threads as torch would take."""
        options = self._library.SessionOptions()
        options.log_severity_level = 4  # an error is raised, too
        options.graph_optimization_level = getattr(self._library.GraphOptimizationLevel, level)
        affinity = getattr(os, "sched_getaffinity", None)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        cores = len(affinity(0)) if affinity else 0  # 0: as onnxruntime thinks
        options.intra_op_num_threads = int(threads) if threads.isdecimal() else cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [(PROVIDERS[name], SETTINGS.get(name, {})) for name in self.devices]
        try:
            return self._library.InferenceSession(str(self.file), options, providers=providers)
        except Exception as error:  # it has a class for each status
            message = f"{self.file} cannot be opened as an ONNX graph: {first_line(error)}"
            raise ModelError(message, "Name an ONNX file that onnxruntime runs.") from error


def settings_of(kind: type[T], file: Path) -> T:
    """The settings in the JSON file beside a graph; the defaults where there is none.

    Args:
        kind: a dataclass of settings.
        file: the graph.

    Raises:
        ModelError: the JSON file has others, or other values.
    """
    beside = file.with_suffix(".json")
    try:
        values = dict(read_json(beside)) if beside.is_file() else {}
        return from_mapping(kind, values, str(beside))
    except (ConfigError, DataError, TypeError, ValueError) as error:
        *keys, last = (each.name for each in fields(kind))  # type: ignore[arg-type]
        hint = f"It may have {', '.join(keys)} and {last}."
        raise ModelError(f"{beside} cannot be used: {error}", hint) from error


def output_of(file: Path, session: Session, wanted: str) -> str:
    """The name of the output that is the embedding; `wanted` is that of the settings, if any.

    Raises:
        ModelError: there is no such output, or several and none is wanted.
    """
    names, beside = session.outputs, file.with_suffix(".json")
    if wanted and wanted not in names:
        message = f"{beside} names the output {wanted}; {file} has {', '.join(names)}."
        raise ModelError(message, f"Correct {beside}.")
    if len(names) > 1 and not wanted:
        message = f"{file} has {len(names)} outputs: {', '.join(names)}."
        raise ModelError(message, f'Name the embedding in {beside}: {{"output": "{names[0]}"}}')
    return wanted or names[0]


def _stat(file: Path) -> tuple[int, int]:
    with reading(file):
        found = file.stat()
    return found.st_size, found.st_mtime_ns
