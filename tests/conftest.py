"""Settings and fixtures for all tests."""

import os
import signal
import zlib

import pytest

# Threads that wait for each other many times a step make small trainings crawl on a busy machine;
# the tests that are about threads ask for them. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # only here, after the environment is set

from tests import interpreter

# Without a GPU, Triton's kernels run in its interpreter. Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    interpreter.hasten()

# A shell starts background jobs with Ctrl-C ignored, which the trainings of the tests would inherit
# and, as they should, keep.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--triton-share",
        default="0/1",
        metavar="I/N",
        help="of the tests that run Triton kernels one of N shares; compiling all takes long",
    )


def pytest_collection_modifyitems(config, items):
    share, shares = map(int, config.getoption("--triton-share").split("/"))

    def wanted(item) -> bool:
        of_triton = "triton" in item.nodeid and item.get_closest_marker("gpu") is None
        # Not every N-th, which might all have the same dtype.
        return not of_triton or zlib.crc32(item.nodeid.encode()) % shares == share

    left_out = [item for item in items if not wanted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if wanted(item)]


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "gpu: needs a GPU; without one it is skipped, or with PYSEQ_REQUIRE_CUDA=1 fails"
    )


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is None or torch.cuda.is_available():
        return
    if os.environ.get("PYSEQ_REQUIRE_CUDA", "0") != "0":
        pytest.fail("PYSEQ_REQUIRE_CUDA is set, and torch can use no GPU", pytrace=False)
    pytest.skip("needs a GPU")


@pytest.fixture
def four_threads():
    """As many as a gather of 4 * 2^16 symbols keeps busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)
