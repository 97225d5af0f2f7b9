"""The benchmarks of the ops: every contestant meets the rule first, and a wrong one is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import attention, correct, graphs, registry
from benchmarks.harness import Case, Settings, WrongAnswer, measure
from pyseq.ops import backends

OPS = sorted(set(backends.SERVED_BY) - {"gather_windows"})  # which compares every symbol
SETTINGS = Settings(rounds=1, sample_seconds=1e-9, warmup_seconds=0.0)


def quick_cases(op: str, device: str = "cpu") -> list[Case]:
    return registry.cases(op, quick=True, device=device)


def in_float32(op: str) -> list[Case]:
    """One case of each direction; what the interpreter makes of bfloat16 is wrong by design."""
    found = {case.direction: case for case in quick_cases(op) if case.dtype == "float32"}
    return list(found.values())


def test_every_op_has_a_benchmark():
    assert set(backends.SERVED_BY) <= set(registry.known())
    with_kernels = {op for op, served in backends.SERVED_BY.items() if "triton" in served}
    assert with_kernels <= set(registry.on_gpu())
    assert all(registry.cases(op, device="cuda") == [] for op in registry.CPU_ONLY)


@pytest.mark.parametrize("op", OPS)
def test_ours_and_the_peers_agree_with_float64(op):
    for case in in_float32(op):
        quickest = [c for c in case.contestants if not c.name.startswith("triton")]
        measurement = measure(replace(case, contestants=quickest, ceilings=[]), SETTINGS)
        assert measurement.left_out == {}
        assert {timing.role for timing in measurement.timings} >= {"contestant"}


@pytest.mark.parametrize("op", OPS)
def test_triton_takes_part_and_is_right(op):
    if "triton" not in backends.SERVED_BY[op]:
        pytest.skip("no kernel yet")
    case = in_float32(op)[0]
    ours = [c for c in case.contestants if c.name.startswith("triton")]
    assert ours
    measurement = measure(replace(case, contestants=ours[:1], ceilings=[]), SETTINGS)
    assert measurement.left_out == {}


@pytest.mark.parametrize("op", OPS)
def test_a_result_that_is_off_anywhere_in_what_is_compared_is_refused(op):
    for case in in_float32(op):
        with case.inputs() as inputs:
            [reference] = [c for c in case.contestants if c.name == "reference"]
            result = reference.make(inputs)()
            case.check(inputs, result)
            number, found = result if isinstance(result, tuple) else (None, result)
            for name, x in found.items():
                wrong = {**found, name: spoiled(x)}
                with pytest.raises(WrongAnswer):
                    case.check(inputs, wrong if number is None else (number, wrong))


def spoiled(x: torch.Tensor) -> torch.Tensor:
    """x with its last element 1 % of the largest off; the next index."""
    wrong = x.clone(memory_format=torch.contiguous_format)
    last = wrong.view(-1)[-1:]
    last += 1 if x.dtype == torch.int64 else 0.01 * x.abs().max()
    return wrong


def test_a_result_that_is_not_finite_or_lacks_a_part_is_refused():
    exact = torch.ones(2, 3, dtype=torch.float64)
    expected = correct.truths({"a": exact}, {"a": exact}, torch.float32)
    correct.check(expected, {"a": torch.ones(2, 3)})
    correct.check(expected, {"a": torch.ones(2, 3), "b": torch.ones(1)})
    for wrong in ({"b": torch.ones(2, 3)}, {"a": torch.ones(3)}, {"a": torch.full((2, 3), 1.001)}):
        with pytest.raises(WrongAnswer):
            correct.check(expected, wrong)
    with pytest.raises(WrongAnswer, match="not finite"):
        correct.check(expected, {"a": torch.ones(2, 3), "b": torch.tensor(torch.nan)})


def test_the_rule_is_that_of_the_tests():
    exact = torch.tensor([3.0, -4.0], dtype=torch.float64)
    truth = correct.Truth.of(exact, exact + 0.25, torch.bfloat16)
    assert truth.allowed == pytest.approx(2 * 0.25 + 4 * 2**-7 * 4)
    loose = correct.Truth.of(exact + 1, exact + 2, torch.bfloat16)
    [kept] = correct.over_draws([{"a": truth}, {"a": loose}]).values()
    assert kept.exact is exact
    assert kept.allowed == loose.allowed


@pytest.mark.parametrize("op", sorted(backends.SERVED_BY))
def test_cases_for_a_gpu_can_be_listed_without_one(op):
    for quick in (True, False):
        for case in registry.cases(op, quick=quick, device="cuda"):
            assert case.device == "cuda"
            ours = [c.name for c in case.contestants if not c.peer]
            assert ours
            assert all(name.startswith("triton") for name in ours)
            assert len({c.name for c in case.contestants}) == len(case.contestants)


def test_the_shapes_of_the_specification_are_timed_on_a_gpu():
    def shapes(op):
        return {(c.direction, c.shape, c.dtype) for c in registry.cases(op, device="cuda")}

    wanted = [
        (direction, f"B=4 H=32 G=8 T=8192 D={D} {mask}", "bfloat16")
        for direction in ("forward", "forward+backward")
        for D in (64, 128)
        for mask in ("full", "causal")
    ]
    assert set(wanted) <= shapes("cosine_attention")
    assert {case for case in wanted if case[0] == "forward"} <= shapes("hard_attention")
    assert {f"B={B} T=65536 P=16 C=512" for B in (2, 64)} == {
        s for _, s, _ in shapes("patch_embed")
    }
    assert "B=1 H=32 G=8 T=1 S=65536 D=128" in {s for _, s, _ in shapes("cosine_decode")}
    assert ("forward+backward", "tokens=16384 C=1024 V=65536 scales=1", "bfloat16") in shapes(
        "scale_cross_entropy"
    )


def test_work_is_counted_as_the_specification_counts_it():
    shape = attention.Shape(4, 32, 8, 8192, 128, causal=False)
    assert shape.tflop == pytest.approx(4 * 4 * 32 * 8192 * 8192 * 128 / 1e12)
    assert replace(shape, causal=True).tflop == pytest.approx(shape.tflop / 2)


def test_the_sampled_heads_are_those_of_the_first_and_the_last_key_head():
    shape = attention.Shape(B=2, H=6, G=3, T=4, D=2, causal=True)
    heads = torch.arange(6).view(1, 6, 1, 1).expand(2, 6, 4, 2)
    assert attention.sampled(shape, "output", heads)[0, :, 0, 0].tolist() == [0, 1, 4, 5]
    assert attention.sampled(shape, "key", heads[:, :3])[0, :, 0, 0].tolist() == [0, 2]
    assert attention.sampled(shape, "scale", torch.arange(6)).tolist() == [0, 1, 4, 5]


def test_on_the_cpu_calls_take_turns():
    call = graphs.each_set(lambda x: {"double": 2 * x}, [(1,), (2,)], "cpu")
    assert [call() for _ in range(3)] == [
        (0, {"double": 2}),
        (1, {"double": 4}),
        (0, {"double": 2}),
    ]


@pytest.mark.parametrize("shared", [True, False])
def test_a_backend_that_knows_no_shared_heads_gets_expanded_ones_and_says_so(shared, monkeypatch):
    monkeypatch.setattr(attention, "_knows_shared_heads", lambda backend, given: shared)
    shape = attention.Shape(B=1, H=4, G=2, T=8, D=16, causal=True)

    def plain(given, query, key, scale):
        return query, key

    [build] = attention.sdpa_peers("cpu", plain, 0.25).values()
    with attention.inputs(shape, torch.float32, "cpu") as given:
        call = attention.forward(build(given), given)
        expected = torch.nn.functional.scaled_dot_product_attention(
            given.query, given.key, given.value, is_causal=True, scale=0.25, enable_gqa=True
        )
        torch.testing.assert_close(call()["output"], expected)
    assert call.note == ("" if shared else ", heads expanded")


def test_sums_one_after_the_other_have_the_room_that_rounding_takes():
    """A million terms, as a peer adds them that keeps one sum; wrong ones are still refused."""
    terms = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0))
    exact = {"sum": terms.double().sum()[None], "other": torch.ones(1)}
    in_order = torch.tensor([np.add.accumulate(terms.numpy())[-1]])
    truths = correct.truths(
        exact, {"sum": terms.sum()[None], "other": torch.ones(1)}, torch.float32
    )
    result = {"sum": in_order, "other": torch.ones(1)}
    with pytest.raises(WrongAnswer, match="sum is"):
        correct.check(truths, result)
    loose = correct.with_plain_sums(truths, {"sum": len(terms)})
    assert loose["other"] == truths["other"]
    correct.check(loose, result)
    with pytest.raises(WrongAnswer, match="sum is"):
        correct.check(loose, result | {"sum": in_order * 1.001})
