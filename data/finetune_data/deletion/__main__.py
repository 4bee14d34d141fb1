"""`python -m finetune_data.deletion`: the address that deletion Jobs of every version have."""

import sys

from finetune_data.deletion.job import main

if __name__ == "__main__":
    sys.exit(main())
