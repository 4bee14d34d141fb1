"""`python -m finetune_serving`."""

import sys

from finetune_serving.main import main

sys.exit(main())
