"""The benchmark of the training step refuses steps that are not the model's."""

import pytest
import torch

from benchmarks import bench_training_step as bench
from benchmarks.harness import WrongAnswer


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def inputs(request):
    with bench._inputs(bench.QUICK, request.param, "cpu") as inputs:
        yield inputs


def follow(inputs, step) -> None:
    for _ in range(bench.CHECKED_STEPS + 1):
        bench.check(inputs, step())


@pytest.mark.parametrize("attention", ["cosine_attention reference", "SDPA"])
def test_both_models_follow_float64(inputs, attention):
    assert inputs.losses == sorted(inputs.losses, reverse=True)
    follow(inputs, bench._step(attention, False, inputs))


def test_attention_that_sees_the_future_is_refused(inputs, monkeypatch):
    real = torch.nn.functional.scaled_dot_product_attention

    def full(*tensors, is_causal, **options):
        return real(*tensors, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", full)
    with pytest.raises(WrongAnswer, match="float64"):
        follow(inputs, bench._step("SDPA", False, inputs))


def test_a_step_that_does_not_train_is_refused(inputs, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    with pytest.raises(WrongAnswer, match="after 1 steps"):
        follow(inputs, bench._step("SDPA", False, inputs))


def test_a_model_that_forgets_again_is_refused(inputs):
    with pytest.raises(WrongAnswer, match="it began at"):
        bench.check(inputs, (bench.CHECKED_STEPS, torch.tensor(inputs.losses[0] + 1), None))


def test_the_reference_always_serves():
    assert "reference" in bench.serving_backends("cpu")
