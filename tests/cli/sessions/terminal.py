"""A shell in a real terminal with 80 columns, controlled and read through tmux."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cli.entry import ENTRY
from tests.support.kubectl import until

PROGRAM = shutil.which("tmux")
WIDTH, HEIGHT = 80, 40
PROMPT = "$ "


class Terminal:
    """One window; `screen` is all that it has shown."""

    def __init__(self, socket: Path) -> None:
        self._tmux = (str(PROGRAM), "-u", "-S", str(socket), "-f", "/dev/null")

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-S", "-").rstrip()

    @property
    def colored_screen(self) -> str:
        """The screen with the escape sequences of its colors."""
        return self.tmux("capture-pane", "-p", "-e", "-S", "-").rstrip()

    def type(self, text: str) -> None:
        """Keys, and Enter."""
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        """As tmux names it: C-c, Enter."""
        self.tmux("send-keys", key)

    def clear(self) -> None:
        """An empty screen with a prompt, as Ctrl-L leaves it."""
        self.press("C-l")
        until(lambda: self.tmux("capture-pane", "-p").rstrip() == "$", 30, lambda: self.screen)
        self.tmux("clear-history")

    def wait(self, pattern: str, seconds: float = 60) -> None:
        """Until a line of the screen matches."""
        until(lambda: re.search(pattern, self.screen, re.MULTILINE), seconds, lambda: self.screen)

    def run(self, command: str) -> str:
        """Type a command, wait for the next prompt; the whole screen."""
        self.type(command)
        self.wait(r"\A\$ .*(\n.*)*\n\$$")
        return self.screen.removesuffix("\n$")


@contextmanager
def terminal(home: Path, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """bash in `home` with nothing but these settings, and `finetune` on its PATH."""
    programs = home / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "finetune").write_text(
        f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(ENTRY)} "$@"\n'
    )
    (programs / "finetune").chmod(0o755)
    (home / "bashrc").write_text(f"PS1={shlex.quote(PROMPT)}\n")
    settings = {
        "HOME": str(home),
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        **environment,
    }
    words = [f"{name}={value}" for name, value in settings.items()]
    # a socket's path has at most 107 characters
    with tempfile.TemporaryDirectory(prefix="tmux-") as folder:
        made = Terminal(Path(folder) / "socket")
        shell = shlex.join(["env", *words, "bash", "--noprofile", "--rcfile", str(home / "bashrc")])
        size = ("-x", str(WIDTH), "-y", str(HEIGHT))
        made.tmux("new-session", "-d", *size, "-c", str(home), shell)
        try:
            made.wait(r"^\$$")
            yield made
        finally:
            made.tmux("kill-server")
