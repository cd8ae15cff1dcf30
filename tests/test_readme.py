"""What the README says is run: its Python, and every command that it names exists."""

import re
from pathlib import Path

import pytest
from fakes import write_corpus
from typer.main import get_command
from typer.testing import CliRunner

from mrl_search.cli.app import app

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = write_corpus(tmp_path / "pictures", 12)
    (tmp_path / "photo.jpg").write_bytes(pictures[0].read_bytes())
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 12
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("1 ") and out[0].endswith(str(pictures[0]))
    assert [line.split()[0] for line in out[-8:]] == [
        "8",
        "16",
        "32",
        "64",
        "128",
        "256",
        "512",
        "1024",
    ]


def test_every_command_of_the_readme_exists() -> None:
    blocks = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    for command in set(re.findall(r"^mrl-search ([a-z-]+)", blocks, re.MULTILINE)):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_every_option_of_the_readme_exists() -> None:
    """Those in the comments behind the commands, too."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    group = get_command(app)
    lines = re.findall(r"^mrl-search ([a-z-]+)(.*)$", blocks, re.MULTILINE)
    assert len(lines) > 20
    for command, rest in lines:
        found = group.get_command(None, command)  # type: ignore[attr-defined, arg-type]
        known = {name for option in found.params for name in option.opts}
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) <= known, command
