"""The command `mrl-search`, and the one place that turns errors of the library into two lines."""

import atexit
import contextlib
import gc
import importlib
import io
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mrl_search
from mrl_search.errors import FileError, MrlSearchError, errno_of

__all__ = ["app"]

WIDEST = 200  # columns of --help, where the terminal has them
ABOUT = "Image search over Matryoshka embeddings: train, embed once, search coarse to fine."


COMMANDS = {  # in the order of --help, to the file of each
    "demo": "demo", "build-index": "build_index", "sync": "change", "add": "change",
    "remove": "change", "compact": "change", "restore": "change", "copy": "copy", "query": "query",
    "classify": "classify", "duplicates": "duplicates", "serve": "serve", "mcp": "mcp",
    "evaluate": "evaluate", "tune": "tune", "info": "info", "shrink": "shrink", "bench": "bench",
    "report": "report", "train": "train", "models": "models", "export-model": "export_model",
}  # fmt: skip


class Group(TyperGroup):
    """Imports a command when it is used; shows errors as `error:` and `hint:`, exit code 1."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - as `invoke`
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - as `invoke`
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"mrl_search.cli.{COMMANDS[cmd_name]}")
        own = typer.Typer(add_completion=False, rich_markup_mode=None)
        own.command(cmd_name)(getattr(module, cmd_name.replace("-", "_")))
        return typer.main.get_command(own)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own click has no public name
        try:
            return super().invoke(ctx)
        except MrlSearchError as error:
            _show(error.message, error.hint)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("stopped; the same command continues where it can.", err=True)
            raise typer.Exit(130) from error
        except BrokenPipeError as error:
            sys.stderr.close()  # the reader is gone, and nothing is wrong
            raise typer.Exit(0) from error
        except Exception as error:
            number = errno_of(error)
            if number is None:
                raise
            sentence = FileError.of(number, *_subject(error))
            _show(sentence.message, sentence.hint)
            raise typer.Exit(1) from error


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


app = typer.Typer(
    name="mrl-search", cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, help=ABOUT, context_settings={"max_content_width": WIDEST},
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mrl-search {mrl_search.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Image search over Matryoshka embeddings: train, embed once, search coarse to fine."""
    atexit.register(gc.freeze)  # collecting what ends anyway takes a sixth of a query's time
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # says what Ctrl-C says
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may not be printable
