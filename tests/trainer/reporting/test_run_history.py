"""The history of all attempts, in a real S3 server and across killed pods."""

from pathlib import Path

import pytest

from finetune_api.uris import S3Uri
from finetune_storage.s3 import Storage
from finetune_trainer.reporting.report_files import find_license, write_card, write_page
from finetune_trainer.reporting.run_history import FILE, UNKNOWN_END, RunHistory
from tests.trainer.reporting import support

ROOT = S3Uri.parse("s3://tests/out/team/story")


class Clock:
    """A clock that the tests advance."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def history(
    storage: Storage, root: S3Uri, attempt: int, clock: Clock, *, is_first: bool = True
) -> RunHistory:
    warnings: list[str] = []
    return RunHistory(
        root,
        storage,
        attempt=attempt,
        processes=4,
        is_first=is_first,
        warn=warnings.append,
        clock=clock,
    )


def train(run_history: RunHistory, clock: Clock, first: int, last: int) -> None:
    for step in range(first, last + 1):
        clock.now += 2
        run_history.record_step(step, 100 * step)


def test_attempts_speeds_and_first_completions_outlive_the_pods(storage: Storage) -> None:
    root, clock = ROOT.child("lives"), Clock()
    first = history(storage, root, 1, clock)
    first.begin(0, 0)
    assert first.before is None
    first.before, first.before_cut_at = ["The", "I"], 1
    train(first, clock, 1, 10)
    first.save()  # with a checkpoint of step 10
    train(first, clock, 11, 13)
    # killed here, with a checkpoint of step 12
    second = history(storage, root, 2, clock)
    second.begin(12, 1200)
    assert (second.before, second.before_cut_at) == (["The", "I"], 1)
    train(second, clock, 13, 20)
    second.end("the learning rate was too high")
    third = history(storage, root, 3, clock)
    third.begin(15, 1500)
    train(third, clock, 16, 30)
    third.end(None)
    attempts = [
        (a.number, a.from_step, a.to_step, a.seconds, a.processes, a.ended)
        for a in third.record.attempts
    ]
    assert attempts == [
        (1, 0, 12, 20.0, 4, UNKNOWN_END),
        (2, 12, 20, 16.0, 4, "the learning rate was too high"),
        (3, 15, 30, 30.0, 4, None),
    ]
    speeds = third.record.speeds
    steps = [speed.step for speed in speeds]
    assert steps == [*range(1, 11), *range(13, 31)]  # no step twice; two steps were lost
    assert {speed.tokens_per_second for speed in speeds} == {50.0}


def test_only_the_first_rank_reads_and_writes(storage: Storage) -> None:
    root, clock = ROOT.child("others"), Clock()
    other = history(storage, root, 1, clock, is_first=False)
    other.begin(0, 0)
    train(other, clock, 1, 3)
    other.end(None)
    assert not storage.exists(root.child(FILE))


@pytest.mark.parametrize("damage", [b"", b"{", b'{"kind": "story", "attempts": 3}', b"\xff"])
def test_a_damaged_history_starts_over(storage: Storage, damage: bytes) -> None:
    root, clock = ROOT.child("broken"), Clock()
    storage.write_bytes(root.child(FILE), damage)
    second = history(storage, root, 2, clock)
    second.begin(5, 500)
    assert [attempt.number for attempt in second.record.attempts] == [2]


def test_page_and_card_are_written_to_their_places(storage: Storage, tmp_path: Path) -> None:
    data = support.report(50)
    write_page(data, ROOT, storage)
    assert storage.read_bytes(ROOT.child("report.html")).startswith(b"<!doctype html>")
    write_card(data, tmp_path)
    assert (tmp_path / "README.md").read_text().startswith("---\n")


def test_a_report_that_fails_costs_no_model(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = support.run()
    wrong = support.report(50, run=run.replace(base=run.base.replace(uri="nonsense")))
    write_card(wrong, tmp_path)
    write_page(support.report(50), S3Uri.parse("s3://no-such-bucket/x"), storage)
    log = capsys.readouterr().out
    assert "warning: could not write README.md" in log
    assert "warning: could not write report.html" in log
    assert list(tmp_path.iterdir()) == []


def test_the_license_is_read_from_the_base_models_folder(tmp_path: Path) -> None:
    assert find_license(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff")
    assert find_license(tmp_path) == "mit"
