"""The command `mrl-search`: what can be answered at once, or else the command line.

Loading the command line takes as long as a search. So the plain forms of `query`, and a `sync`
that finds nothing to do, are read here first; all else goes to the command line as it is.

Threads of OpenMP sleep here while they wait for each other. By default they spin. Beside other busy
programs, embedding with spinning threads took 2 and 14 times as long in two runs; alone, about as
long (`benchmarks/main_job/waiting.jsonl`). `train` keeps the default: its steps are short.
"""

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mrl_search.cli.ending import code_of, prepare
from mrl_search.errors import ConfigError, MrlSearchError

__all__ = ["main", "question_of"]


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def _cutoff(text: str) -> float | str:
    if text == "auto":
        return text
    if not -1 <= float(text) <= 1:
        raise ValueError(text)
    return float(text)


SINGLE: dict[str, Callable[[str], object]] = {
    "--index": Path, "--plan": str, "--dims": _positive, "-k": _positive, "--server": str,
    "--cutoff": _cutoff, "--vector": str,
}  # fmt: skip
REPEATED = ("--text", "--minus", "--where")
FLAGS = ("--json", "--exact", "--explain", "--expected")


def main() -> None:
    """Run the command that `sys.argv` names."""
    if sys.argv[1:2] != ["train"]:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before a library reads it
    try:
        code = _at_once(sys.argv[1:])
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        code = code_of(error)
        if code is None:
            raise
    if code is not None:
        sys.exit(code)
    from mrl_search.cli.app import app

    app()


def _at_once(arguments: Sequence[str]) -> int | None:
    """The exit code, if this was a plain query, or a sync of nothing."""
    if arguments[:1] not in (["query"], ["sync"]):
        return None
    prepare()
    try:
        if arguments[0] == "sync":
            return _synced(arguments[1:])
        from mrl_search.cli.asking import answered

        question = question_of(arguments[1:])
        code = answered(question)
    except MrlSearchError:
        return None
    if code is not None or (question.server and question.vector):
        return code
    from mrl_search.cli.here import answer_here

    return answer_here(question)


def _synced(arguments: Sequence[str]) -> int | None:
    """0 if the folders of the named index are as they were, which it tells."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        return None
    from mrl_search.cli.told import told
    from mrl_search.files import expanded
    from mrl_search.synced import unchanged
    from mrl_search.text import plain

    gc.disable()  # a walk makes many small objects, and keeps them
    found = unchanged(expanded(arguments[0]))
    gc.enable()
    if found is None:
        return None
    line, notes = told(found)
    sys.stdout.write(plain(line) + "\n")
    sys.stdout.flush()
    sys.stderr.writelines(plain(note) + "\n" for note in notes)
    return 0


def question_of(arguments: Sequence[str]) -> Any:  # noqa: ANN401 - imported when it is made
    """What a command line asks.

    Raises:
        ConfigError: it has more than the plainest options, or they do not fit.
    """
    from mrl_search.cli.asking import Question, with_words

    given: dict[str, Any] = {name: [] for name in ("", *REPEATED)}
    rest = iter(arguments)
    for name in rest:
        if not name.startswith("-"):
            given[""].append(name)
        elif name in FLAGS:
            given[name] = True
        elif name in REPEATED:
            given[name].append(_value(rest, name))
        else:
            given[name] = _single(name, _value(rest, name))
    plan, dims, exact = (given.get(name) for name in ("--plan", "--dims", "--exact"))
    if sum(one is not None for one in (plan, dims, exact)) > 1:
        raise ConfigError("There is more than one plan.")
    vector = given.get("--vector")
    if bool(vector) == any(given[name] for name in ("", *REPEATED[:2])):
        raise ConfigError("There is nothing to search with, or too much.")
    cutoff = given.get("--cutoff")
    how = {
        "plan": "exact" if exact else plan, "dims": dims, "k": given.get("-k", 10),
        "where": given["--where"], "explain": "--explain" in given,
        "expected": "--expected" in given,
        "cutoff": cutoff,
    }  # fmt: skip
    asked = with_words(given[""], given["--text"], given["--minus"])
    where = given.get("--index"), given.get("--server")
    return Question(asked, how, *where, "--json" in given, vector)


def _value(rest: Iterator[str], name: str) -> str:
    """The next argument."""
    value = next(rest, None)
    if value is None:
        raise ConfigError(f"{name} has no value.")
    return value


def _single(name: str, value: str) -> object:
    """The value of an option."""
    try:
        return SINGLE[name](value)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{name} {value} is read elsewhere.") from error
