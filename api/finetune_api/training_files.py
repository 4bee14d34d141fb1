"""Several training files with weights: their fields, the rules between them, and their counts."""

from collections.abc import Sequence

from pydantic import Field

from finetune_api.uris import S3Address
from finetune_api.wire import Stored

MOST_FILES = 16
LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000
MOST_REPEATS = 100  # of one example in an epoch


class TrainingFile(Stored):
    """One of several training files, and its share of an epoch."""

    uri: S3Address = Field(description="S3 URI of the file. trainingFile lists the formats.")
    weight: float | None = Field(
        None,
        ge=LEAST_WEIGHT,
        le=MOST_WEIGHT,
        description="Share of this file in the examples of an epoch, relative to the weights of "
        "the other files: 3 and 1 mean three examples of the first file for each of the second. "
        "Every example occurs at least once in an epoch; those of a file that is too small for "
        f"its share are repeated, at most {MOST_REPEATS} times. Set it for every file or for none. "
        "Default: every example occurs once in an epoch.",
    )


class TrainingFileCounts(Stored):
    """The size of one of several training files."""

    examples: int = Field(description="Number of examples in the file, without the skipped lines.")
    epoch_examples: int = Field(
        description="Number of examples of the file in an epoch, with repeats."
    )


def find_broken_rule(one: str | None, several: Sequence[TrainingFile] | None) -> str | None:
    """The rule that `trainingFile` and `trainingFiles` break, with the field; None if none.

    The API server checks the same rules in CEL (`crd.rules`). This function is for commands that
    work without a cluster, and for the index of the file in a message.
    """
    if one is None and several is None:
        return "trainingFile is required, or trainingFiles for several files"
    if several is None:
        return None
    if one is not None:
        return "set trainingFile or trainingFiles, not both"
    first: dict[str, int] = {}
    for index, file in enumerate(several):
        if file.uri in first:
            return (
                f"trainingFiles[{index}].uri is the same file as trainingFiles[{first[file.uri]}]: "
                "list each file once, and repeat its examples with a weight"
            )
        first[file.uri] = index
    without = [index for index, file in enumerate(several) if file.weight is None]
    if without and len(without) < len(several):
        return (
            f"trainingFiles[{without[0]}].weight is missing: set a weight for every file or for "
            "none"
        )
    return None
