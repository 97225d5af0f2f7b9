"""MemoryTokens: in front of a causal stack, or read through a gate; no future either way."""

import math

import pytest
import torch

from pyseq.nn import CosineAttention
from pyseq.nn.memory_tokens import MemoryTokens
from tests.correctness import undocumented_parameters


def tokens(count=3, width=16, **options):
    torch.manual_seed(0)
    return MemoryTokens(count, width, **options)


@pytest.mark.parametrize("shape", [(2, 5, 16), (0, 5, 16), (2, 0, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_prefix_stands_in_front(dtype, shape):
    memory = tokens()
    x = torch.randn(shape).to(dtype)
    longer = memory(x)
    assert longer.shape == (shape[0], 3 + shape[1], 16)
    assert longer.dtype == dtype
    for row in longer:
        assert torch.equal(row[:3], memory.tokens.to(dtype))
    assert torch.equal(longer[:, 3:], x)
    assert torch.equal(memory.remove(longer), x)


def test_gate_formula():
    memory = tokens(read="gate").double()
    with torch.no_grad():
        memory.tokens.mul_(50)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    found = memory(x)
    for b in range(2):
        for t in range(5):
            scores = memory.tokens @ memory.query.weight @ x[b, t] / 4
            share = torch.exp(scores) / torch.exp(scores).sum()
            opened = 1 / (1 + torch.exp(-memory.gate.weight[0] @ x[b, t]))
            expected = x[b, t] + opened * (share[:, None] * memory.tokens).sum(0)
            assert torch.allclose(found[b, t], expected, atol=1e-12)
    assert torch.equal(memory.remove(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gate_keeps_the_dtype(dtype):
    memory = tokens(read="gate").to(dtype)
    assert memory(torch.zeros(2, 5, 16, dtype=dtype)).dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert tokens(read="gate")(torch.zeros(2, 5, 16)).dtype == torch.float32


class Stack(torch.nn.Module):
    """Two causal attentions over what the memory makes of a sequence."""

    def __init__(self, read, window=None):
        super().__init__()
        self.memory = tokens(read=read)
        prefix = 3 if read == "prefix" else 0
        self.layers = torch.nn.ModuleList(
            CosineAttention(16, 4, 2, window=window, prefix=prefix) for _ in range(2)
        )

    def forward(self, x):
        x = self.memory(x)
        for attention in self.layers:
            x = x + attention(x)
        return self.memory.remove(x)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("read", ["prefix", "gate"])
def test_the_future_does_not_matter(read, window):
    stack = Stack(read, window)
    x = torch.randn(2, 70, 16)
    before = stack(x)
    assert before.shape == x.shape
    for t in (0, 1, 62, 63, 64, 68):
        changed = x.clone()
        changed[:, t + 1] += 1.0
        after = stack(changed)
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        assert not torch.equal(before[:, t + 1], after[:, t + 1])


def test_gate_reads_position_by_position():
    memory = tokens(read="gate")
    x = torch.randn(2, 70, 16)
    changed = x.clone()
    changed[1, 40] = math.nan
    differs = (memory(x) != memory(changed)).any(-1)
    assert differs.nonzero().tolist() == [[1, 40]]


@pytest.mark.parametrize("window", [None, 1])
def test_every_position_sees_the_prefix(window):
    """Even where a window hides all other positions."""
    stack = Stack("prefix", window)
    x = torch.randn(1, 9, 16)
    before = stack(x)
    with torch.no_grad():
        stack.memory.tokens[0] += 1.0
    assert (before != stack(x)).any(-1).all()


@pytest.mark.parametrize("read", ["prefix", "gate"])
def test_every_parameter_learns(read):
    stack = Stack(read)
    stack(torch.randn(2, 9, 16)).square().sum().backward()
    gradients = {name: p.grad for name, p in stack.memory.named_parameters()}
    reading = {"query.weight", "gate.weight"} if read == "gate" else set()
    assert set(gradients) == {"tokens"} | reading
    assert all((grad != 0).any() for grad in gradients.values())
    assert (gradients["tokens"] != 0).any(-1).all()


def test_tokens_start_small():
    memory = MemoryTokens(200, 100)
    assert memory.tokens.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(memory.tokens.mean().item()) < 1e-3


@pytest.mark.parametrize("read", ["prefix", "gate"])
def test_compiles_whole(read):
    memory = tokens(read=read)
    torch._dynamo.reset()
    compiled = torch.compile(memory, fullgraph=True, backend="aot_eager")
    for T in (7, 5):
        x = torch.randn(2, T, 16)
        found = compiled(x)
        assert torch.allclose(found, memory(x), atol=1e-6)
        found.square().sum().backward()
    assert memory.tokens.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MemoryTokens(0, 16), "0 tokens of width 16; positive sizes fit"),
        (lambda: MemoryTokens(-1, 16), "-1 tokens"),
        (lambda: MemoryTokens(2, 0), "2 tokens of width 0"),
        (lambda: MemoryTokens(2, 4, read="suffix"), "read is 'suffix'; 'prefix' or 'gate' fits"),
        (lambda: tokens()(torch.zeros(2, 5, 8)), r"x has shape \(2, 5, 8\); \(B, T, 16\) fits"),
        (lambda: tokens()(torch.zeros(5, 16)), r"x has shape \(5, 16\)"),
        (lambda: tokens(read="gate")(torch.zeros(2, 1, 1)), r"x has shape \(2, 1, 1\)"),
        (lambda: tokens().remove(torch.zeros(1, 2, 16)), "x has shape .*; at least the 3"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=f"^MemoryTokens: {message}"):
        make()


def test_docstring_names_every_parameter():
    assert undocumented_parameters(MemoryTokens) == []
    assert undocumented_parameters(MemoryTokens.forward) == []
    assert undocumented_parameters(MemoryTokens.remove) == []
