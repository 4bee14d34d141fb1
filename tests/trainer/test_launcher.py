import errno
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import EXIT_CRASH, Reason
from finetune_api.outcome import Failure, Outcome
from finetune_api.tasks import TrainTask
from finetune_storage.s3 import Storage
from finetune_trainer.errors import Preempted, failure_from_exception
from finetune_trainer.launcher import main as launcher
from finetune_trainer.launcher.cgroup import available_cpus
from finetune_trainer.launcher.main import wait_for_name
from finetune_trainer.launcher.rank_processes import (
    ALLOCATOR,
    RankProcess,
    RankProcesses,
    environment,
)
from finetune_trainer.launcher.root_cause import PodEvidence, RankExit
from finetune_trainer.workdir import WorkDir
from tests.support.objects import trained
from tests.trainer import support

NO_STOP = launcher.StopSignal()  # never received


def watch(*scripts: str) -> RankProcesses:
    """Run a pod whose ranks execute these programs, until all have exited."""
    ranks = RankProcesses(
        [
            RankProcess([sys.executable, "-c", script], dict(os.environ), rank)
            for rank, script in enumerate(scripts)
        ],
        grace_seconds=0.2,
    )
    end = time.monotonic() + 20
    while not ranks.has_ended() and time.monotonic() < end:
        time.sleep(0.02)
    ranks.close()
    return ranks


def test_the_rank_numbers_derive_from_the_task() -> None:
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


def test_the_number_of_threads_matches_the_cpus_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert available_cpus(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cpus(tmp_path) == len(os.sched_getaffinity(0))
    assert available_cpus(tmp_path / "no such cgroup") == len(os.sched_getaffinity(0))
    many = support.train_task("u", processes_per_node=1000)
    assert environment(many, 0, 0, {})["OMP_NUM_THREADS"] == "1"
    assert environment(many, 0, 0, {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
    assert environment(many, 0, 0, {})["DS_ACCELERATOR"] == "cpu"


def test_allocations_on_a_gpu_do_not_fragment_unless_the_user_configures_them() -> None:
    task = support.train_task("environment", accelerator="nvidia")
    assert environment(task, 0, 0, {})["PYTORCH_ALLOC_CONF"] == ALLOCATOR
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):  # the new name and the old one
        found = environment(task, 0, 0, {name: "backend:cudaMallocAsync"})
        assert {k: v for k, v in found.items() if "ALLOC_CONF" in k} == {
            name: "backend:cudaMallocAsync"
        }
    cpu = support.train_task("environment", accelerator="cpu")
    assert "PYTORCH_ALLOC_CONF" not in environment(cpu, 0, 0, {})


def test_torch_accepts_the_settings_of_the_allocator() -> None:
    import torch

    torch._C._accelerator_setAllocatorSettings(ALLOCATOR)
    with pytest.raises(ValueError, match=r"pinned_max"):
        torch._C._accelerator_setAllocatorSettings(ALLOCATOR.replace("_mb", "_gb"))


STUCK = "import time; print('waiting', flush=True); time.sleep(60)"


def test_ranks_that_succeed_are_not_failures() -> None:
    ranks = watch("print('one')", "print('two')")
    assert (ranks.failed_exits, ranks.has_killed) == ([], False)


def test_the_first_failure_ends_the_other_ranks_and_its_last_lines_are_kept() -> None:
    ranks = watch(
        STUCK,
        "import os, signal; print('step 3', flush=True); os.kill(os.getpid(), signal.SIGSEGV)",
    )
    assert ranks.failed_exits == [RankExit(1, -11), RankExit(0, -9)]
    assert ranks.has_killed
    assert ranks.logs == {0: ["waiting"], 1: ["step 3"]}


def test_the_other_ranks_have_time_to_report_their_failures() -> None:
    ranks = watch(
        "import time, sys; time.sleep(0.1); sys.exit(3)",
        "import sys; print('gone', file=sys.stderr); sys.exit(7)",
    )
    assert ranks.failed_exits == [RankExit(1, 7), RankExit(0, 3)]
    assert not ranks.has_killed
    assert ranks.logs[1] == ["gone"]


def test_child_processes_of_a_rank_end_with_it() -> None:
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


def test_a_rank_that_receives_sigterm_can_succeed() -> None:
    script = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
        "print('listening', flush=True); time.sleep(60)"
    )
    rank = RankProcess([sys.executable, "-c", script], dict(os.environ), 0)
    ranks = RankProcesses([rank])
    while not rank.lines:
        assert not ranks.has_ended()
        time.sleep(0.02)
    ranks.request_stop()
    while not ranks.has_ended():
        time.sleep(0.02)
    ranks.close()
    assert ranks.failed_exits == []


def test_each_error_of_a_rank_has_a_code() -> None:
    class OutOfMemoryError(RuntimeError):
        """Like torch.cuda.OutOfMemoryError."""

    closed = RuntimeError("[pair.cc:553] Connection closed by peer [10.0.0.7]:49041. This is")
    codes = {
        failure_from_exception(error, 3).failure.code: error
        for error in (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            FailureError.of(Reason.NAN_LOSS, "the loss became NaN"),
            Preempted(7, 7),
        )
    }
    assert set(codes) == {Reason.OUT_OF_MEMORY, Reason.NAN_LOSS, Reason.POD_LOST}
    assert failure_from_exception(MemoryError(), 0).failure.code == Reason.OUT_OF_MEMORY
    lost = failure_from_exception(closed, 3)
    assert lost.is_echo
    assert lost.failure.code == Reason.RANK_CRASHED
    assert lost.failure.message == (
        "rank 3 lost the connection to another rank: [pair.cc:553] Connection closed by peer "
        "[10.0.0.7]:49041"
    )
    for error in (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ):
        full = failure_from_exception(error, 3).failure
        assert full.message == f"rank 3 could not write to a full disk: {error}"
        assert "resources.ephemeralStorage" in (full.hint or "")
    own = failure_from_exception(KeyError("x"), 3)
    assert not own.is_echo
    assert (own.failure.code, own.failure.rank) == (Reason.RANK_CRASHED, 3)
    assert own.failure.message == "rank 3 failed with KeyError: 'x'"
    assert own.failure.hint


def test_a_name_that_resolves_causes_no_wait() -> None:
    begin = time.monotonic()
    wait_for_name("localhost", NO_STOP)
    assert time.monotonic() - begin < 1


def test_a_name_that_never_resolves_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FailureError) as error:
        wait_for_name("ft-0.nowhere.invalid", NO_STOP, seconds=0.6)
    assert error.value.failure.code == Reason.POD_LOST
    assert "ft-0.nowhere.invalid" in error.value.failure.message
    assert "waiting for ft-0.nowhere.invalid to resolve (0 s)" in capfd.readouterr().out


def test_without_a_task_the_pod_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.delenv("FINETUNE_TASK", raising=False)
    monkeypatch.setattr(sys, "argv", ["-", "--termination-log", str(tmp_path / "log")])
    assert launcher.main() == EXIT_CRASH
    outcome = Outcome.parse((tmp_path / "log").read_text())
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure.code == Reason.INTERNAL
    assert outcome.failure.message.startswith("invalid or missing FINETUNE_TASK: ")
    assert {n: signal.getsignal(n) for n in handlers} == handlers


def test_a_missing_dataset_ends_the_pod_with_its_reason(tmp_path: Path, storage: Storage) -> None:
    """The launcher does not wait for the ranks' imports."""
    task = support.train_task("no-dataset", nodes=1)
    outcome = launcher.run(task, 0, tmp_path, NO_STOP)
    assert outcome is not None
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.rank) == (Reason.DATA_NOT_FOUND, 0)


def test_the_launcher_reads_the_outcomes_of_the_ranks(tmp_path: Path) -> None:
    workdir = WorkDir(tmp_path)
    assert workdir.download_detail() == "starting"
    assert workdir.downloaded_base_model() is None
    workdir.write_download_progress("downloading the base model: 34 %")
    assert workdir.download_detail() == "downloading the base model: 34 %"
    workdir.write_download_progress("loading the base model", tmp_path / "base")
    assert workdir.wait_for_base_model() == tmp_path / "base"
    workdir.write_outcome(1, Outcome(failure=Failure(code="X", message="later")), is_echo=True)
    workdir.write_outcome(0, trained())
    workdir.outcome(2).write_text("not an outcome")
    found = workdir.read_outcomes()
    assert {rank: o.outcome.trained is not None for rank, o in found.items()} == {0: True, 1: False}
    assert {rank: o.is_echo for rank, o in found.items()} == {0: False, 1: True}


FAILS = "import sys; sys.exit(1)"
EVIDENCE = PodEvidence(first_rank=0, logs={}, was_out_of_memory=False, has_killed=False)


@pytest.mark.parametrize(("is_echo", "is_only_pod"), [(True, False), (True, True), (False, False)])
def test_only_an_echo_in_one_of_several_pods_waits_for_the_pod_with_the_cause(
    is_echo: bool, is_only_pod: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag decides, not the text, and the termination message does not contain it."""
    waited: list[object] = []
    monkeypatch.setattr(launcher, "_let_the_cause_end_first", waited.append)
    failure = Failure(code=Reason.RANK_CRASHED, message="any text", rank=0, exit_code=1)
    workdir = WorkDir(tmp_path)
    workdir.write_outcome(0, Outcome(failure=failure, resumed_from_step=7), is_echo=is_echo)
    outcome = launcher._outcome(watch(FAILS), workdir, EVIDENCE, NO_STOP, is_only_pod=is_only_pod)
    assert outcome == Outcome(failure=failure, resumed_from_step=7)
    assert "cho" not in outcome.to_termination_message()
    assert bool(waited) == (is_echo and not is_only_pod)


def test_an_echo_s_pod_that_receives_sigterm_stops_waiting() -> None:
    stop = launcher.StopSignal()
    stop.handle(signal.SIGTERM, None)
    launcher._let_the_cause_end_first(stop, seconds=3600)


def test_an_error_inside_a_collective_is_an_echo_for_any_message() -> None:
    import torch.distributed as dist

    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(Exception) as caught:
            dist.all_reduce("not a tensor")  # type: ignore[arg-type]
    finally:
        dist.destroy_process_group()
    error = RuntimeError("gloo is unhappy").with_traceback(caught.value.__traceback__)
    assert failure_from_exception(error, 2).is_echo


def test_an_error_with_a_failure_of_its_own_is_no_echo() -> None:
    error = FailureError.of(Reason.S3_UNAVAILABLE, "broken pipe")
    assert not failure_from_exception(error, 2).is_echo
