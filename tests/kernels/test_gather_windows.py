"""The Triton gather, in the interpreter and compiled for GPUs that need not be there."""

import contextlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

INTERPRETED = """
import torch
from pyseq.kernels.gather_windows.forward import BLOCK, gather_windows_forward
stream = torch.randint(0, 65536, (5000,)).to(torch.uint16)
for length in (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3):
    offsets = torch.randint(0, 5000 - length, (4,))
    offsets[0], offsets[1] = 0, 5000 - length
    for dtype in (torch.uint16, torch.int32, torch.int64, torch.float32):
        windows = gather_windows_forward(stream, offsets, length, dtype)
        assert windows.dtype == dtype
        assert torch.equal(windows, stream.unfold(0, length, 1)[offsets].to(dtype)), (length, dtype)
empty = gather_windows_forward(stream, torch.empty(0, dtype=torch.int64), 7, torch.int64)
assert empty.shape == (0, 7)
print("equal")
"""


def test_interpreter_equals_indexing():
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "equal", done.stderr


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
from pyseq.kernels.gather_windows.limits import refuse
print(refuse(torch.zeros(9, dtype=torch.uint16), 4))
assert "triton" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "the stream is on cpu, not on cuda", done.stderr


def test_windows_that_no_grid_holds_are_refused():
    from pyseq.kernels.gather_windows.limits import LONGEST, refuse

    on_gpu = SimpleNamespace(device=torch.device("cuda", 0))
    assert refuse(on_gpu, LONGEST) is None
    assert refuse(on_gpu, LONGEST + 1) == (
        "a window of 67107841 symbols is longer than 67107840, the kernel's longest"
    )


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("out", ["*i64", "*u16", "*fp32"])
def test_compiles_without_spills(capability, out):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pyseq.kernels.gather_windows.forward import BLOCK, gather_windows_kernel

    signature = {
        "stream_ptr": "*u16",
        "offsets_ptr": "*i64",
        "out_ptr": out,
        "length": "i32",
        "BLOCK": "constexpr",
    }
    source = ASTSource(gather_windows_kernel, signature, constexprs={"BLOCK": BLOCK})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert ".target sm_" + str(capability) in compiled.asm["ptx"]
    assert ".local" not in compiled.asm["ptx"]  # where spilled registers would go
    assert "ld.global" in compiled.asm["ptx"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    from pyseq.ops import gather_windows

    stream = torch.randint(0, 65_536, (100_000,)).to(torch.uint16)
    offsets = torch.randint(0, 90_000, (64,))
    expected = gather_windows(stream, offsets, 3000, backend="reference")
    for device in range(torch.cuda.device_count()):  # the current one and others
        there = stream.to(f"cuda:{device}"), offsets.to(f"cuda:{device}")
        windows = gather_windows(*there, 3000, backend="triton")
        assert windows.device.index == device
        assert torch.equal(windows.cpu(), expected)
