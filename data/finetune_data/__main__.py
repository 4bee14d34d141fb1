"""The entry point of the prepare pod: `python -m finetune_data`."""

import sys

from finetune_data.prepare.main import main

if __name__ == "__main__":
    sys.exit(main())
