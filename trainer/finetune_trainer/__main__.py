"""The entry point of a pod: `python -m finetune_trainer`."""

import os
import sys

from finetune_trainer.launcher.main import main

if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as ended:  # raised by argparse
        code = ended.code if isinstance(ended.code, int) else 2
    sys.stdout.flush()
    sys.stderr.flush()
    # A regular exit would wait forever for an unfinished download, whose executors the interpreter
    # stops first. A pod that hangs keeps its GPUs.
    os._exit(code)
