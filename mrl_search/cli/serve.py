"""`mrl-search serve`: the page and the HTTP API of one or more indexes."""

import os
import re
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mrl_search.cli.options import IndexFolders, option
from mrl_search.cli.render import note, progress_bars
from mrl_search.errors import ConfigError, MrlSearchError

if TYPE_CHECKING:
    import socket

    from mrl_search.web.served import Served

__all__ = ["all_indexes", "serve", "warm"]

NEAREST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # by which this machine reaches all addresses
EVERYWHERE = tuple(NEAREST)  # only with a token
SHORTEST = 12  # characters of a token
TOKEN = rf"[A-Za-z0-9_-]{{{SHORTEST},}}"  # what an address, a cookie and a header can all hold
BACKLOG = 2048  # connections that may wait

TOKEN_HELP = "What every request must show. Default: none; made and printed for another --host."
BENCH_HELP = "Records of mrl-search bench, for its report. Default: bench-NAME.jsonl if there."
EXPORT_HELP = "Write a page with its data that opens from a file, and end."


def serve(
    indexes: IndexFolders = None,
    host: Annotated[
        str, option("--host", "Address to listen at; another machine needs the token.")
    ] = "127.0.0.1",
    port: Annotated[int, option("--port", "Port; 0: any that is free.", min=0, max=65535)] = 8765,
    token: Annotated[str | None, option("--token TEXT", TOKEN_HELP)] = None,
    write: Annotated[bool, option("--write", "Requests may change the indexes.")] = False,
    show_paths: Annotated[
        bool, option("--show-paths", "Errors may name paths of this machine.")
    ] = False,
    bench: Annotated[Path | None, option("--bench FILE", BENCH_HELP)] = None,
    export: Annotated[Path | None, option("--export DIR", EXPORT_HELP)] = None,
) -> None:
    """Show indexes in the browser, and answer over HTTP."""
    folders = indexes or all_indexes()
    if bench is not None and len(folders) > 1:
        raise ConfigError("--bench is the benchmark of one index.", "Name one index.")
    if export is not None:
        from mrl_search.index import Index
        from mrl_search.web.export import export_page

        if len(folders) > 1:
            raise ConfigError("A page is exported of one index.", "Name one.")
        index = Index.open(folders[0])
        with progress_bars() as progress:
            items = export_page(index, export, bench or _bench_of(index.folder.name), progress)
        return note(f"{items:,} items: open {export / 'index.html'}")
    try:
        from mrl_search.web.app import make_app
        from mrl_search.web.server import make_server
    except ImportError as error:
        hint = 'pip install "mrl-search[serve]"'
        raise ConfigError(f"The page needs the package {error.name}.", hint) from error
    import secrets

    from mrl_search.web.beside import Server, announced
    from mrl_search.web.guard import LOCAL, Rules
    from mrl_search.web.served import serve_folders
    from mrl_search.web.told import report_of

    if token is None and host not in LOCAL:
        token = secrets.token_urlsafe(18)
    if token is not None and not re.fullmatch(TOKEN, token):
        hint = "Leave --token out, and one is made where it is needed."
        raise ConfigError(f"--token must be at least {SHORTEST} letters, digits, - or _.", hint)
    served = serve_folders(folders)

    def report(name: str) -> dict[str, Any] | None:
        path = bench or _bench_of(name)
        return None if path is None else report_of(path)

    names = ("*",) if host in EVERYWHERE else tuple(dict.fromkeys((*LOCAL, host)))
    rules = Rules(names, token or "", secrets.token_urlsafe(18))
    app = make_app(served, rules, write=write, show_paths=show_paths, report=report)
    for one in served.values():
        threading.Thread(target=warm, args=(one,), daemon=True).start()
    with ExitStack() as stack:
        listening = stack.enter_context(_listen(host, port))
        address, opened = listening.getsockname()[:2]
        address = NEAREST.get(address, address)
        url = f"http://{f'[{address}]' if ':' in address else address}:{opened}"
        for name, one in served.items():
            about = Server(url, name, rules.own, os.getpid())
            stack.enter_context(announced(one.index.folder, about))
        note(f"{', '.join(served)}: {url}/{f'?token={token}' if token else ''}")
        note("Stop with Ctrl-C.")
        with suppress(KeyboardInterrupt):  # the usual end
            make_server(app).run(sockets=[listening])


def warm(served: "Served") -> None:
    """Load what queries need; what cannot be loaded now is loaded by the first of them."""
    try:
        served.warm()
    except MrlSearchError as error:
        note(f"not ready yet: {error.message}")


def _listen(host: str, port: int) -> "socket.socket":
    """A socket that takes connections.

    Raises:
        ConfigError: another program has the port, or there is no such address here.
    """
    import socket

    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio turns off Nagle's algorithm only where the protocol is named: 40 ms a request
        with ExitStack() as stack:
            opened = socket.socket(family, kind, socket.IPPROTO_TCP)
            stack.callback(opened.close)
            if os.name == "posix":  # elsewhere it would share the port with another program
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(BACKLOG)
            stack.pop_all()
            return opened
    except OSError as error:
        message = f"Nothing can listen at {host}, port {port}: {error.strerror}."
        raise ConfigError(message, "Choose another with --port or --host.") from error


def all_indexes() -> list[Path]:
    """All finished indexes in `indexes/`, by name."""
    from mrl_search.store.manifest import MANIFEST, newest_index

    return sorted(found.parent for found in newest_index().parent.glob(f"*/{MANIFEST}"))


def _bench_of(name: str) -> Path | None:
    """Where `mrl-search bench` writes its records by default, if it has."""
    path = Path(f"bench-{name}.jsonl")
    return path if path.is_file() else None
