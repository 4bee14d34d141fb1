"""Jobs as processes: their ends, retries, messages, turns, and deletion."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api import names
from finetune_local import jobs as jobs_module
from finetune_local.jobs import Jobs
from finetune_local.objects import Objects
from finetune_operator.core.observed import Job

SECONDS = 30
# Writes a termination message to the file that the last argument names.
WRITE = "import sys; open(sys.argv[-1], 'w').write('written')"


@pytest.fixture
async def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Jobs]:
    monkeypatch.setattr(jobs_module, "RETRY_SECONDS", 0.01)
    found = Jobs(Objects(tmp_path / "state"), tmp_path, tmp_path / "logs")
    yield found
    await found.close()


def manifest(
    name: str, *programs: str, component: str = names.COMPONENT_PREPARE, retries: int = 0
) -> dict[str, Any]:
    """A Job whose containers run programs in Python, all but the last one before it."""
    made = [
        {
            "name": f"c{number}" if number + 1 < len(programs) else "main",
            "command": ["python", "-c", program],
            "env": [{"name": names.ENV_TASK, "value": "{}"}],
        }
        for number, program in enumerate(programs)
    ]
    pod = {"initContainers": made[:-1], "containers": made[-1:], "terminationGracePeriodSeconds": 5}
    return {
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": {names.LABEL_COMPONENT: component, names.LABEL_UID: "u"},
            "ownerReferences": [{"uid": "u", "controller": True}],
        },
        "spec": {"backoffLimit": retries, "template": {"spec": pod}},
    }


def start(jobs: Jobs, made: dict[str, Any]) -> dict[str, Any]:
    job = jobs._objects.add("jobs", made)
    jobs.start(job)
    return job


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(SECONDS):
        while not (found := condition()):  # noqa: ASYNC110 - anything can be the condition
            await asyncio.sleep(0.02)
        return found


def now(jobs: Jobs, name: str) -> Job:
    job = jobs._objects.get("jobs", name)
    assert job is not None
    return jobs.parsed(job)


async def test_the_message_of_a_success_is_that_of_the_main_container(jobs: Jobs) -> None:
    start(jobs, manifest("a", "pass", WRITE))
    await until(lambda: now(jobs, "a").has_completed)
    (pod,) = now(jobs, "a").pods
    assert (pod.exit_code, pod.phase, pod.message) == (0, "Succeeded", "written")
    assert not list(jobs._root.glob(".pod-*")), "the folder of a pod remains"


async def test_a_failure_without_a_message_has_the_end_of_the_log(jobs: Jobs) -> None:
    start(jobs, manifest("a", "raise SystemExit('a' * 5000 + 'the cause')"))
    await until(lambda: now(jobs, "a").has_failed)
    (pod,) = now(jobs, "a").pods
    assert pod.exit_code == 1
    assert pod.message is not None
    assert pod.message.endswith("the cause\n")
    assert len(pod.message) <= 2048


async def test_a_container_that_fails_ends_the_pod(jobs: Jobs) -> None:
    start(jobs, manifest("a", "raise SystemExit(65)", WRITE, retries=3))
    await until(lambda: now(jobs, "a").has_failed)
    (pod,) = now(jobs, "a").pods
    assert pod.phase == "Failed"
    assert pod.message is None


async def test_a_crash_is_retried_and_an_error_of_the_user_is_not(jobs: Jobs) -> None:
    start(jobs, manifest("crash", "raise SystemExit(1)", retries=2))
    await until(lambda: now(jobs, "crash").has_failed)
    assert len(now(jobs, "crash").pods) == 3
    start(jobs, manifest("user", f"raise SystemExit({names.EXIT_USER})", retries=2))
    await until(lambda: now(jobs, "user").has_failed)
    assert len(now(jobs, "user").pods) == 1


async def test_one_training_runs_at_a_time_and_a_check_next_to_it(jobs: Jobs) -> None:
    sleep = "import time; time.sleep(60)"
    first = start(jobs, manifest("one", sleep, component=names.COMPONENT_TRAIN))
    start(jobs, manifest("two", WRITE, component=names.COMPONENT_TRAIN))
    start(jobs, manifest("check", WRITE))
    await until(lambda: now(jobs, "check").has_completed)
    (waiting,) = now(jobs, "two").pods
    assert waiting.phase == "Pending"
    assert "one at a time" in (waiting.unscheduled_message or "")
    jobs.delete(first)
    await until(lambda: now(jobs, "two").has_completed)


async def test_a_deleted_job_gets_sigterm_and_is_gone_with_its_processes(
    jobs: Jobs, tmp_path: Path
) -> None:
    file = tmp_path / "pids"
    program = (
        "import os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"def stop(*_): open({str(file)!r}, 'a').write('stopped'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"open({str(file)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} ')\n"
        "time.sleep(60)\n"
    )
    job = start(jobs, manifest("a", program))
    await until(lambda: file.exists() and file.read_text().count(" ") == 2)
    jobs.delete(job)
    assert jobs._objects.get("jobs", "a")["metadata"]["deletionTimestamp"]  # type: ignore[index]
    jobs.delete(job)
    await until(lambda: jobs._objects.get("jobs", "a") is None)
    own, child, last = file.read_text().split()
    assert last == "stopped"
    for pid in (own, child):
        await until(lambda pid=pid: not is_alive(int(pid)))


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


async def test_the_jobs_of_a_former_process_continue_but_a_training_is_lost(
    tmp_path: Path,
) -> None:
    (tmp_path / ".pod-killed").mkdir()
    objects = Objects(tmp_path / "state")
    objects.add("jobs", manifest("check", WRITE))
    objects.add("jobs", manifest("train", WRITE, component=names.COMPONENT_TRAIN))
    jobs = Jobs(Objects(tmp_path / "state"), tmp_path, tmp_path / "logs")
    jobs.restore()
    assert not (tmp_path / ".pod-killed").exists()
    await until(lambda: now(jobs, "check").has_completed)
    (lost,) = now(jobs, "train").pods
    assert now(jobs, "train").has_failed
    assert lost.is_disrupted
    assert "finetune serve" in (lost.pod_message or "")
    await jobs.close()


async def test_a_program_that_does_not_exist_is_a_failure(jobs: Jobs) -> None:
    made = manifest("a", WRITE)
    made["spec"]["template"]["spec"]["containers"][0]["command"] = ["/no/such/program"]
    start(jobs, made)
    await until(lambda: now(jobs, "a").has_failed)


async def test_processes_end_with_this_program(tmp_path: Path) -> None:
    """A killed server must not leave a training behind."""
    file = tmp_path / "pid"
    inner = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    outer = (
        "import asyncio, os, pathlib, sys\n"
        "from finetune_local.containers import run_program\n"
        f"command = [sys.executable, '-c', {inner!r}]\n"
        f"asyncio.run(run_program(command, os.environ, pathlib.Path({str(tmp_path / 'log')!r}), "
        "grace_seconds=1))\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", outer, env=os.environ)
    await until(lambda: file.exists() and file.read_text())
    pid = int(file.read_text())
    process.kill()
    await process.wait()
    await until(lambda: not is_alive(pid))
