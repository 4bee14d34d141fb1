"""Which of several failures in one pod is the root cause."""

from dataclasses import replace

from finetune_api.names import EXIT_PREEMPTED, Reason
from finetune_api.outcome import Failure
from finetune_trainer.errors import RankFailure
from finetune_trainer.launcher.root_cause import (
    PodEvidence,
    RankExit,
    failure_from_exit,
    find_root_cause,
)

EVIDENCE = PodEvidence(
    first_rank=4, logs={1: ["step 3"]}, was_out_of_memory=False, has_killed=False
)
MEMORY = RankFailure(
    Failure(code=Reason.OUT_OF_MEMORY, message="rank 5 ran out of GPU memory", rank=5)
)
LOST = RankFailure(
    Failure(code=Reason.RANK_CRASHED, message="rank 4 lost", rank=4, exit_code=1), is_echo=True
)
STOPPED = RankFailure(
    Failure(code=Reason.POD_LOST, message="stopped", rank=4, exit_code=EXIT_PREEMPTED)
)


def test_a_killed_rank_is_a_crash_with_its_signal_and_last_lines() -> None:
    failure = failure_from_exit(RankExit(1, -9), EVIDENCE)
    assert (failure.code, failure.rank, failure.exit_code) == (Reason.RANK_CRASHED, 5, 137)
    assert failure.message == "rank 5 was killed by signal 9 (SIGKILL)"
    assert failure.log == ["step 3"]
    assert failure.hint
    assert failure_from_exit(RankExit(0, 3), EVIDENCE).message == "rank 4 ended with exit code 3"
    assert failure_from_exit(RankExit(0, -99), EVIDENCE).message.endswith("signal 99 (unknown)")


def test_a_rank_that_the_kernel_killed_for_memory_is_out_of_memory() -> None:
    found = failure_from_exit(RankExit(0, -9), replace(EVIDENCE, was_out_of_memory=True))
    assert (found.code, found.exit_code) == (Reason.OUT_OF_MEMORY, 137)


def test_the_failure_that_a_rank_reports_is_the_cause() -> None:
    assert find_root_cause([RankExit(1, 1)], {1: MEMORY}, EVIDENCE) == MEMORY


def test_a_lost_connection_is_an_echo_of_the_failure_that_another_rank_reports() -> None:
    exits = [RankExit(0, 1), RankExit(1, 1)]
    assert find_root_cause(exits, {0: LOST, 1: MEMORY}, EVIDENCE) == MEMORY


def test_a_lost_connection_is_an_echo_of_a_rank_that_could_not_report() -> None:
    found = find_root_cause([RankExit(0, 1), RankExit(1, -9)], {0: LOST}, EVIDENCE)
    assert found is not None
    assert not found.is_echo
    assert found.failure.message == "rank 5 was killed by signal 9 (SIGKILL)"


def test_the_wording_of_a_failure_does_not_decide_whether_it_is_an_echo() -> None:
    same_text = replace(LOST, is_echo=False)
    exits = [RankExit(0, 1), RankExit(1, 1)]
    assert find_root_cause(exits, {0: same_text, 1: MEMORY}, EVIDENCE) == same_text


def test_ranks_that_the_launcher_killed_are_not_the_cause() -> None:
    evidence = replace(EVIDENCE, has_killed=True)
    exits = [RankExit(0, 1), RankExit(1, -9)]
    assert find_root_cause(exits, {0: LOST}, evidence) == LOST
    assert find_root_cause(exits[::-1], {1: MEMORY}, evidence) == MEMORY


def test_ranks_that_received_sigterm_are_not_the_cause() -> None:
    found = find_root_cause([RankExit(1, -9), RankExit(0, 143)], {0: STOPPED}, EVIDENCE)
    assert found is not None
    assert found.failure.message == "rank 5 was killed by signal 9 (SIGKILL)"
    assert find_root_cause([RankExit(0, 143)], {0: STOPPED}, EVIDENCE) == STOPPED


def test_a_lost_connection_to_another_pod_is_the_only_evidence_in_this_pod() -> None:
    assert find_root_cause([RankExit(0, 1)], {0: LOST}, EVIDENCE) == LOST


def test_without_exits_and_failures_there_is_no_cause() -> None:
    assert find_root_cause([], {}, EVIDENCE) is None
