"""Hostile files of base models and of users, and processes whose memory and time are measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.data.builders import write_json

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "storage", "data", "trainer", "cli")
SECONDS = 60  # in which each must end, on an idle CPU
GIB = 2**30
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

# Each asks for something else without end. The first messages of a conversation are harmless, so
# that a test of a template on a usual conversation would find nothing.
WHEN = "{% if messages[0].content == 'Attack' %}BODY{% endif %}" + CHAT
BODIES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "allocates": "{% set x = 'a' * (3221225472 + messages | length) %}{{ x | length }}",
    "allocates in steps": "{% set n = namespace(x='a' * 1048576) %}"
    "{% for a in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "emits": "{% for a in range(99999) %}{{ 'a' * 16384 }}{% endfor %}",
    "computes": "{{ 9 ** 9 ** 9 }}",
}
RECURSION = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"


# A process starts with the peak memory of the one that starts it, and the tests' own is large.
LAUNCHER = """
import os, pathlib, sys
usage, *command = sys.argv[1:]
_, status, used = os.wait4(os.posix_spawn(command[0], command, os.environ), 0)
pathlib.Path(usage).write_text(f"{os.waitstatus_to_exitcode(status)} {used.ru_maxrss}")
"""


class Ended(NamedTuple):
    """A process that has ended. memory: the most that it or one of its children had, in bytes."""

    code: int
    output: str
    memory: int
    message: str  # its termination message


def run_measured(
    arguments: Sequence[str], *, seconds: float = 5 * SECONDS, **environment: str
) -> Ended:
    """Run `python -m` with arguments. A process that takes longer is killed, which is an error.

    seconds: more than the product allows, because other processes can keep the CPUs busy.
    """
    with tempfile.TemporaryDirectory() as name:
        message, log, usage = (Path(name) / file for file in ("message", "log", "usage"))
        own = {"FINETUNE_TERMINATION_LOG": str(message), "TMPDIR": name, **environment}
        path = os.pathsep.join(str(ROOT / package) for package in PACKAGES)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, usage, sys.executable, "-m", *arguments],
                env={**os.environ, "PYTHONPATH": path, **own},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise TimeoutError(log.read_text(errors="replace")) from None
        code, kibibytes = map(int, usage.read_text().split())
        written = message.read_text() if message.exists() else ""
        text = log.read_text(errors="replace")
        return Ended(code, text, kibibytes * 1024, written)


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def with_slow_pattern(folder: Path) -> None:
    """tokenizer.json with a pattern whose search takes exponential time for many letters a."""
    slow = {"type": "Split", "pattern": {"Regex": r"(?:a|a|a|aa)+$"}, "behavior": "Isolated"}
    change_json(
        folder / "tokenizer.json",
        lambda value: value.update(pre_tokenizer={**slow, "invert": False}),
    )


def with_setting(folder: Path, text: str) -> None:
    """config.json that ends with the text of one more setting."""
    path = folder / "config.json"
    path.write_text(f"{path.read_text().rstrip().removesuffix('}')}, {text}}}")


SETTINGS = {
    "a huge width": f'"hidden_size": 1{"0" * 200}',
    "a negative width": '"hidden_size": -1',
    "a width that is no number": '"hidden_size": NaN',
    "a width that is a text": '"hidden_size": "many"',
    "a huge vocabulary": '"vocab_size": 1000000000',
    "many layers": '"num_hidden_layers": 1000000000',
    "many experts": '"num_local_experts": 1000000000',
    "a number of a million digits": f'"x": 1{"0" * 1_000_000}',
    "deep nesting": f'"x": {"[" * 100_000}{"]" * 100_000}',
    "a repeated key": '"model_type": "gpt2"',
    "a long list": f'"x": [{"0," * 1_000_000}0]',
}
