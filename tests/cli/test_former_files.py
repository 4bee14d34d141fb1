"""The files of a FineTune that a former one has written: after an adoption, or in a new cluster."""

import pytest

from finetune_cli.artifacts.s3 import layout_of
from tests.support.objects import UID, a_finetune, a_settings

FORMER = "s3://bucket/out/team/tone-aaaaaaaa"


@pytest.mark.parametrize(
    ("model", "root"),
    [(f"{FORMER}/model", FORMER), (None, f"s3://bucket/out/team/tone-{UID[:8]}")],
)
def test_report_and_results_are_next_to_the_model(model: str | None, root: str) -> None:
    settings = a_settings()
    resolved = {
        "base": settings.models[0].reference.to_dict(),
        "runtime": {
            "name": "cpu",
            "trainerImage": "trainer:1",
            "prepareImage": "prepare:1",
            "accelerator": "cpu",
        },
        "organization": "team",
        "output": "s3://bucket/out",
        "secretName": "finetune-s3",
    }
    status = {"state": "succeeded", "resolved": resolved, **({"modelUri": model} if model else {})}
    layout = layout_of(a_finetune(status=status))
    assert str(layout.report) == f"{root}/report.html"
    assert str(layout.results) == f"{root}/results.csv"
