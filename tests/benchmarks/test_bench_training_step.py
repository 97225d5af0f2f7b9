"""The benchmark of the training step refuses steps that are not the model's."""

from dataclasses import replace

import pytest
import torch

from benchmarks import bench_training_step as bench
from benchmarks.harness import WrongAnswer

SUPERCHARGED = bench.QUICK_SUPERCHARGED
SIZES = [bench.QUICK, SUPERCHARGED, SUPERCHARGED.soft(), SUPERCHARGED.baseline()]
SDPA = bench.Way(bench.QUICK, "SDPA")


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def inputs(request):
    with bench._inputs(SIZES, request.param, "cpu") as inputs:
        yield inputs


def follow(inputs, step) -> None:
    for _ in range(bench.CHECKED_STEPS + 1):
        bench.check(inputs, step())


@pytest.mark.parametrize("layers", ["reference", "native", "SDPA"])
@pytest.mark.parametrize("size", SIZES, ids=["baseline", "supercharged", "soft", "as large"])
def test_every_model_follows_float64(inputs, size, layers):
    if layers == "SDPA" and size is SUPERCHARGED:
        pytest.skip("PyTorch has no hard attention")
    losses = inputs.truths[size].losses
    assert losses == sorted(losses, reverse=True)
    follow(inputs, bench._step(bench.Way(size, layers), inputs))


def test_the_baseline_is_as_large():
    wanted, found = map(bench.parameters, (SUPERCHARGED, SUPERCHARGED.baseline()))
    assert 0 <= found - wanted < 0.02 * wanted


def test_soft_attention_is_no_hard_attention(inputs):
    soft = bench.Way(SUPERCHARGED.soft(), "SDPA")
    of_hard = replace(inputs.truths[SUPERCHARGED], exact=True)
    inputs = replace(inputs, truths={soft.size: of_hard})
    with pytest.raises(WrongAnswer, match="float64"):
        follow(inputs, bench._step(soft, inputs))


def test_attention_that_sees_the_future_is_refused(inputs, monkeypatch):
    real = torch.nn.functional.scaled_dot_product_attention

    def full(*tensors, is_causal, **options):
        return real(*tensors, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", full)
    with pytest.raises(WrongAnswer, match="float64"):
        follow(inputs, bench._step(SDPA, inputs))


def test_a_step_that_does_not_train_is_refused(inputs, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    with pytest.raises(WrongAnswer, match="after 1 steps"):
        follow(inputs, bench._step(SDPA, inputs))


def test_a_model_that_forgets_again_is_refused(inputs):
    loss = torch.tensor(inputs.truths[bench.QUICK].losses[0] + 1)
    with pytest.raises(WrongAnswer, match="it began at"):
        bench.check(inputs, bench.Step(bench.QUICK, bench.CHECKED_STEPS, loss, None))


def test_the_reference_always_serves():
    assert "reference" in bench.serving_backends("cpu")
