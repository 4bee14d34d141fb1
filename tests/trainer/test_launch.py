import os
import signal
import sys
import time
from pathlib import Path

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import EXIT_CRASH, Reason
from finetune_api.outcome import Failure, Outcome, Trained
from finetune_api.tasks import TrainTask
from finetune_storage.s3 import Storage
from finetune_trainer.errors import ECHO, Preempted, explain
from finetune_trainer.launcher import main as launch
from finetune_trainer.launcher import rank_processes
from finetune_trainer.launcher.cgroup import available_cpus
from finetune_trainer.launcher.main import wait_for_name
from finetune_trainer.launcher.rank_processes import RankProcess, RankProcesses, environment
from finetune_trainer.launcher.root_cause import Death
from finetune_trainer.workdir import WorkDir
from tests.trainer import support


@pytest.fixture(autouse=True)
def few_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_processes, "LAST_WORDS_SECONDS", 0.2)


class NotAsked:
    is_asked = False


def watch(*scripts: str) -> RankProcesses:
    """A pod whose ranks run these programs, until all have ended."""
    ranks = RankProcesses(
        [
            RankProcess([sys.executable, "-c", script], dict(os.environ), rank)
            for rank, script in enumerate(scripts)
        ]
    )
    end = time.monotonic() + 20
    while not ranks.has_ended() and time.monotonic() < end:
        time.sleep(0.02)
    ranks.close()
    return ranks


def test_the_ranks_are_what_the_operator_says() -> None:
    task = support.train_task("u", nodes=3, processes_per_node=8, master_host="ft-0.ft.team.svc")
    found = environment(task, 2, 5, {"RANK": "7", "HOME": "/home/nobody"})
    wanted = {
        "RANK": "21",
        "LOCAL_RANK": "5",
        "WORLD_SIZE": "24",
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "ft-0.ft.team.svc",
        "MASTER_PORT": str(task.master_port),
        "HOME": "/home/nobody",
    }
    assert wanted.items() <= found.items()
    assert TrainTask.model_validate_json(found["FINETUNE_TASK"]) == task


def test_threads_fit_the_cpus_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert available_cpus(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cpus(tmp_path) == len(os.sched_getaffinity(0))
    assert available_cpus(tmp_path / "no such cgroup") == len(os.sched_getaffinity(0))
    many = support.train_task("u", processes_per_node=1000)
    assert environment(many, 0, 0, {})["OMP_NUM_THREADS"] == "1"
    assert environment(many, 0, 0, {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
    assert environment(many, 0, 0, {})["DS_ACCELERATOR"] == "cpu"


STUCK = "import time; print('waiting', flush=True); time.sleep(60)"


def test_ranks_that_end_well_are_no_death() -> None:
    ranks = watch("print('one')", "print('two')")
    assert (ranks.deaths, ranks.has_killed) == ([], False)


def test_the_first_death_ends_the_others_and_its_last_lines_are_kept() -> None:
    ranks = watch(
        STUCK,
        "import os, signal; print('step 3', flush=True); os.kill(os.getpid(), signal.SIGSEGV)",
    )
    assert ranks.deaths == [Death(1, -11), Death(0, -9)]
    assert ranks.has_killed
    assert ranks.logs == {0: ["waiting"], 1: ["step 3"]}


def test_the_others_have_a_moment_to_say_what_they_saw() -> None:
    ranks = watch(
        "import time, sys; time.sleep(0.1); sys.exit(3)",
        "import sys; print('gone', file=sys.stderr); sys.exit(7)",
    )
    assert ranks.deaths == [Death(1, 7), Death(0, 3)]
    assert not ranks.has_killed
    assert ranks.logs[1] == ["gone"]


def test_what_a_rank_has_started_ends_with_it() -> None:
    script = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); "
        "print(child.pid, flush=True); sys.exit(1)"
    )
    ranks = watch(script)
    stat = Path(f"/proc/{ranks.logs[0][0]}/stat")
    end = time.monotonic() + 5
    while stat.exists() and stat.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.02)
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_a_rank_that_is_asked_to_stop_can_end_well() -> None:
    script = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
        "print('listening', flush=True); time.sleep(60)"
    )
    worker = RankProcess([sys.executable, "-c", script], dict(os.environ), 0)
    ranks = RankProcesses([worker])
    while not worker.lines:
        assert not ranks.has_ended()
        time.sleep(0.02)
    ranks.ask_to_stop()
    while not ranks.has_ended():
        time.sleep(0.02)
    ranks.close()
    assert ranks.deaths == []


def test_what_went_wrong_in_a_worker_has_a_code() -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch.cuda's."""

    closed = RuntimeError("[pair.cc:553] Connection closed by peer [10.0.0.7]:49041. This is")
    codes = {
        explain(error, 3).code: error
        for error in (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            FailureError.of(Reason.NAN_LOSS, "the loss became NaN"),
            Preempted(7, 7),
        )
    }
    assert set(codes) == {Reason.OUT_OF_MEMORY, Reason.NAN_LOSS, Reason.POD_LOST}
    assert explain(MemoryError(), 0).code == Reason.OUT_OF_MEMORY
    lost = explain(closed, 3)
    assert lost.code == Reason.RANK_CRASHED
    assert lost.message == (
        "rank 3 lost the connection to another rank: [pair.cc:553] Connection closed by peer "
        "[10.0.0.7]:49041"
    )
    own = explain(KeyError("x"), 3)
    assert (own.code, own.rank, own.message) == (
        Reason.RANK_CRASHED,
        3,
        "rank 3 ended with KeyError: 'x'",
    )


def test_a_name_that_resolves_is_not_waited_for() -> None:
    begin = time.monotonic()
    wait_for_name("localhost", NotAsked())
    assert time.monotonic() - begin < 1


def test_a_name_that_never_resolves_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FailureError) as error:
        wait_for_name("ft-0.nowhere.invalid", NotAsked(), seconds=0.6)
    assert error.value.failure.code == Reason.POD_LOST
    assert "ft-0.nowhere.invalid" in error.value.failure.message
    assert "waiting for ft-0.nowhere.invalid to resolve (0 s)" in capfd.readouterr().out


def test_a_pod_without_a_task_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.delenv("FINETUNE_TASK", raising=False)
    monkeypatch.setattr(sys, "argv", ["-", "--termination-log", str(tmp_path / "log")])
    assert launch.main() == EXIT_CRASH
    outcome = Outcome.parse((tmp_path / "log").read_text())
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure.code == Reason.INTERNAL
    assert {n: signal.getsignal(n) for n in handlers} == handlers


def test_a_dataset_that_is_not_there_ends_the_pod_with_its_reason(
    tmp_path: Path, storage: Storage
) -> None:
    """Without a single import of torch: what starts too late to matter is ended."""
    task = support.train_task("no-dataset", nodes=1)
    outcome = launch.run(task, 0, tmp_path, NotAsked())
    assert outcome is not None
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.rank) == (Reason.DATA_NOT_FOUND, 0)


def test_the_launcher_reads_what_the_workers_left(tmp_path: Path) -> None:
    work = WorkDir(tmp_path)
    assert work.fetch_detail() == "starting"
    assert work.fetched_base_model() is None
    work.tell_fetch("downloading the base model: 34 %")
    assert work.fetch_detail() == "downloading the base model: 34 %"
    work.tell_fetch("loading the base model", tmp_path / "base")
    assert work.wait_for_base_model() == tmp_path / "base"
    trained = Trained(
        fine_tuned_model="a:ft-b-c",
        model_uri="s3://b/m",
        model_manifest_sha256="0",
        result_files=[],
        trained_tokens=1,
        steps=1,
    )
    work.leave_outcome(1, Outcome(failure=Failure(code="X", message="later")))
    work.leave_outcome(0, Outcome(trained=trained))
    found = work.read_outcomes()
    assert {rank: o.trained is not None for rank, o in found.items()} == {0: True, 1: False}


def test_an_echo_s_pod_that_is_asked_to_end_waits_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "ECHO_SECONDS", 3600)
    asked = launch._Stop()
    asked.note(signal.SIGTERM, None)
    launch._give_way(asked)


def test_an_error_inside_a_collective_is_an_echo_whatever_its_words() -> None:
    import torch.distributed as dist

    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(Exception) as caught:
            dist.all_reduce("not a tensor")  # type: ignore[arg-type]
    finally:
        dist.destroy_process_group()
    found = explain(RuntimeError("gloo is unhappy").with_traceback(caught.value.__traceback__), 2)
    assert found.hint == ECHO
