"""The Triton gather, in the interpreter and compiled for GPUs that need not be there."""

import subprocess
import sys

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
        env={**__import__("os").environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "equal", done.stderr


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
    windows = gather_windows(stream.cuda(), offsets.cuda(), 3000, backend="triton")
    assert torch.equal(windows.cpu(), expected)
