from finetune_api.uris import S3Uri
from finetune_storage.s3 import Storage
from finetune_trainer.outputs.results_csv import Results, columns, line, row, until_step
from finetune_trainer.step.loss import Totals
from tests.trainer import support

TRAINING = Totals(
    objective=3.0,
    weight=2.0,
    completion_nll=2.5,
    completion_tokens=6,
    right_tokens=5,
    completions=3,
    right_completions=2,
)


def cells(step: int = 1, validation: Totals | None = None) -> dict[str, float | None]:
    return row(
        step=step,
        elapsed_tokens=100 * step,
        elapsed_examples=8 * step,
        training=TRAINING,
        validation=validation,
        learning_rate=1e-5,
        gradient_norm=0.25,
    )


def test_the_columns_of_openai_s_fine_tunes_api_come_first() -> None:
    assert columns(has_validation=True)[:9] == [
        "step",
        "elapsed_tokens",
        "elapsed_examples",
        "training_loss",
        "training_sequence_accuracy",
        "training_token_accuracy",
        "validation_loss",
        "validation_sequence_accuracy",
        "validation_token_accuracy",
    ]
    assert not any("validation" in name for name in columns(has_validation=False))
    assert columns(has_validation=False)[6:] == [
        "training_completion_loss",
        "learning_rate",
        "gradient_norm",
    ]


def test_a_cell_that_was_not_measured_is_empty() -> None:
    assert line(cells(), columns(has_validation=True)) == (
        "1,100,8,1.5,0.666666667,0.833333333,,,,0.416666667,1e-05,0.25,"
    )
    assert line(cells(validation=TRAINING), columns(has_validation=True)).count(",,") == 0


def test_a_step_without_any_weight_has_no_loss() -> None:
    found = row(
        step=1,
        elapsed_tokens=1,
        elapsed_examples=1,
        training=Totals(),
        validation=None,
        learning_rate=0.1,
        gradient_norm=0.0,
    )
    assert line(found, columns(has_validation=False)) == "1,1,1,,,,,0.1,0"


def test_a_resumed_run_drops_the_rows_after_its_checkpoint() -> None:
    text = "step,loss\n1,0.5\n2,0.4\n3,0.3\n4,0"
    assert until_step(text, 2) == "step,loss\n1,0.5\n2,0.4\n"
    assert until_step("step,a,b\n1,2,3\n2,1", 9) == "step,a,b\n1,2,3\n"  # half a line


def test_s3_has_only_complete_lines_and_all_of_them_at_the_end(storage: Storage) -> None:
    uri = S3Uri.parse(f"s3://{support.BUCKET}/results-test/results.csv")
    file = Results(uri, storage, columns(has_validation=False), upload_seconds=0.01)
    file.start(resumed_step=0)
    seen = set()
    for step in range(1, 60):
        file.add(cells(step))
        if step % 10 == 0:
            file.upload()
            seen.add(storage.read_bytes(uri).decode())
    file.close()
    final = storage.read_bytes(uri).decode()
    assert final.count("\n") == 60
    assert all(final.startswith(text) and text.endswith("\n") for text in seen)
    again = Results(uri, storage, columns(has_validation=False))
    again.start(resumed_step=40)
    again.add(cells(41))
    again.close()
    assert storage.read_bytes(uri).decode() == until_step(final, 41)
