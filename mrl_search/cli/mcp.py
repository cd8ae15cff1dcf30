"""`mrl-search mcp`: indexes as tools for language models."""

from mrl_search.cli.options import IndexFolders
from mrl_search.errors import ConfigError

__all__ = ["mcp"]


def mcp(indexes: IndexFolders = None) -> None:
    """Let language models search indexes, over stdio.

    It speaks the Model Context Protocol. Name it in the settings of the client as the command
    `mrl-search mcp /PATH/TO/INDEX`. It only reads, and shows pictures of the folders of indexes.
    """
    try:
        from mrl_search.web.mcp import make_server
    except ImportError as error:
        hint = 'pip install "mrl-search[mcp]"'
        raise ConfigError(f"This needs the package {error.name}.", hint) from error
    from mrl_search.cli.serve import all_indexes
    from mrl_search.web.served import serve_folders

    make_server(serve_folders(indexes or all_indexes())).run("stdio")
