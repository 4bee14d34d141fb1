"""`python -m finetune_trainer`."""

import os
import sys

from finetune_trainer.launcher.main import main

if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as ended:  # argparse's
        code = ended.code if isinstance(ended.code, int) else 2
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's own end would wait for a download that nobody needs any more, for ever: it
    # takes the download's helpers away first. A pod that hangs so keeps its GPUs.
    os._exit(code)
