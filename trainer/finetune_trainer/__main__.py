"""`python -m finetune_trainer`."""

import sys

from finetune_trainer.launch import main

if __name__ == "__main__":
    sys.exit(main())
