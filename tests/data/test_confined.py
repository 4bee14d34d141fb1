"""A confined process: what counts as the memory of a section."""

import time

import pytest

from finetune_api.names import Reason
from finetune_data.confined.child import ExhaustedError, run_confined
from finetune_data.confined.sections import GIB, Section, Subject

MIB = 2**20
SUBJECT = Subject("the template of base model 'm'", "use another one", Reason.BASE_MODEL_INVALID)
SECTION = Section(SUBJECT, 60.0, GIB // 8)


def test_memory_from_before_a_section_does_not_count() -> None:
    """Neither that of the parent, which a fork has, too, nor that of earlier work."""
    ballast = b"x" * (300 * MIB)

    def work() -> bytes:
        more = b"y" * (300 * MIB)
        time.sleep(0.3)
        with SECTION.at():
            time.sleep(0.3)
        return str(len(ballast) + len(more)).encode()

    assert run_confined(work) == str(600 * MIB).encode()


def test_memory_of_a_section_counts() -> None:
    def work() -> bytes:
        with SECTION.at():
            more = [b"x" * MIB for _ in range(300)]
            time.sleep(5)
        return str(len(more)).encode()

    with pytest.raises(ExhaustedError) as caught:
        run_confined(work)
    assert "needs more than 0.1 GiB of memory" in caught.value.failure.message


def test_a_section_that_begins_before_the_first_look_has_the_memory_of_the_parent() -> None:
    ballast = b"x" * (300 * MIB)

    def work() -> bytes:
        with SECTION.at():
            time.sleep(0.3)
        return str(len(ballast)).encode()

    assert run_confined(work) == str(300 * MIB).encode()
