"""The Triton gather, in the interpreter and compiled for GPUs that need not be there."""

import contextlib
import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from pyseq.kernels.gather_windows import limits
from pyseq.ops import gather_windows
from tests.correctness import served
from tests.kernels.compiled import CAPABILITIES, check_fits, compiled

MODULE = "tests.kernels.test_gather_windows"
DTYPES = (torch.uint16, torch.int32, torch.int64, torch.float32)
SYMBOLS = 9001


def launch_gather(dtype, length):
    from pyseq.kernels.gather_windows.forward import gather_windows_forward

    stream = torch.zeros(SYMBOLS, dtype=torch.uint16)
    gather_windows_forward(stream, torch.arange(40), length, dtype)


LAUNCHES = {
    f"{str(dtype).removeprefix('torch.')}, {length}": partial(launch_gather, dtype, length)
    for dtype in (torch.int64, torch.float32, torch.uint16)
    for length in (3, 257, 3000)
}


@pytest.fixture
def stream():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 65_536, (SYMBOLS,), generator=generator).to(torch.uint16)


def check(stream, offsets, length, dtype) -> None:
    windows = served(gather_windows, "triton")(stream, offsets, length, dtype=dtype)
    assert windows.dtype == dtype
    assert torch.equal(windows, stream.unfold(0, length, 1)[offsets].to(dtype))


# Around a vector (2, 4 or 8 symbols) and a block (1024 or 2048), and what fills several of them.
@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 257, 1023, 1024, 1025, 2048, 2049, 9001])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_indexing(stream, length, dtype):
    last = SYMBOLS - length
    generator = torch.Generator().manual_seed(length)
    offsets = torch.randint(0, last + 1, (13,), generator=generator)
    offsets[0], offsets[-1] = last, last
    check(stream, offsets, length, dtype)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int64])
@pytest.mark.parametrize("first", range(9))
def test_windows_may_start_at_any_symbol(stream, dtype, first):
    """Long windows whose every tile, or none, begins where a wide read fits."""
    check(stream, torch.tensor([first, first + 8, 0, first]), 4096, dtype)


@pytest.mark.parametrize("windows", [1, 2, 7, 8, 9])
def test_windows_share_a_tile(stream, windows):
    """The last tile is full with 8 windows of 256, and ends inside a vector with an odd length."""
    offsets = torch.arange(windows).flip(0) * 999 + 3
    for length in (256, 255):
        check(stream, offsets, length, torch.uint16)


def test_a_slice_of_a_stream_may_begin_anywhere(stream):
    for first in range(1, 9):
        check(stream[first:], torch.tensor([0, 8, 5]), 2500, torch.uint16)


@pytest.mark.parametrize("block", [1024, 2048])
def test_short_windows_are_found_by_multiplying(block):
    """What the kernel takes for column // length, for all columns that a tile can have."""
    for length in range(1, block):
        column = torch.arange(length + block)
        reciprocal = -(-(2**31) // length)
        assert torch.equal((2 * column * reciprocal) >> 32, column // length)


def test_places_past_2_to_the_31_are_counted_in_64_bits(stream, monkeypatch):
    """With the switch that so large a result would set."""
    pytest.importorskip("triton")
    from pyseq.kernels.gather_windows import forward

    kernel, switches = forward.gather_windows_kernel, []

    class Big:
        def __getitem__(self, grid):
            def run(*arguments, **options):
                switches.append(options["IS_BIG"])
                kernel[grid](*arguments, **options | {"IS_BIG": True})

            return run

    monkeypatch.setattr(forward, "gather_windows_kernel", Big())
    for length in (5, 257, 4000):
        check(stream, torch.tensor([0, 17, 5000, 4]), length, torch.int32)
    assert switches == [False] * 3


def test_no_windows():
    stream, none = torch.zeros(9, dtype=torch.uint16), torch.empty(0, dtype=torch.int64)
    assert served(gather_windows, "triton")(stream, none, 7).shape == (0, 7)


def test_launches_on_the_device_of_the_stream(monkeypatch):
    pytest.importorskip("triton")
    from pyseq.kernels.gather_windows import forward

    current, launched_on = [], []

    @contextlib.contextmanager
    def device_of(tensor):
        current.append(tensor)
        yield
        current.pop()

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **kwargs: launched_on.extend(current)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(forward, "gather_windows_kernel", Kernel())
    stream = torch.zeros(9, dtype=torch.uint16)
    forward.gather_windows_forward(stream, torch.tensor([0]), 4, torch.int64)
    assert len(launched_on) == 1
    assert launched_on[0] is stream


def test_refusals_need_no_triton():
    code = """
import sys, torch
from pyseq.kernels.gather_windows import limits
from pyseq.kernels.launch import refuse
print(limits.refuse(4), refuse(torch.zeros(9, dtype=torch.uint16)))
assert "triton" not in sys.modules
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "None the tensors are on cpu, not on cuda", done.stderr


def test_windows_that_are_too_long_to_count_in_are_refused():
    assert limits.LONGEST + limits.LARGEST_BLOCK < 2**31
    assert limits.refuse(limits.LONGEST) is None
    assert limits.refuse(limits.LONGEST + 1) == (
        f"a window of {limits.LONGEST + 1} symbols is longer than {limits.LONGEST},"
        " the kernel's longest"
    )


def test_compiles_for_every_gpu():
    kernels = compiled(MODULE)
    assert len(kernels) == len(CAPABILITIES) * len(LAUNCHES)
    for kernel in kernels:
        check_fits(kernel, tensor_cores=False)
        assert not kernel.loops
        if not kernel.launch.endswith(" 3"):  # whose vectors reach into more than two windows
            assert kernel.shared_bytes == 0, kernel  # every thread writes what it has read


# Symbols per thread, and the most instructions for each of three ways through the kernel together:
# wide reads, single ones, and the ragged end. One takes up to two thirds of them.
@pytest.mark.parametrize(
    ("dtype", "per_thread", "most"), [("int64", 8, 45), ("float32", 16, 30), ("uint16", 16, 25)]
)
def test_reads_and_writes_are_wide(dtype, per_thread, most):
    vector = 16 // {"int64": 8, "float32": 4, "uint16": 2}[dtype]
    wide_read = {2: "LDG.E", 4: "LDG.E.64", 8: "LDG.E.128"}[vector]
    for kernel in compiled(MODULE):
        if not kernel.launch.startswith(dtype) or kernel.launch.endswith(" 3"):
            continue
        found = kernel.operations
        vectors = per_thread // vector
        assert found["STG.E.128"] == 2 * vectors  # after wide and after single reads
        assert found[wide_read] >= vectors
        assert found["LDG.E.U16"] == 2 * per_thread  # and at the ragged end
        # A vector asks for the offsets of two windows, a program for its first one.
        assert found["LDG.E.64"] == 2 * vectors + 1 + vectors * (vector == 4)
        assert sum(found.values()) <= most * per_thread


@pytest.mark.gpu
def test_on_a_gpu():
    stream = torch.randint(0, 65_536, (100_000,)).to(torch.uint16)
    offsets = torch.randint(8, 90_000, (64,))
    expected = gather_windows(stream, offsets, 3000, backend="reference")
    for device in range(torch.cuda.device_count()):  # the current one and others
        there = stream.to(f"cuda:{device}"), offsets.to(f"cuda:{device}")
        for backend in ("triton", "reference"):
            windows = gather_windows(*there, 3000, backend=backend)
            assert windows.device.index == device
            assert torch.equal(windows.cpu(), expected)
        for first in range(1, 9):  # places that are not aligned
            windows = gather_windows(there[0][first:], there[1] - first, 3000, backend="triton")
            assert torch.equal(windows.cpu(), expected)


@pytest.mark.gpu
def test_results_past_2_to_the_31_symbols_on_a_gpu(stream):
    offsets = torch.randint(0, 1000, (2**31 // 8000 + 3,))
    if torch.cuda.mem_get_info()[0] < 3 * 2**32:
        pytest.skip("needs 12 GiB of free GPU memory")
    there = stream.cuda()
    windows = gather_windows(there, offsets.cuda(), 8000, dtype=torch.uint16, backend="triton")
    for row in (0, -1, -2):
        first = int(offsets[row])
        assert torch.equal(windows[row].cpu(), stream[first : first + 8000])
