"""The launcher's own process ends with its outcome, whatever still goes on in it."""

import os
import subprocess
import sys

# A download waits in one executor for the work of another one, as boto3's do.
SCRIPT = """
import runpy, threading
from concurrent.futures import ThreadPoolExecutor
from finetune_trainer.launcher import main as launch

def main():
    for_ever = threading.Event()
    ThreadPoolExecutor(1).submit(for_ever.wait)
    print("said", flush=True)
    return 7

launch.main = main
runpy.run_module("finetune_trainer", run_name="__main__")
"""


def test_a_download_that_never_ends_does_not_hold_the_pod() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (7, "said\n"), ran.stderr


def test_wrong_arguments_are_answered_as_ever() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for arguments, code in ((["--help"], 0), (["--nonsense"], 2)):
        ran = subprocess.run(
            [sys.executable, "-m", "finetune_trainer", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code
