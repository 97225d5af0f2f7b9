"""Settings and fixtures for all tests."""

import os
import signal

import pytest

# Threads that wait for each other many times a step make small trainings crawl on a busy machine;
# the tests that are about threads ask for them. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with Ctrl-C ignored, which the trainings of the tests would inherit
# and, as they should, keep.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def four_threads():
    """As many as a gather of 4 * 2^16 symbols keeps busy."""
    import torch  # only here, after the environment is set

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)
