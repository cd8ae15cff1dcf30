"""`mrl-search serve`: the page and the HTTP API of one or more indexes."""

import secrets
from pathlib import Path
from typing import Annotated

from mrl_search.cli.options import argument, option
from mrl_search.errors import ConfigError

__all__ = ["serve"]

LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    indexes: Annotated[
        list[Path] | None, argument("INDEX", "Index folders. Default: all in indexes/.")
    ] = None,
    host: Annotated[
        str, option("--host", "Address to listen at; another than 127.0.0.1 takes a token.")
    ] = "127.0.0.1",
    port: Annotated[int, option("--port", "Port; 0: any that is free.", min=0, max=65535)] = 8765,
    token: Annotated[
        str | None,
        option(
            "--token TEXT",
            "What every request must show. Default: none; made and printed for another --host.",
        ),
    ] = None,
    write: Annotated[bool, option("--write", "Requests may change the index.")] = False,
    show_paths: Annotated[
        bool, option("--show-paths", "Answers may name paths of this machine.")
    ] = False,
    bench: Annotated[
        Path | None,
        option(
            "--bench FILE", "Records of mrl-search bench for the page. Default: bench-NAME.jsonl."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        option("--export DIR", "Write a page with its data that opens from a file, and end."),
    ] = None,
) -> None:
    """Open indexes in the browser, and answer other programs over HTTP."""
    from mrl_search.cli.render import note, progress_bars
    from mrl_search.index import Index
    from mrl_search.store.collection import newest_index

    if export is not None:
        from mrl_search.web.export import export_page

        if indexes and len(indexes) > 1:
            raise ConfigError("A page is exported of one index.", "Name one.")
        with progress_bars() as progress:
            items = export_page(
                Index.open(indexes[0] if indexes else newest_index()), export, progress
            )
        note(f"{items:,} items; open {export / 'index.html'}")
        return
    try:
        import uvicorn

        from mrl_search.web.app import make_app
    except ImportError as error:
        raise ConfigError(
            f"The page needs {error.name}.", 'pip install "mrl-search[serve]"'
        ) from error
    from mrl_search.web.guard import Rules
    from mrl_search.web.served import serve_folders

    if token is None and host not in LOCAL:
        token = secrets.token_urlsafe(18)
    if token is not None and len(token) < 12:
        raise ConfigError(
            "The token is shorter than 12 characters.", "Leave --token out: one is made."
        )
    served = serve_folders(indexes or sorted({newest_index()}))
    rules = Rules((*LOCAL, host) if host not in ("0.0.0.0", "::") else ("*",), token or "")
    app = make_app(served, rules, write=write, show_paths=show_paths)
    for one in served.values():
        one.warm()
    address = f"http://{'127.0.0.1' if host in LOCAL else host}:{port}/"
    note(f"{', '.join(served)}: {address}{f'?token={token}' if token else ''}")
    note("Stop with Ctrl-C.")
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
    )
