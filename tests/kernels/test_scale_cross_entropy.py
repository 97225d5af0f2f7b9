"""scale_cross_entropy's kernels compiled for GPUs that need not be there, and their memory."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyseq.kernels.scale_cross_entropy import limits
from tests.kernels.compiled import CAPABILITIES, check_counts, check_fits, compiled

BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32
N, V = 256, 1024  # launches look at whether they are multiples of 16, and at no more


def launch_both(dtype, C, N=N, V=V, bias=True):
    """The launch functions on what a call of the op hands them."""
    from pyseq.kernels.scale_cross_entropy.backward import scale_cross_entropy_backward
    from pyseq.kernels.scale_cross_entropy.forward import scale_cross_entropy_forward

    inputs = [torch.empty(*shape, dtype=dtype) for shape in ((N, C), (V, C), (V,))]
    inputs[2] = inputs[2] if bias else None
    targets, scales = torch.zeros(N, dtype=torch.int64), [1, 16]
    losses, masses = scale_cross_entropy_forward(*inputs, targets, scales)
    needs = [True, True, bias]
    scale_cross_entropy_backward(losses, *inputs, targets, masses, scales, needs)


# Every tile choice for each GPU; float16 takes bfloat16's. 1000 symbols and widths of 80 and 81 are
# ragged: their masks need registers too.
LAUNCHES = {
    "bfloat16-C1024": partial(launch_both, BFLOAT16, 1024),
    "bfloat16-C80-V1000": partial(launch_both, BFLOAT16, 80, V=1000, bias=False),
    "bfloat16-C32": partial(launch_both, BFLOAT16, 32),
    "float16-C32-N20": partial(launch_both, FLOAT16, 32, 20),
    "float32-C81-V1000": partial(launch_both, FLOAT32, 81, V=1000),
    "float32-C256-N20": partial(launch_both, FLOAT32, 256, 20),
}
KERNELS = 6  # of both directions; those of bins are launched in both, one scale after the other


def test_compiles_for_every_gpu():
    kernels = compiled(__name__)
    for kernel in kernels:
        products = kernel.kernel not in ("bins_kernel", "merge_kernel")
        check_fits(kernel, tensor_cores=products and "float32" not in kernel.launch)
    assert {kernel.capability for kernel in kernels} == set(CAPABILITIES)
    assert len({kernel.kernel for kernel in kernels}) == KERNELS


def test_logits_come_from_one_kind_of_instruction():
    """Kinds round differently: a loss would be a difference of masses that do not match."""
    kinds = {}
    for kernel in compiled(__name__):
        if kernel.kernel in ("scale_cross_entropy_forward_kernel", "bin_masses_kernel"):
            found = frozenset(name.split(".")[0] for name in kernel.operations if "MMA" in name)
            kinds.setdefault((kernel.launch, kernel.capability), set()).add(found)
    assert kinds
    assert all(len(found) == 1 for found in kinds.values()), kinds


def test_counts():
    check_counts(__name__)


ROWS = [1, 31, 33, 1000, 16384, 16385, 10**6]
SYMBOLS = [2, 255, 4096, 10001, 65536, 10**6]


@pytest.mark.parametrize("itemsize", [2, 4])
def test_chunks_are_bounded_whatever_the_sizes(itemsize):
    for rows in ROWS:
        for symbols in SYMBOLS:
            high, wide = limits.chunk(rows, symbols, itemsize)
            assert 1 <= high <= rows
            assert 1 <= wide <= symbols
            assert high * wide * itemsize <= limits.CHUNK_BYTES
            assert wide <= limits.MOST_COLUMNS


def test_a_chunk_has_all_rows_while_they_fit():
    assert limits.chunk(16384, 65536, 2) == (16384, 4096)
    assert limits.chunk(1, 65536, 2) == (1, 16384)
    assert limits.chunk(10**6, 65536, 2) == (16384, 4096)
    assert limits.chunk(100, 50, 4) == (100, 50)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_splits_cover_the_alphabet(capability, dtype):
    for rows in ROWS:
        tiles = limits.tiles(rows, 64, dtype, capability)
        for symbols in SYMBOLS:
            splits, each = limits.splits(rows, symbols, tiles)
            assert (splits - 1) * each * tiles.block_v < symbols <= splits * each * tiles.block_v
            # Partial sums take no more than those of a full GPU, or than the losses.
            assert splits * rows <= max(rows, (limits.PROGRAMS + 1) * tiles.block_n + rows)


class Allocations(TorchDispatchMode):
    """Bytes of all memory that anything asks for, freed again or not."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and storage(x) not in given:
                self.bytes += x.untyped_storage().nbytes()
        return out


def storage(x):
    return x.untyped_storage()._cdata


def test_memory_of_the_largest_case(monkeypatch):
    """16384 rows, 65536 symbols, with tensors that have no memory: 15 % of the peer's logits."""
    pytest.importorskip("triton")
    from triton.runtime.jit import KernelInterface

    from pyseq.kernels.scale_cross_entropy import backward

    monkeypatch.setattr(KernelInterface, "__getitem__", lambda *_: lambda *_, **__: None)
    # As cuBLAS does: into the sums, without a copy in between.
    monkeypatch.setattr(backward, "add_product", lambda *_, **__: None)
    rows, symbols, width = 16384, 65536, 1024
    hidden, weight = (torch.empty(n, width, dtype=BFLOAT16, device="meta") for n in (rows, symbols))
    targets, scales = torch.empty(rows, dtype=torch.int64, device="meta"), [1, 16, 256]
    inputs = (hidden, weight, None, targets)
    from pyseq.kernels.scale_cross_entropy.forward import scale_cross_entropy_forward

    with Allocations() as forward_pass:
        losses, masses = scale_cross_entropy_forward(*inputs, scales)
    with Allocations() as backward_pass:
        grads = backward.scale_cross_entropy_backward(
            losses, *inputs, masses, scales, [True, True, False]
        )
    assert grads[0].shape == hidden.shape
    assert grads[1].shape == weight.shape
    peer = 2 * rows * symbols * 2  # bfloat16 logits and their gradient
    assert forward_pass.bytes < 0.001 * peer
    narrow = hidden.nbytes  # the gradient in hidden's dtype, which the op makes at the end
    inputs_bytes = hidden.nbytes + weight.nbytes
    assert limits.CHUNK_BYTES < backward_pass.bytes + narrow < 0.15 * peer - inputs_bytes
