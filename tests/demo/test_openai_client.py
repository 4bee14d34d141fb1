"""The commands of OpenAI's client in the demo: how they are shown, and what counts as a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples.demo import openai_client
from examples.demo.openai_client import OWNER, PINS, ROLES, USER, Account, Shell, shown
from examples.demo.terminal import DemoError, Terminal


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(Terminal(), tmp_path, "http://127.0.0.1:1/v1", Account(USER, "sk-ft-secret"))


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["openai", "--suffix", "custom model name"], 'openai --suffix "custom model name"'),
        (["echo", "Where is it? ->"], 'echo "Where is it? ->"'),
        (["echo", 'a "$HOME"'], "echo 'a \"$HOME\"'"),
        (["echo", "a\nb"], "echo 'a\nb'"),
    ],
)
def test_a_command_is_shown_as_people_type_it(command: list[str], line: str) -> None:
    assert shown(command) == line


def test_a_long_output_is_shortened_and_returned_whole(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "for number in range(50): print(f'line {number}')"
    found = shell.run(sys.executable, "-c", program)
    assert found.splitlines() == [f"line {number}" for number in range(50)]
    told = capsys.readouterr().out
    assert "line 4\n" in told and "line 49\n" in told
    assert "line 20" not in told
    assert "... 40 more lines" in told


def test_colors_and_progress_bars_are_left_out(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "print('\\x1b[91mError:\\x1b[0m no'); print('Upload progress: 10%')"
    assert shell.run(sys.executable, "-c", program, is_live=True) == "Error: no"
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(("code", "fails"), [(1, False), (0, True)])
def test_an_unexpected_end_is_an_error(shell: Shell, code: int, *, fails: bool) -> None:
    with pytest.raises(DemoError):
        shell.run(sys.executable, "-c", f"raise SystemExit({code})", fails=fails)


def test_a_line_has_the_variables_of_the_client(shell: Shell) -> None:
    line = 'echo "$OPENAI_API_BASE $OPENAI_API_KEY"'
    assert shell.run_line(line) == "http://127.0.0.1:1/v1 sk-ft-secret"


def test_the_key_is_not_shown(
    shell: Shell,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openai_client, "create_environment", lambda _: None)
    accounts = {name: Account(name, f"sk-ft-secret-of-{name}") for name in ROLES}
    with pytest.raises((DemoError, FileNotFoundError)):
        openai_client.use_client(Terminal(), tmp_path, "http://127.0.0.1:1/v1", accounts, "a")
    told = capsys.readouterr().out
    assert "export OPENAI_API_KEY=sk-ft-..." in told
    assert "secret" not in told


def test_the_pins_have_the_version_of_the_demo() -> None:
    assert f"openai=={openai_client.VERSION}" in PINS.read_text().splitlines()
    assert ROLES == {OWNER: "finetune-owner", USER: "finetune-user"}
