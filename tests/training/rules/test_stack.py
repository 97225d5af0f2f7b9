"""A stack of seeds learns what the seeds learn alone, whoever leaves it."""

import dataclasses

import pytest
import torch

from pyseq.models.rules import load_stack
from pyseq.training.rules import history as history_module
from pyseq.training.rules.run import train_rules
from pyseq.training.rules.stack import clip_gradients, gradient_norms, keep_optimizer_state
from tests.training.rules.small_rules import rules_config, timeless, weights

OPTIONS = {
    "published": {},
    "clipped": {"clip": 0.05},
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "augmented": {"augment": 0.3, "label_smoothing": 0.1, "focal_gamma": 1.0},
    "counting": {"auxiliary_weight": 0.5},
    "oracle": {"oracle": True},
    "multi-task": {"multi_task": ("aNbN", "Dyck"), "num_train": 30},
}


# The linear model has no hidden state to count with; test_strategies says so.
CASES = [(model, name) for model in ("transformer", "lstm", "linear") for name in OPTIONS
         if (model, name) != ("linear", "counting")]  # fmt: skip


@pytest.mark.parametrize(("model", "options"), CASES)
def test_a_stack_of_two_seeds_learns_what_two_runs_learn(tmp_path, model, options):
    settings = {"grammar": "baN", "model": model, **OPTIONS[options]}
    stack = train_rules(rules_config(tmp_path, "stack", **settings), told=False)
    held = log_probabilities(tmp_path / "stack" / "last.pt")
    for place in (0, 1):
        alone = rules_config(tmp_path, f"alone{place}", **settings, first_seed=place, seeds=1)
        single = train_rules(alone, told=False)
        # Weights would not do: a bias of all keys changes no softmax, so that its gradient is
        # rounding alone, which Adam scales up.
        expected = log_probabilities(tmp_path / f"alone{place}" / "last.pt")[0]
        torch.testing.assert_close(held[place], expected, rtol=0, atol=1e-5)
        for ours, theirs in zip(stack.histories[place], single.histories[0], strict=True):
            assert ours["step"] == theirs["step"]
            for name in ("train_loss", "validation_loss", "grad_norm"):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-5)
    assert not torch.allclose(held[0], held[1], atol=1e-2)


def log_probabilities(path) -> torch.Tensor:
    """What each seed of a model file says to some tokens, (S, 3, 8, classes)."""
    model, _ = load_stack(path)
    tokens = torch.tensor(
        [[0, 3, 3, 3, 3, 3, 3, 3], [0, 4, 3, 4, 3, 4, 3, 4], [0, 4, 1, 2, 2, 2, 2, 2]]
    )
    with torch.no_grad():
        return model(tokens.expand(model.seeds, -1, -1)).log_softmax(-1)


def scripted(monkeypatch, losses: dict[int, list[float]]):
    """Let validations find these losses, seed by seed, in place of the measured ones."""
    before = history_module.History.on_validation_end

    def on_validation_end(self, trainer, module):
        for row in module.measured:
            row["validation_loss"] = losses[row["seed"]].pop(0)
        before(self, trainer, module)

    monkeypatch.setattr(history_module.History, "on_validation_end", on_validation_end)


def test_a_seed_without_progress_leaves_and_the_other_goes_on_as_if_alone(tmp_path, monkeypatch):
    alone = rules_config(tmp_path, "alone", first_seed=1, seeds=1, grammar="baN", patience=0)
    train_rules(alone, told=False)
    expected = weights(tmp_path / "alone" / "last.pt")
    scripted(monkeypatch, {0: [0.5, 0.6, 0.7], 1: [0.9, 0.8, 0.7, 0.6], 2: [0.5, 0.4, 0.3, 0.2]})
    config = rules_config(tmp_path, "stack", seeds=3, grammar="baN", patience=2)
    record = train_rules(config, told=False)
    assert record.stops == ["patience", "max_steps", "max_steps"]
    assert [[row["step"] for row in rows] for rows in record.histories] == [
        [6, 12, 18], [6, 12, 18, 24], [6, 12, 18, 24],
    ]  # fmt: skip
    last, best = weights(tmp_path / "stack" / "last.pt"), weights(tmp_path / "stack" / "model.pt")
    for name, tensor in expected.items():
        torch.testing.assert_close(last[name][1], tensor[0], rtol=0, atol=1e-5)
        assert torch.equal(best[name][1:], last[name][1:])  # their last losses were the lowest
    assert not torch.equal(best["embedding.weight"][0], last["embedding.weight"][0])


def test_a_seed_keeps_the_weights_of_its_lowest_loss(tmp_path, monkeypatch):
    short = rules_config(tmp_path, "short", max_steps=12, schedule="constant")
    train_rules(short, told=False)
    scripted(monkeypatch, {0: [0.5, 0.4, 0.6, 0.7], 1: [0.5, 0.4, 0.45, 0.4]})
    train_rules(rules_config(tmp_path, "long", schedule="constant"), told=False)
    best = weights(tmp_path / "long" / "model.pt")
    for name, tensor in weights(tmp_path / "short" / "last.pt").items():
        assert torch.equal(best[name], tensor)


def test_when_all_seeds_have_left_the_training_ends(tmp_path, monkeypatch):
    scripted(monkeypatch, {0: [0.5, 0.6, 0.6], 1: [0.5, 0.6, 0.6]})
    record = train_rules(rules_config(tmp_path, patience=2), told=False)
    assert record.stops == ["patience", "patience"]
    assert timeless(tmp_path / "run")[-1]["step"] == 18


def test_a_seed_whose_loss_is_not_finite_leaves_at_once(tmp_path, monkeypatch):
    scripted(monkeypatch, {0: [0.5, float("nan")], 1: [0.5, 0.4, 0.3, 0.2]})
    record = train_rules(rules_config(tmp_path), told=False)
    assert record.histories[0][-1] == record.histories[0][1]
    assert record.histories[0][1]["validation_loss"] is None
    assert len(record.histories[1]) == 4
    assert all(torch.isfinite(t).all() for t in weights(tmp_path / "run" / "model.pt").values())


def test_clipping_is_each_seeds_own():
    stack = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2, 2, 2))]
    stack[0].grad = torch.tensor([[3.0, 0, 0], [0.3, 0, 0]])
    stack[1].grad = torch.tensor([[[4.0, 0], [0, 0]], [[0.4, 0], [0, 0]]])
    norms = gradient_norms(stack)
    torch.testing.assert_close(norms, torch.tensor([5.0, 0.5]))
    clip_gradients(stack, norms, 1.0)
    torch.testing.assert_close(gradient_norms(stack), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(stack[0].grad[1], torch.tensor([0.3, 0, 0]))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_the_optimizer_keeps_the_moments_of_those_that_stay(kind):
    options = {"lr": 0.1, "momentum": 0.9} if kind is torch.optim.SGD else {"lr": 0.1}
    parameter = torch.nn.Parameter(torch.randn(3, 4))
    optimizer = kind([parameter], **options)
    parameter.grad = torch.randn(3, 4)
    optimizer.step()
    before = {k: v.clone() for k, v in optimizer.state[parameter].items() if torch.is_tensor(v)}
    parameter.data = parameter.data[[2, 0]]
    keep_optimizer_state(optimizer, [2, 0], 3)
    moments = [name for name, value in before.items() if value.dim()]
    assert moments
    for name in moments:
        assert torch.equal(optimizer.state[parameter][name], before[name][[2, 0]])
    parameter.grad = torch.randn(2, 4)
    optimizer.step()


def test_the_model_files_say_what_they_are_of(tmp_path):
    config = rules_config(tmp_path, grammar="L3", max_steps=6)
    train_rules(config, told=False)
    model, metadata = load_stack(tmp_path / "run" / "model.pt")
    assert model.seed_numbers == (0, 1)
    assert (metadata["grammar"], metadata["seeds"]) == ("aNbN", [0, 1])
    assert metadata["training"]["max_length"] == 12
    assert metadata["weights"] == "lowest validation loss"
    assert load_stack(tmp_path / "run" / "last.pt")[1]["weights"] == "last"
    assert dataclasses.asdict(model.config) == dataclasses.asdict(config.lstm)


def test_the_norm_is_that_of_the_last_step_also_where_the_training_ends_between(tmp_path):
    base = {"max_steps": 7, "grammar": "baN", "schedule": "constant"}
    every = train_rules(rules_config(tmp_path, "every", validate_every=1, **base), told=False)
    ends = train_rules(rules_config(tmp_path, "ends", validate_every=5, **base), told=False)
    for all_rows, rows in zip(every.histories, ends.histories, strict=True):
        assert [row["step"] for row in rows] == [5, 7]
        norms = {row["step"]: row["grad_norm"] for row in all_rows}
        assert [row["grad_norm"] for row in rows] == pytest.approx([norms[5], norms[7]])
    clipped = train_rules(
        rules_config(tmp_path, "clipped", validate_every=5, clip=1e3, **base), told=False
    )
    assert [row["grad_norm"] for row in clipped.histories[0]] == pytest.approx(
        [row["grad_norm"] for row in ends.histories[0]]
    )
    late = train_rules(rules_config(tmp_path, "late", max_time=1e-9, **base), told=False)
    assert late.histories[0][-1]["grad_norm"] > 0


def test_a_seed_that_diverges_is_called_that(tmp_path, monkeypatch):
    scripted(monkeypatch, {0: [0.5, float("nan")], 1: [0.5, 0.4, 0.3, 0.2]})
    record = train_rules(rules_config(tmp_path), told=False)
    assert record.stops == ["diverged", "max_steps"]
    assert record.complete
