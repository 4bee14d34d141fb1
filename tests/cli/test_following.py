"""`follow` against a real API server; the test plays the operator."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devcluster import processes
from devcluster.controlplane import ControlPlane
from tests.cli.entry import PROGRAM
from tests.cli.statuses import status
from tests.support.kubectl import Kubectl, RefusedError, finetune, until

pytestmark = pytest.mark.integration


Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(home: Path, team: Kubectl) -> Iterator[Launch]:
    """`finetune` in its own process, which is killed at the end of the test if it still runs."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, kubeconfig: str = team.kubeconfig) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PROGRAM, "-n", team.namespace, *arguments],
            env={**os.environ, "KUBECONFIG": kubeconfig},
            stdout=(home / "out").open("w"),
            stderr=(home / "err").open("w"),
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 3), ("cancelled", 3)])
def test_follow_shows_the_events_and_ends_with_the_exit_code(
    launch: Launch, team: Kubectl, home: Path, state: str, code: int
) -> None:
    team.apply(finetune("tone"))
    process = launch("follow", "tone")
    until(lambda: "waiting for the operator" in (home / "out").read_text(), 30)
    team.patch_status("finetune", "tone", status("running", "Created fine-tune", stage="training"))
    until(lambda: "Created fine-tune" in (home / "out").read_text(), 30)
    team.patch_status("finetune", "tone", status(state, "Created fine-tune", f"Fine-tune {state}"))
    assert process.wait(30) == code
    text = (home / "out").read_text()
    assert text.count("Created fine-tune") == 1
    assert f"Fine-tune {state}" in text
    assert "\x1b" not in text


def test_ctrl_c_leaves_it_running_and_says_how_to_come_back(
    launch: Launch, team: Kubectl, home: Path
) -> None:
    process = launch("create", "tone", "-t", "s3://acme/a.jsonl", "-m", "ada")
    until(lambda: "waiting for the operator" in (home / "out").read_text(), 30)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    told = (home / "err").read_text()
    assert "The fine-tune tone continues." in told
    assert f"To follow it again: finetune follow tone -n {team.namespace}" in told
    assert "Traceback" not in told
    assert not team.get("finetune", "tone")["spec"].get("cancel")


def test_a_deleted_one_is_an_error(launch: Launch, team: Kubectl, home: Path) -> None:
    team.apply(finetune("tone"))
    process = launch("follow", "tone", "-o", "json")
    team.patch_status("finetune", "tone", status("running"))
    until(lambda: '"state": "running"' in (home / "out").read_text(), 30)
    team("delete", "finetune", "tone")
    assert process.wait(30) == 1
    assert "was deleted while you followed it" in (home / "err").read_text()


def test_a_terminal_has_a_live_line_that_fits(team: Kubectl, home: Path) -> None:
    """On 80 columns: bar, step, loss, speed and time left."""
    team.apply(finetune("tone"))
    eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    progress = {"step": 300, "steps": 1000, "loss": 1.7, "tokensPerSecond": 12345.6, "eta": eta}
    running = status("running", "Fine-tune started", stage="training", progress=progress)
    team.patch_status("finetune", "tone", running)
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "KUBECONFIG": team.kubeconfig, "TERM": "xterm-256color"}
    environment.pop("COLUMNS")
    child = subprocess.Popen(
        [*PROGRAM, "-n", team.namespace, "follow", "tone"],
        env=environment,
        stdin=other,
        stdout=other,
        stderr=other,
    )
    os.close(other)
    seen = b""
    while b"tok/s" not in seen:
        assert select.select([main], [], [], 30)[0], seen.decode()
        seen += os.read(main, 4096)
    child.send_signal(signal.SIGINT)
    try:
        end = time.monotonic() + 30
        with contextlib.suppress(OSError):  # a terminal whose last writer has gone
            while time.monotonic() < end and (block := os.read(main, 4096)):
                seen += block
        assert child.wait(5) == 130
    finally:
        child.kill()
        child.wait()
        os.close(main)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    lines = re.split(r"[\r\n]+", plain)
    [live, *_] = [line for line in lines if "tok/s" in line]
    assert re.fullmatch(
        r"training  [█▎▍▌▋▊▉▏░]+  step 300/1,000  loss 1.7000  12,346 tok/s  .*", live
    )
    assert max(map(len, lines)) <= 80
    assert "\x1b[" in seen.decode()
    assert "The fine-tune tone continues." in plain


@pytest.mark.slow
def test_follow_survives_a_restart_of_the_api_server(
    launch: Launch, team: Kubectl, home: Path, control_plane: ControlPlane
) -> None:
    """A real API server is killed and restarted; no event is lost or shown twice."""
    team.apply(finetune("tone"))
    team.patch_status("finetune", "tone", status("running", "Created fine-tune", stage="training"))
    process = launch("follow", "tone")
    until(lambda: "Created fine-tune" in (home / "out").read_text(), 30)
    server = next(it for it in control_plane._processes if "apiserver" in it.name)
    command = Path(f"/proc/{server.pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
    server.send(signal.SIGKILL)
    until(lambda: "reconnecting: " in (home / "out").read_text(), 60)
    control_plane._processes.append(
        processes.start(server.name, command, home / "apiserver.log", ends_with_us=True)
    )
    until(lambda: _answers(team), 60)
    until(lambda: "reconnected" in (home / "out").read_text(), 60)
    team.patch_status(
        "finetune", "tone", status("succeeded", "Created fine-tune", "Fine-tune succeeded")
    )
    assert process.wait(60) == 0, (home / "err").read_text()
    text = (home / "out").read_text()
    assert text.count("Created fine-tune") == 1
    assert text.count("Job complete!") == 1


def _answers(team: Kubectl) -> bool:
    try:
        return bool(team.get("finetune", "tone"))
    except RefusedError:
        time.sleep(0.2)
        return False
