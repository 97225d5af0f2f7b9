"""What every test of a fusion model runs under."""

import pytest

from tests.correctness import nan_filled_memory


@pytest.fixture(autouse=True)
def _poisoned_memory():
    with nan_filled_memory():
        yield
