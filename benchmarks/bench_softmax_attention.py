"""softmax_attention of narrow heads, with lengths and dropout, against PyTorch's SDPA.

The first size is a layer of the Transformer of "Rule Extrapolation in Language Models", 128 words
of 257 tokens, padded ones hidden. With a mask and dropout SDPA runs its plain ("math") form on a
CPU. On a GPU plain PyTorch serves, so that there is nothing to compare.

Floor at B=128 H=5 T=257 D=2: half of 640 * 257 * 257 weights, 21 million. A weight costs one
exponential and half a hash each way, some 40 instructions on vectors of 8 with all products: 0.1
billion vector instructions, 20 ms on two cores. Peers hold 169 MB of weights, and move them some
ten times.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import attention, ceilings, dropping
from benchmarks.dropping import Op, Tensors
from benchmarks.harness import Case
from pyseq.ops import softmax_attention

OP = "softmax_attention"
SIZES = [(128, 5, 257, 2), (16, 8, 257, 16)]
QUICK = [(2, 5, 40, 2)]
SHARE = 0.1
SEED = 1
FLOP = 2 * 7 / 2  # of a feature of a weight, with gradients, half of them hidden

Size = tuple[int, int, int, int]  # B, H, T, D


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """Every size in float32, causal, forward and backward together; none on a GPU."""
    if device == "cuda":
        return []
    return [_case(size, quick) for size in (QUICK if quick else SIZES)]


def _case(size: Size, quick: bool) -> Case:
    B, H, T, D = size
    ours: dict[str, Op] = {
        backend: partial(_ours, backend) for backend in attention.backends_on(OP, "cpu", quick)
    }
    peers: dict[str, Op] = {"SDPA": by_pytorch}
    if attention.can_compile("cpu", quick):
        peers["SDPA compiled"] = torch.compile(by_pytorch, dynamic=False)
    tflop = FLOP * B * H * T * T * D / 1e12
    return Case(
        op=OP,
        direction="forward+backward",
        shape=f"B={B} H={H} T={T} D={D} causal lengths dropout={SHARE}",
        dtype="float32",
        inputs=partial(
            dropping.inputs, partial(_tensors, size), ("lengths",), ours["reference"], SHARE
        ),
        contestants=dropping.contestants(ours, peers),
        check=dropping.check,
        unit="TFLOP/s",
        work=tflop,
        ceilings=ceilings.arithmetic("cpu", quick, torch.float32),
        ceiling_work=tflop,
        device="cpu",
    )


def by_pytorch(x: Tensors, dropout: float) -> Tensor:
    """SDPA with a mask for both who comes later and what is padding."""
    T = x["query"].shape[2]
    place = torch.arange(T)
    mask = (place <= place[:, None]) & (place < x["lengths"][:, None, None, None])
    return scaled_dot_product_attention(
        x["query"], x["key"], x["value"], attn_mask=mask, dropout_p=dropout
    )


def _tensors(size: Size, generator: torch.Generator) -> Tensors:
    B, H, T, D = size
    named = ("query", "key", "value")
    # As a joint projection (B, T, H, D) is seen.
    heads = {name: torch.randn(B, T, H, D, generator=generator).transpose(1, 2) for name in named}
    return heads | {"lengths": torch.randint(1, T + 1, (B,), generator=generator)}


def _ours(backend: str, x: Tensors, dropout: float) -> Tensor:
    return softmax_attention(**x, causal=True, dropout=dropout, seed=SEED, backend=backend)
