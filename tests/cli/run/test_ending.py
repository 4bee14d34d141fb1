"""The last lines of a run on this machine."""

from pathlib import Path

import pytest

from finetune_api.layout import RunLayout
from finetune_cli.commands.run import command
from finetune_cli.terminal.console import Screen
from tests.support.objects import trained


@pytest.mark.parametrize(("first", "is_told"), [(0.7, True), (1.2, False), (None, False)])
def test_a_loss_above_that_of_the_first_step_is_reported(
    first: float | None, is_told: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    done = trained().trained
    assert done is not None
    layout = RunLayout.of("s3://bucket/out", "team", "tone", "0123456789")
    command._show(done.replace(first_loss=first), layout, tmp_path, Screen())
    said = capsys.readouterr().out
    assert "Fine-tune succeeded: ada:ft-team:tone" in said
    assert ("ended above the 0.7000 of the first step" in said) == is_told
