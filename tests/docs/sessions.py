"""Runs the commands of a page in one shell, in the order of the page, as a reader does."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.blocks import Block

MARK = "\x1e"
# The test suite created the CRDs with kubectl, so helm must take ownership of them.
HELM = """#!/bin/sh
case "$1" in
install|upgrade) exec "{helm}" "$@" --take-ownership ;;
*) exec "{helm}" "$@" ;;
esac
"""
# The API server applies a new binding after some milliseconds, so a "no" is checked again.
KUBECTL = """#!/bin/sh
if [ "$1 $2" = "auth can-i" ]; then
  for again in 1 2 3 4 5; do
    answer="$("{kubectl}" "$@" 2>/dev/null)" && break
    sleep 0.5
  done
fi
exec "{kubectl}" "$@"
"""
FINETUNE = '#!/bin/sh\nexec "{python}" -m finetune_cli "$@"\n'


def environment(folder: Path, tools: Path | None = None, **more: str) -> dict[str, str]:
    """Return an environment with `finetune` on the PATH and a home, isolated from this machine.

    tools: the folder of kubectl and helm, for pages that need a cluster.
    """
    programs = folder / "bin"
    programs.mkdir()
    write_program(programs / "finetune", FINETUNE.format(python=sys.executable))
    if tools is not None:
        write_program(programs / "helm", HELM.format(helm=tools / "helm"))
        write_program(programs / "kubectl", KUBECTL.format(kubectl=tools / "kubectl"))
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        **kept,
        "PATH": os.pathsep.join(path),
        "HOME": str(home),
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "2",
        **more,
    }


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def run_page(
    blocks: list[tuple[Block, str]],
    folder: Path,
    env: Mapping[str, str],
    changes: Mapping[str, str] | None = None,
    seconds: float = 280,
) -> None:
    """Run the blocks. If one fails or prints something else, fail with the whole output.

    changes: regular expression -> replacement, applied to commands.
    """
    parts = ["set -eu -o pipefail"]
    for number, (block, _) in enumerate(blocks):
        code = _changed(block.text, changes or {})
        parts += [f"printf '{MARK}%d\\n' {number}", _as_shell(block, code), "echo"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(parts)],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    printed = done.stdout.split(MARK)[1:]
    assert done.returncode == 0, f"{blocks[len(printed) - 1][0].where} failed:\n{done.stdout}"
    for (block, expected), actual in zip(blocks, printed, strict=True):
        missing = first_missing(expected, actual)
        assert missing is None, f"{block.where} does not print {missing!r}, but:\n{actual}"


def first_missing(expected: str, actual: str) -> str | None:
    """Return the first expected line that was not printed in order; None if all were."""
    there = iter([_plain(line) for line in actual.splitlines()])
    for line in filter(None, map(_plain, expected.splitlines())):
        if line == "...":
            continue
        pattern = re.compile(".*".join(map(re.escape, re.split(r" ?\.\.\. ?", line))))
        if not any(pattern.fullmatch(found) for found in there):
            return line
    return None


def _plain(line: str) -> str:
    return " ".join(line.split())


def _changed(text: str, changes: Mapping[str, str]) -> str:
    for pattern, instead in changes.items():
        text = re.sub(pattern, instead, text)
    return text


def _as_shell(block: Block, code: str) -> str:
    if block.language == "python":
        return f"{sys.executable} - <<'END_OF_BLOCK'\n{code}END_OF_BLOCK"
    return code
