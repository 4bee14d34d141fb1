"""Versions of NVIDIA's driver: their order, and the oldest one for a version of CUDA."""

import re

# The major version of CUDA that PyTorch of the trainer image is built for.
IMAGE_CUDA = 13
# By the major version of CUDA, from NVIDIA's table of minor version compatibility (CUDA
# Compatibility, table 1). A newer driver runs every older CUDA.
MINIMUM_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580"}

_VERSION = re.compile(r"\d{2,5}(\.\d{1,5}){0,3}")


def minimum_driver(cuda: str | int | None) -> str | None:
    """The oldest driver for a version of CUDA such as 13.0; None: unknown."""
    major = str(cuda or "").partition(".")[0]
    return MINIMUM_DRIVERS.get(int(major)) if re.fullmatch(r"\d{1,3}", major) else None


def parse_driver(text: str | None) -> tuple[int, ...] | None:
    """(570, 86, 15) of "570.86.15"; None for a text that is not a version."""
    if text is None or not _VERSION.fullmatch(text):
        return None
    return tuple(int(part) for part in text.split("."))


def is_too_old(driver: str | None, minimum: str | None) -> bool:
    """Whether a driver is older than `minimum`; False if one of them is unknown."""
    found, wanted = parse_driver(driver), parse_driver(minimum)
    return found is not None and wanted is not None and found < wanted[: len(found)]
