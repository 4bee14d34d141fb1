"""The state that a resumed attempt reads."""

from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.step.loss import Totals


def test_the_loss_of_the_first_step_is_kept() -> None:
    state = TrainingState()
    for objective in (6.0, 4.0, 2.0):
        state = state.after_step(Totals(objective=objective, weight=2.0), tokens=8, examples=2)
        state = TrainingState.model_validate_json(state.model_dump_json())
    state = state.after_epoch(1, None, 0.0)
    assert (state.first_loss, state.completed_epochs[0].training_loss) == (3.0, 2.0)


def test_a_checkpoint_without_the_first_loss_can_be_continued() -> None:
    state = TrainingState(step=7).after_step(
        Totals(objective=1.0, weight=1.0), tokens=1, examples=1
    )
    assert state.first_loss is None
