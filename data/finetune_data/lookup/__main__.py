"""The entry point of the lookup pod: `python -m finetune_data.lookup`."""

import sys

from finetune_data.lookup.job import POD

if __name__ == "__main__":
    sys.exit(POD.main())
