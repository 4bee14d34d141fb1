"""`python -m finetune_gateway`."""

import sys

from finetune_gateway.main import main

sys.exit(main())
