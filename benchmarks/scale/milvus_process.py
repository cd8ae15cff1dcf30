"""A server of Milvus on this machine, started, killed and stopped by its process group."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Server"]

READY = 300.0  # seconds: after a kill, a server waits a minute or more for its own leases


class Server:
    """`milvus-server` of the wheel `milvus`, on a port of the loopback address.

    Args:
        command: where `milvus-server` is.
        data: its folder.
        options: others of its options.

    Attributes:
        uri: its address.

    Raises:
        TimeoutError: it does not listen in time; its log is `DATA/server.log`.
    """

    def __init__(self, command: str, data: Path, *options: str) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        data = data.absolute()
        self._data, self._log = data, data / "server.log"
        self.uri = f"http://127.0.0.1:{self.port}"
        data.mkdir(parents=True, exist_ok=True)
        self._run([command, "--data", str(data), "--proxy-port", str(self.port), *options])

    def start(self) -> float:
        """Start it again with its data; returns seconds until it listens.

        `milvus-server` would choose another port while old connections linger, so this runs what
        it unpacked, by the configuration that it wrote.
        """
        program = self._data / "bin" / "milvus"
        return self._run(
            [str(program), "run", "standalone"], LD_LIBRARY_PATH=str(program.parent),
            DEPLOY_MODE="STANDALONE", METRICS_PORT="9091", MILVUS_RUN_DIR=str(self._data / "run"),
        )  # fmt: skip

    def _run(self, command: list[str], **variables: str) -> float:
        begin = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd=self._data,
                env={**os.environ, **variables},
            )  # fmt: skip
        while time.monotonic() < begin + READY:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return time.monotonic() - begin
            if self._process.poll() is not None:
                break
            time.sleep(0.2)
        self.kill()
        message = f"Milvus does not listen; see {self._log}. Does another one use port 2380?"
        raise TimeoutError(message)

    def revive(self) -> bool:
        """Start it again if it stopped by itself, as a supervisor would; returns whether it had.

        After a kill, 2.3 may lose its own leases while the old ones end, and stop.
        """
        stopped = self._process.poll() is not None
        if stopped:
            self.start()
        return stopped

    def kill(self) -> None:
        """Kill all its processes at once (SIGKILL)."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def memory(self) -> int:
        """Bytes in memory of all its processes."""
        found = 0
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if os.getpgid(int(path.name)) == self._process.pid:
                    found += int(path.joinpath("statm").read_text().split()[1])
            except (OSError, IndexError):
                continue
        return found * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._process.poll() is None:
            self.kill()
