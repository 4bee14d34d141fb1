"""The progress of a slow step of publishing."""

from finetune_trainer.publishing.percent import Percent


def test_a_step_is_reported_in_fives_and_never_backwards() -> None:
    shown: list[str] = []
    percent = Percent("uploading the model", shown.append).of(1000)
    for done in (10, 60, 99, 40, 110, 999, 1000, 1000):
        percent.at(done)
    assert shown == [f"uploading the model: {number} %" for number in (0, 5, 10, 95, 100)]


def test_bytes_are_added_and_an_empty_step_is_not_a_division_by_zero() -> None:
    shown: list[str] = []
    percent = Percent("x", shown.append).of(4)
    percent.add(1)
    percent.add(3)
    Percent("y", shown.append).of(0)
    assert shown == ["x: 0 %", "x: 25 %", "x: 100 %", "y: 0 %"]
