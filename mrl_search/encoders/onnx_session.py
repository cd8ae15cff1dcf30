"""An ONNX file that onnxruntime runs. The one place that imports onnxruntime."""

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mrl_search.errors import ConfigError, ModelError
from mrl_search.files import reading

__all__ = ["Session", "first_line"]

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
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            if error.name != "onnxruntime":
                raise
            hint = 'pip install "mrl-search[onnx]"'
            raise ModelError("onnxruntime is not installed.", hint) from error
        self._library: Any = onnxruntime
        there = onnxruntime.get_available_providers()
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

    def run(self, x: NDArray[Any], output: str) -> NDArray[Any]:
        """The output of the graph for a batch."""
        before, self._rest = self._rest, self._rest - len(x)
        if before >= 0 > self._rest and _stat(self.file) == self._stat:
            self._session = self._opened("ORT_ENABLE_ALL")
        rows: NDArray[Any] = self._session.run([output], {self.inputs[0].name: x})[0]
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


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _stat(file: Path) -> tuple[int, int]:
    with reading(file):
        found = file.stat()
    return found.st_size, found.st_mtime_ns
