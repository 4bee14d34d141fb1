"""What a resumed attempt knows of the steps before it."""

from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.step.loss import Totals


def test_the_first_steps_loss_outlives_epochs_and_checkpoints() -> None:
    state = TrainingState()
    for objective in (6.0, 4.0, 2.0):
        state = state.after_step(Totals(objective=objective, weight=2.0), tokens=8, examples=2)
        state = TrainingState.model_validate_json(state.model_dump_json())
    state = state.after_epoch(1, None, 0.0)
    assert (state.first_loss, state.completed_epochs[0].training_loss) == (3.0, 2.0)


def test_a_checkpoint_that_does_not_know_its_first_step_goes_on_without() -> None:
    state = TrainingState(step=7).after_step(
        Totals(objective=1.0, weight=1.0), tokens=1, examples=1
    )
    assert state.first_loss is None
