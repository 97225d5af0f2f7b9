"""The tables of RotaryEmbedding."""

import copy
import math
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyseq.nn import RotaryEmbedding
from tests.correctness import undocumented_parameters


def test_angles():
    cos, sin = RotaryEmbedding(6, base=100.0)(5)
    assert cos.shape == sin.shape == (5, 3)
    assert cos.dtype == sin.dtype == torch.float32
    for position in range(5):
        for pair in range(3):
            angle = position * 100.0 ** (-2 * pair / 6)
            assert cos[position, pair].item() == pytest.approx(math.cos(angle), abs=1e-6)
            assert sin[position, pair].item() == pytest.approx(math.sin(angle), abs=1e-6)


def test_offset_and_growth_keep_the_rows():
    rope = RotaryEmbedding(8)
    early = rope(4)
    late = rope(10, offset=50)
    whole = RotaryEmbedding(8)(60)
    for a, b, c in zip(early, late, whole, strict=True):
        assert torch.equal(a, c[:4])
        assert torch.equal(b, c[50:])


def test_far_positions_are_exact():
    cos, _ = RotaryEmbedding(4)(1, offset=131_071)
    assert cos[0, 0].item() == pytest.approx(math.cos(131_071), abs=1e-6)


def test_tables_are_kept_but_not_saved():
    rope = RotaryEmbedding(8)
    assert rope(16)[0].data_ptr() == rope(9)[0].data_ptr()
    assert rope.state_dict() == {}
    assert rope.bfloat16()(16)[0].dtype == torch.float32
    assert rope(4, device="meta")[0].device.type == "meta"
    assert rope(4)[0].device.type == "cpu"


def test_tables_made_in_inference_mode_serve_training():
    rope = RotaryEmbedding(8)
    with torch.inference_mode():
        rope(16)
    assert not rope(16)[0].is_inference()


def test_compiles_whole_and_grows():
    rope = RotaryEmbedding(8)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x * rope(x.shape[0])[0], fullgraph=True, backend="aot_eager")
    for count in (3, 5, 70, 4):
        x = torch.randn(count, 4)
        assert torch.equal(compiled(x), x * RotaryEmbedding(8)(count)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RotaryEmbedding(7), "head_dim is 7; a positive even number fits"),
        (lambda: RotaryEmbedding(0), "head_dim is 0"),
        (lambda: RotaryEmbedding(8, base=1.0), "base is 1.0; a number above 1 fits"),
        (lambda: RotaryEmbedding(8)(-1), "-1 positions from 0; numbers from 0 up fit"),
        (lambda: RotaryEmbedding(8)(4, offset=-2), "4 positions from -2"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=f"^RotaryEmbedding: {message}"):
        make()


def test_docstring_names_every_parameter():
    assert undocumented_parameters(RotaryEmbedding) == []
    assert undocumented_parameters(RotaryEmbedding.forward) == []


def test_tables_of_a_fake_mode_do_not_outlive_it():
    rope = RotaryEmbedding(8)
    with FakeTensorMode():
        rope(40)
    cos, _ = rope(4)
    assert type(cos) is torch.Tensor
    assert cos[0].tolist() == [1.0] * 4


def test_tables_of_two_devices_are_kept_and_neither_pickled_nor_copied():
    rope = RotaryEmbedding(8)
    on_cpu, on_meta = rope(10)[0], rope(10, device="meta")[0]
    assert rope(10)[0].data_ptr() == on_cpu.data_ptr()
    assert on_meta.device.type == "meta"
    rope(20000)
    assert len(pickle.dumps(rope)) < 5000
    assert torch.equal(copy.deepcopy(rope)(10)[0], on_cpu)
