"""The previous version of the product, which users upgrade from: its sources, as an archive.

`previous.tar.xz` holds what the images of that version contain. Renew it with each release:

    git archive TAG api/finetune_api operator/finetune_operator storage/finetune_storage \\
        data/finetune_data trainer/finetune_trainer | xz -9e > tests/support/previous.tar.xz
"""

import os
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

ARCHIVE = Path(__file__).with_name("previous.tar.xz")


@cache
def unpack() -> Path:
    """The folder of the unpacked sources; the system's temporary folder holds it."""
    folder = Path(mkdtemp(prefix="finetune-previous-"))
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def python_path() -> str:
    """The import path that comes before the installed packages of this checkout."""
    folders = sorted(package.parent for package in unpack().glob("*/finetune_*"))
    return os.pathsep.join(str(folder) for folder in folders)


def parse(model: str, text: str) -> str:
    """The JSON of a wire model, parsed and written again by the previous version.

    model: `module:class`, for example `finetune_api.tasks:TrainTask`.
    """
    module, name = model.split(":")
    return run(
        "import importlib, sys; "
        f"model = getattr(importlib.import_module({module!r}), {name!r}); "
        "print(model.model_validate_json(sys.stdin.read()).to_json())",
        text,
    )


def run(program: str, text: str) -> str:
    """The output of a program with the packages of the previous version. text: its input."""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": python_path()},
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()
