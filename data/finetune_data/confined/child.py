"""A confined process: forked, with limits, and watched while its parent waits for its answer."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from finetune_api.errors import FailureError
from finetune_api.outcome import Failure
from finetune_data import failures
from finetune_data.confined import sections
from finetune_data.confined.sections import GIB, Running, Slots
from finetune_data.confined.watch import POLL_SECONDS, Excess, Watch

DATA_BYTES = 8 * GIB  # beyond those of the parent: one huge allocation fails at once
ANSWER_BYTES = 2 * GIB
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl


class ExhaustedError(FailureError):
    """A confined process that exceeded a limit, or that crashed in a section."""


class LostError(Exception):
    """A confined process that ended without an answer and outside of any section."""

    def __init__(self, exit_code: int) -> None:
        """exit_code: 128 plus the number of the signal for one that was killed."""
        super().__init__(f"the process ended with exit code {exit_code}")
        self.exit_code = exit_code


class Child:
    """A forked process that runs `serve` with its end of a connection; a context manager.

    It has everything that this process has imported, and ends with it. Ctrl-C is left to the
    parent. limits_data: whether RLIMIT_DATA applies, which counts private maps of files as well.
    is_quiet: whether its output is lost, such as the words of a library that panics.
    """

    def __init__(
        self,
        serve: Callable[[Connection], None],
        *,
        limits_data: bool = True,
        is_quiet: bool = False,
    ) -> None:
        slots = Slots()
        ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            if is_quiet:
                _silence()
            _run_child(serve, slots, (ours, theirs), parent, limits_data=limits_data)
        theirs.close()
        self._link = ours
        self._watch = Watch(self._pid, slots)
        self._end = weakref.finalize(self, _end, self._pid, parent)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._pid

    def send(self, message: bytes) -> None:
        """Send a message. An error is that of the next `receive`."""
        with suppress(OSError):
            self._link.send_bytes(message)

    def receive(self) -> bytes:
        """The next message. Raises ExhaustedError, or LostError."""
        try:
            while not self._link.poll(POLL_SECONDS):
                if excess := self._watch.check(time.monotonic()):
                    self.end()
                    raise ExhaustedError(_exhausted(excess))
            return self._link.recv_bytes(ANSWER_BYTES)
        except (EOFError, OSError) as error:
            last = self._watch.last()
            code = self._wait()
            if last is not None and code > 128:
                raise ExhaustedError(_crashed(last, code - 128)) from error
            raise LostError(code) from error

    def end(self) -> None:
        """Kill the process, if it still runs."""
        self._end()
        self._link.close()

    def _wait(self) -> int:
        """The exit code of a process that has closed its connection."""
        if self._end.detach() is None:
            return 128 + signal.SIGKILL
        with suppress(ChildProcessError):
            code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            return code if code >= 0 else 128 - code
        return 1


def run_confined(
    work: Callable[[], bytes], *, limits_data: bool = True, is_quiet: bool = False
) -> bytes:
    """The result of `work` in a confined process. Raises ExhaustedError, or LostError."""

    def serve(link: Connection) -> None:
        link.send_bytes(work())

    with Child(serve, limits_data=limits_data, is_quiet=is_quiet) as child:
        return child.receive()


def _silence() -> None:
    """Send what is written to stdout and stderr nowhere."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends


def _end(pid: int, parent: int) -> None:
    if os.getpid() != parent:  # a fork of the parent has this object as well
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _run_child(
    serve: Callable[[Connection], None],
    slots: Slots,
    ends: tuple[Connection, Connection],
    parent: int,
    *,
    limits_data: bool,
) -> None:
    """All that the child does. It never returns."""
    code = 1
    try:
        ends[0].close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _end_with(parent)
        if limits_data:
            _limit_data()
        sections.begin(slots)
        serve(ends[1])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, however it ends."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _limit_data() -> None:
    used = 0
    with suppress(OSError, ValueError, IndexError):
        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = used + DATA_BYTES
    with suppress(OSError, ValueError):
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _exhausted(excess: Excess) -> Failure:
    amount = (
        f"did not finish within {excess.amount:,.0f} seconds"
        if excess.limit == "time"
        else f"needs more than {excess.amount / GIB:.1f} GiB of memory"
    )
    return _failure(excess.inner, amount)


def _crashed(section: Running, number: int) -> Failure:
    return _failure(section, f"ended the process that reads it with signal {number}")


def _failure(section: Running, excess: str) -> Failure:
    subject = section.subject
    return failures.exhausted(
        *(subject.what, excess, section.place), subject.remedy, subject.code, subject.param
    )
