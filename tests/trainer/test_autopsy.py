from dataclasses import replace

from finetune_api.names import EXIT_PREEMPTED, Reason
from finetune_api.outcome import Failure
from finetune_trainer.errors import ECHO
from finetune_trainer.launcher.root_cause import Death, PodEvidence, explain_death, find_cause

SCENE = PodEvidence(first_rank=4, logs={1: ["step 3"]}, was_out_of_memory=False, has_killed=False)
MEMORY = Failure(code=Reason.OUT_OF_MEMORY, message="rank 5 ran out of GPU memory", rank=5)
LOST = Failure(code=Reason.RANK_CRASHED, message="rank 4 lost", rank=4, exit_code=1, hint=ECHO)
STOPPED = Failure(code=Reason.POD_LOST, message="stopped", rank=4, exit_code=EXIT_PREEMPTED)


def test_a_killed_worker_is_a_crash_with_its_rank_signal_and_last_lines() -> None:
    assert explain_death(Death(1, -9), SCENE) == Failure(
        code=Reason.RANK_CRASHED,
        message="rank 5 was killed by signal 9 (SIGKILL)",
        rank=5,
        exit_code=137,
        log=["step 3"],
    )
    assert explain_death(Death(0, 3), SCENE).message == "rank 4 ended with exit code 3"
    assert explain_death(Death(0, -99), SCENE).message.endswith("signal 99 (unknown)")


def test_a_worker_that_the_kernel_killed_for_memory_is_out_of_memory() -> None:
    found = explain_death(Death(0, -9), replace(SCENE, was_out_of_memory=True))
    assert (found.code, found.exit_code) == (Reason.OUT_OF_MEMORY, 137)


def test_what_a_worker_said_of_its_end_is_the_cause() -> None:
    assert find_cause([Death(1, 1)], {1: MEMORY}, SCENE) == MEMORY


def test_a_lost_connection_is_an_echo_of_what_another_worker_said() -> None:
    assert find_cause([Death(0, 1), Death(1, 1)], {0: LOST, 1: MEMORY}, SCENE) == MEMORY


def test_a_lost_connection_is_an_echo_of_a_worker_that_could_say_nothing() -> None:
    found = find_cause([Death(0, 1), Death(1, -9)], {0: LOST}, SCENE)
    assert found is not None
    assert found.message == "rank 5 was killed by signal 9 (SIGKILL)"


def test_workers_that_the_launcher_killed_are_no_cause() -> None:
    scene = replace(SCENE, has_killed=True)
    assert find_cause([Death(0, 1), Death(1, -9)], {0: LOST}, scene) == LOST
    assert find_cause([Death(1, 1), Death(0, -9)], {1: MEMORY}, scene) == MEMORY


def test_workers_that_were_asked_to_end_are_no_cause() -> None:
    found = find_cause([Death(1, -9), Death(0, 143)], {0: STOPPED}, SCENE)
    assert found is not None
    assert found.message == "rank 5 was killed by signal 9 (SIGKILL)"
    assert find_cause([Death(0, 143)], {0: STOPPED}, SCENE) == STOPPED


def test_a_lost_connection_to_another_pod_is_all_that_this_one_knows() -> None:
    assert find_cause([Death(0, 1)], {0: LOST}, SCENE) == LOST


def test_nothing_found_is_no_cause() -> None:
    assert find_cause([], {}, SCENE) is None
