"""A process is a pid and a start time, and nothing else is ever signaled."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import processes
from devcluster.processes import Process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def identified(child: subprocess.Popen[bytes]) -> Process:
    process = processes.identify("sleeper", child.pid)
    assert process is not None
    return process


def test_a_recycled_pid_is_never_killed(sleeper: subprocess.Popen[bytes]) -> None:
    genuine = identified(sleeper)
    earlier = dataclasses.replace(genuine, started=genuine.started - 1)
    assert not earlier.is_running()
    processes.stop([earlier], patience=0.1)
    processes.kill([earlier])
    earlier.send(signal.SIGKILL)
    assert sleeper.poll() is None
    assert genuine.is_running()


def test_a_pid_of_an_earlier_boot_is_never_killed(sleeper: subprocess.Popen[bytes]) -> None:
    before_reboot = dataclasses.replace(identified(sleeper), boot="another")
    before_reboot.send(signal.SIGKILL)
    time.sleep(0.05)
    assert sleeper.poll() is None


def test_a_process_is_stopped_by_its_identity(sleeper: subprocess.Popen[bytes]) -> None:
    process = identified(sleeper)
    processes.stop([process])
    assert not process.is_running()
    assert sleeper.wait(1) == -signal.SIGTERM


def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(60)"
    process = processes.start("stubborn", [sys.executable, "-uc", program], tmp_path / "log")
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)
    processes.stop([process], patience=0.1)
    assert not process.is_running()


def test_a_dead_process_that_nobody_reaped_does_not_run() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.identify("zombie", child.pid) is None
    child.wait()


def test_the_start_time_is_read_behind_any_program_name() -> None:
    fields = " ".join(["S", *map(str, range(4, 22)), "987654", "23"])
    assert processes.parse_start_time(f"12 (a) S 1 (b c) {fields}") == 987654


def test_the_record_survives_a_round_trip(tmp_path: Path) -> None:
    record = tmp_path / "processes.json"
    one = Process("etcd", 12, 345, "boot")
    assert processes.read_record(record) == {}
    processes.write_record(record, [one])
    assert processes.read_record(record) == {"etcd": one}
    record.write_text("torn {")
    assert processes.read_record(record) == {}


def test_a_process_that_ends_with_us_dies_when_we_are_killed(tmp_path: Path) -> None:
    program = f"""
import os, signal, pathlib, time
from devcluster import processes
path = pathlib.Path({str(tmp_path)!r})
started = processes.start("child", ["sleep", "60"], path / "log", ends_with_us=True)
processes.write_record(path / "record", [started])
comm = pathlib.Path(f"/proc/{{started.pid}}/comm")
while comm.read_text() != "sleep\\n":  # until then, the kernel does not have the setting
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    child = processes.read_record(tmp_path / "record")["child"]
    deadline = time.monotonic() + 5
    while child.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.is_running()
