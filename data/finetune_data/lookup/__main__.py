"""The entry point of the lookup pod: `python -m finetune_data.lookup`."""

import sys

from finetune_data.lookup.job import main

if __name__ == "__main__":
    sys.exit(main())
