"""The real data set, read once for all tests of this folder."""

from __future__ import annotations

import pytest

from examples.demo.dataset import Dataset, build_dataset


@pytest.fixture(scope="session")
def data() -> Dataset:
    return build_dataset()
