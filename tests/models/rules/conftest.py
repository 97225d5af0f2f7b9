"""What every test of a model of grammars runs under."""

import pytest

from tests.correctness import nan_filled_memory


@pytest.fixture(autouse=True)
def _poisoned_memory():
    with nan_filled_memory():
        yield
