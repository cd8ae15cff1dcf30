"""The command `mrl-search`, and the one place that turns errors of the library into two lines."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mrl_search
from mrl_search.cli.ending import code_of, prepare

__all__ = ["app"]

WIDEST = 200  # columns of --help, where the terminal has them
ABOUT = "Image search over Matryoshka embeddings: train, embed once, search coarse to fine."


COMMANDS = {  # in the order of --help, to the file of each
    "demo": "demo", "build-index": "build_index", "join": "join", "sync": "change", "add": "change",
    "remove": "change", "compact": "change", "restore": "change", "copy": "copy", "query": "query",
    "classify": "classify", "duplicates": "duplicates", "serve": "serve", "mcp": "mcp",
    "evaluate": "evaluate", "tune": "tune", "info": "info", "shrink": "shrink", "bench": "bench",
    "report": "report", "train": "train", "models": "models", "export-model": "export_model",
    "plan-capacity": "plan_capacity",
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
        except (Exception, KeyboardInterrupt) as error:
            code = code_of(error)
            if code is None:
                raise
            raise typer.Exit(code) from error


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
    prepare()
