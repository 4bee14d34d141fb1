"""The launcher's process exits with its outcome, even if a download still runs."""

import os
import subprocess
import sys

# A download waits in one executor for another one, as in boto3.
SCRIPT = """
import runpy, threading
from concurrent.futures import ThreadPoolExecutor
from finetune_trainer.launcher import main as launcher

def main():
    forever = threading.Event()
    ThreadPoolExecutor(1).submit(forever.wait)
    print("done", flush=True)
    return 7

launcher.main = main
runpy.run_module("finetune_trainer", run_name="__main__")
"""


def test_a_download_that_never_ends_does_not_keep_the_pod_alive() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (7, "done\n"), ran.stderr


def test_argparse_s_exit_codes_are_kept() -> None:
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
