"""The disk that a prepare pod uses: copies of the data files, and the arrays made of them."""

from dataclasses import dataclass

from finetune_api.finetune import FineTune
from finetune_api.training_files import MOST_REPEATS
from finetune_operator.settings import Settings

GIB = 2**30
SMALL_GIB = 1  # configuration, tokenizer, and report
# Of a file: a copy for formats that need to seek, and 8 bytes for each byte of text. A token has 5
# bytes, an example has 8, and a chat template adds tokens.
COPY, ARRAYS = 1, 8


@dataclass(frozen=True)
class ScratchSpace:
    """Amounts in GiB. They assume that every data file is as large as the chart allows."""

    usual: float  # what the pod requests
    most: float  # with the most repeats of examples in an epoch: the limit of the volume


def scratch_space(finetune: FineTune, settings: Settings) -> ScratchSpace:
    spec = finetune.spec
    training = len(spec.training_data)
    files = training + (spec.validation_file is not None)
    of_file = settings.data.max_file_bytes / GIB
    joined = ARRAYS * training if training > 1 else 0  # the epoch, made of all files
    usual = SMALL_GIB + of_file * ((COPY + ARRAYS) * files + joined)
    is_weighted = training > 1 and spec.training_data[0].weight is not None
    repeats = (MOST_REPEATS - 1) * (training - 1) * ARRAYS if is_weighted else 0
    return ScratchSpace(usual, usual + of_file * repeats)
