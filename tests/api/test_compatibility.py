"""Values that another version wrote or reads: tasks, outcomes, and statuses.

`golden/` contains JSON of the version before the hyperparameters were declared in one module.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetune_status import FineTuneStatus
from finetune_api.hyperparameters import RequestedHyperparameters, ResolvedHyperparameters
from finetune_api.outcome import Outcome
from finetune_api.tasks import DeletionTask, PrepareTask, TrainTask
from finetune_api.wire import Wire

GOLDEN = Path(__file__).parent / "golden"
OLDER = sorted((Path(__file__).parents[1] / "integration" / "older").glob("*.json"))
FIRST_HYPERPARAMETERS = {
    "n_epochs",
    "batch_size",
    "learning_rate_multiplier",
    "learning_rate",
    "prompt_loss_weight",
    "warmup_ratio",
    "weight_decay",
    "lr_schedule",
    "max_sequence_length",
    "seed",
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prepare", PrepareTask),
        ("prepare-all-set", PrepareTask),
        ("train", TrainTask),
        ("deletion", DeletionTask),
    ],
)
def test_a_task_of_the_version_before_is_read_and_its_fields_are_written_as_before(
    name: str, kind: type[Wire]
) -> None:
    text = (GOLDEN / f"{name}.json").read_text()
    written = kind.model_validate_json(text).to_json()
    assert _common(json.loads(written), json.loads(text)) == json.loads(text)


def test_an_outcome_of_the_version_before_is_read_and_its_fields_are_written_as_before() -> None:
    text = (GOLDEN / "prepared.json").read_text()
    outcome = Outcome.parse(text)
    assert outcome is not None
    written = json.loads(outcome.to_termination_message())
    assert _common(written, json.loads(text)) == json.loads(text)


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_a_status_of_an_older_operator_is_read(path: Path) -> None:
    status = json.loads(path.read_text())["status"]
    found = FineTuneStatus.model_validate(status)
    assert found.resolved is not None and found.resolved.hyperparameters is not None


def test_every_requested_hyperparameter_is_resolved() -> None:
    resolved = set(ResolvedHyperparameters.model_fields)
    assert set(RequestedHyperparameters.model_fields) == resolved


def test_a_later_hyperparameter_is_optional_where_another_version_may_lack_it() -> None:
    """Pods and operators of a version without it neither send nor expect it."""
    for model in (RequestedHyperparameters, ResolvedHyperparameters):
        for name in model.model_fields.keys() - FIRST_HYPERPARAMETERS:
            assert not model.model_fields[name].is_required(), name


def test_a_later_hyperparameter_is_not_sent_unless_the_user_sets_it() -> None:
    class Later(RequestedHyperparameters):
        adam_beta2: float | None = None

    assert json.loads(Later().to_json()) == {"nEpochs": 4, "promptLossWeight": 0.1}
    assert json.loads(Later(adam_beta2=0.9).to_json())["adamBeta2"] == 0.9


def test_a_version_without_a_later_hyperparameter_ignores_it() -> None:
    sent = {"nEpochs": 2, "adamBeta2": 0.9}
    assert RequestedHyperparameters.model_validate(sent).n_epochs == 2


def _common(written: Any, before: Any) -> Any:
    """What was written, without the fields that the version before did not have."""
    if not isinstance(written, dict) or not isinstance(before, dict):
        return written
    return {key: _common(written[key], before[key]) for key in written.keys() & before.keys()}
