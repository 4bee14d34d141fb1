"""Who reads the failures that this process reports."""

import os

from finetune_api.errors import Audience
from finetune_api.names import ENV_LOCAL_ROOT


def process_audience() -> Audience:
    """SHELL in the processes of `finetune run`, POD in a pod.

    A pod's failure ends in a status. `finetune run` starts the same code on the user's machine,
    with FINETUNE_LOCAL_ROOT in its environment, and prints the failure.
    """
    return Audience.SHELL if os.environ.get(ENV_LOCAL_ROOT) else Audience.POD
