"""The real dataset, read once for all tests in this folder."""

from __future__ import annotations

import pytest

from examples.demo.dataset import Dataset, build_dataset


@pytest.fixture(scope="session")
def data() -> Dataset:
    return build_dataset()
