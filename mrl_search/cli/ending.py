"""How a command starts and ends: its streams and signals, and its errors as two lines."""

import atexit
import contextlib
import gc
import io
import signal
import sys

from mrl_search.errors import FileError, MrlSearchError, errno_of

__all__ = ["code_of", "prepare"]


def prepare() -> None:
    """Prepare the process of a command."""
    atexit.register(gc.freeze)  # collecting what ends anyway takes a sixth of a query's time
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # says what Ctrl-C says
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may not be printable


def code_of(error: Exception | KeyboardInterrupt) -> int | None:
    """Say what went wrong, and give the exit code; None, and nothing is said: a bug."""
    if isinstance(error, MrlSearchError):
        _show(error.message, error.hint)
        return 1
    if isinstance(error, KeyboardInterrupt):
        if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:  # see `prepare`
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends it at once
        sys.stderr.write("stopped; the same command continues where it can.\n")
        return 130
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()  # the reader is gone, and nothing is wrong
        return 0
    number = errno_of(error)
    if number is None:
        return None
    sentence = FileError.of(number, *_subject(error))
    _show(sentence.message, sentence.hint)
    return 1


def _subject(error: Exception) -> tuple[str, str]:
    """What an error of the system is about, if no room told it as a sentence, and what failed."""
    if not isinstance(error, OSError):
        return "This command", "completed"
    if error.filename is not None:
        return str(error.filename), "used"
    with contextlib.suppress(OSError):
        sys.stdout.close()  # what it still holds would fail once more
    return "The output", "written"


def _show(message: str, hint: str) -> None:
    from mrl_search.cli.render import note

    note(f"error: {message}")
    if hint:
        note(f"hint: {hint}")
