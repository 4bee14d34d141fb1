"""The separator of the training prompts is appended to a prompt, and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_cli.commands.complete.command import _separated
from finetune_cli.terminal.console import Screen
from finetune_serving.completion.local_model import LocalModel
from tests.data.builders import write_json


def test_an_appended_separator_is_reported_in_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_json(tmp_path / "manifest.json", {"separator": "\n\n###\n\n"})
    source = LocalModel("tiny", tmp_path)
    assert _separated("a", source, Screen()) == "a\n\n###\n\n"
    assert capsys.readouterr().err == (
        r'Appended the separator "\n\n###\n\n", which ended all training prompts '
        "(--as-is omits it).\n"
    )
    assert _separated("a\n\n###\n\n", source, Screen()) == "a\n\n###\n\n"
    assert capsys.readouterr().err == ""
