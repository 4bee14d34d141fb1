"""The entry point of the deletion pod: `python -m finetune_data.deletion`, also of old Jobs."""

import sys

from finetune_data.deletion.job import POD

if __name__ == "__main__":
    sys.exit(POD.main())
