"""The entry point of the check container: `python -m finetune_trainer.base_check`."""

import sys

from finetune_trainer.base_check.main import POD

if __name__ == "__main__":
    sys.exit(POD.main())
