"""The entry point of the prepare pod: `python -m finetune_data`."""

import sys

from finetune_data.prepare.main import POD

if __name__ == "__main__":
    sys.exit(POD.main())
