"""Each strategy does what its flag says, seen in what is trained and in what comes of it."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from pyseq.errors import UserError
from pyseq.models.rules import LSTMConfig, load_stack
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.evaluate import evaluate_rules
from pyseq.training.rules.module import RuleTraining
from pyseq.training.rules.published import published_settings, variant
from pyseq.training.rules.run import prepare_rules, train_rules
from tests.training.rules.small_rules import rules_config

LEARNS = {"lstm": LSTMConfig(embedding=8, hidden=24, layers=1, dropout=0.0), "max_steps": 300,
          "validate_every": 100, "schedule": "constant", "seeds": 1}  # fmt: skip


@pytest.fixture
def spied(monkeypatch):
    """Epoch, what was learned from and the rate, of every step."""
    steps: list[tuple[int, str, float]] = []
    before = RuleTraining.training_step

    def training_step(self, batch, index):
        words, prompts = self._phase(batch["step"])
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        said = "+".join(["words"] * words + ["prompts"] * prompts)
        steps.append((self.batches.epoch(batch["step"]), said, rate))
        return before(self, batch, index)

    monkeypatch.setattr(RuleTraining, "training_step", training_step)
    return steps


def test_an_oracle_keeps_rule_1_and_an_adversary_breaks_it(tmp_path):
    last = {}
    for name in ("oracle", "adversarial"):
        record = train_rules(
            rules_config(tmp_path, name, grammar="aNbN", **{name: True}, **LEARNS), told=False
        )
        last[name] = record.histories[0][-1]
    assert last["oracle"]["ood_finished"] > 0.8
    assert last["oracle"]["ood_rule_1"] > 0.9
    assert last["adversarial"]["ood_finished"] > 0.8
    assert last["adversarial"]["ood_rule_1"] == 0
    assert last["adversarial"]["id_finished"] > 0  # words are learned beside it


@pytest.mark.parametrize("name", ["oracle", "adversarial"])
def test_oracle_and_adversary_learn_from_prompts_at_every_step(tmp_path, spied, name):
    train_rules(rules_config(tmp_path, **{name: True}), told=False)
    assert {said for _, said, _ in spied} == {"words+prompts"}


def test_plain_training_learns_from_words_alone(tmp_path, spied, monkeypatch):
    monkeypatch.setattr(RuleTraining, "_completion_loss", None)  # a call would fail
    train_rules(rules_config(tmp_path), told=False)
    assert {said for _, said, _ in spied} == {"words"}


def test_progressive_training_goes_through_its_three_phases(tmp_path, spied):
    config = rules_config(
        tmp_path, grammar="baN", progressive=(2, 5), schedule="constant", warmup=1, patience=1
    )
    record = train_rules(config, told=False)
    phases = {epoch: said for epoch, said, _ in spied}
    assert phases == {
        0: "words", 1: "words", 2: "words+prompts", 3: "words+prompts", 4: "words+prompts",
        5: "prompts", 6: "prompts", 7: "prompts",
    }  # fmt: skip
    rates = {said: rate for _, said, rate in spied}
    assert rates["prompts"] == pytest.approx(0.1 * rates["words+prompts"])
    tested = record.facts["prompts tested"]
    assert tested[1] == 4  # of 8 strings that begin with a, half are trained on


def test_progressive_training_learns_prompts_that_it_was_not_shown(tmp_path):
    settings = {
        **LEARNS,
        "max_steps": 600,
        "validate_every": 200,
        "grammar": "aNbN",
        "prompt_length": 6,
    }
    plain = train_rules(rules_config(tmp_path, "plain", **settings), told=False)
    taught = train_rules(
        rules_config(tmp_path, "taught", progressive=(100, 600), **settings), told=False
    )
    reached = [record.histories[0][-1]["ood_rule_1"] * record.histories[0][-1]["ood_finished"]
               for record in (plain, taught)]  # fmt: skip
    assert reached[1] > reached[0] + 0.3


def test_patience_waits_for_the_last_phase(tmp_path):
    # No loss falls at a rate of almost nothing but in the first validations.
    base = {"lr": 1e-12, "patience": 1, "max_steps": 60, "grammar": "baN"}
    early = train_rules(rules_config(tmp_path, "a", **base), told=False)
    late = train_rules(
        rules_config(tmp_path, "b", curriculum_lengths=(6,), curriculum_epochs=(10,), **base),
        told=False,
    )
    assert early.histories[0][-1]["step"] < 30
    assert late.histories[0][-1]["step"] > 30  # three steps an epoch


def test_the_counting_layer_learns_and_is_no_part_of_the_model(tmp_path, monkeypatch):
    found = []
    before = RuleTraining.on_save_checkpoint

    def on_save_checkpoint(self, checkpoint):
        before(self, checkpoint)
        found.append(self.counting.weight.detach().clone())

    monkeypatch.setattr(RuleTraining, "on_save_checkpoint", on_save_checkpoint)
    config = rules_config(tmp_path, grammar="aNbNcN", prompt_length=3, auxiliary_weight=1.0)
    train_rules(config, told=False)
    assert found[0].shape == (2, 6, 12)  # three symbols, three pairs
    assert not torch.allclose(found[0], found[-1])
    model, _ = load_stack(tmp_path / "run" / "model.pt")
    assert not [name for name, _ in model.named_parameters() if "counting" in name]


def test_counting_needs_a_hidden_state(tmp_path):
    with pytest.raises(
        UserError, match="auxiliary_weight needs a last hidden state, and --model lin"
    ):
        train_rules(rules_config(tmp_path, model="linear", auxiliary_weight=1.0), told=False)


def test_a_multi_task_model_is_scored_on_each_of_its_grammars(tmp_path):
    config = rules_config(
        tmp_path, grammar="L3", multi_task=("L1",), model="transformer", max_steps=6
    )
    record = train_rules(config, told=False)
    path = tmp_path / "run" / "model.pt"
    assert "multi_task baN" in record.variant
    for name, expected in ((None, "aNbN"), ("L3", "aNbN"), ("L1", "baN")):
        found = evaluate_rules(path, grammar=name, device="cpu")
        assert found.grammar.name == expected
        assert len(found.scores) == 2
    losses = evaluate_rules(path, device="cpu").losses
    lowest = [min(row["validation_loss"] for row in rows) for rows in record.histories]
    assert losses == pytest.approx(lowest)
    with pytest.raises(UserError, match="holds models of aNbN, baN, not of bbaN"):
        evaluate_rules(path, grammar="L2", device="cpu")


def test_an_epoch_can_be_the_unit_of_schedule_and_validation(tmp_path, spied):
    config = rules_config(
        tmp_path, grammar="baN", schedule_unit="epoch", warmup=4, validate_unit="epoch",
        validate_every=2, max_steps=18, lr=1.0, optimizer="sgd", clip=1e-3,
    )  # fmt: skip
    record = train_rules(config, told=False)
    assert {(epoch, rate) for epoch, _, rate in spied} == {
        (epoch, min(epoch / 4, (4 / max(epoch, 1)) ** 0.5)) for epoch in range(6)
    }
    assert [row["step"] for row in record.histories[0]] == [6, 12, 18]


def test_the_training_loss_is_told_as_plain_cross_entropy(tmp_path):
    # At a rate of nothing the training and the validation loss of the same words are one number.
    base = {"grammar": "aNbN", "lr": 1e-30, "max_steps": 6, "schedule": "constant"}
    for name, options in {
        "plain": {}, "smooth": {"label_smoothing": 0.3}, "focal": {"focal_gamma": 2.0},
        "no pad": {"pad_targets": "ignore"}, "counting": {"auxiliary_weight": 1.0},
        "oracle": {"oracle": True},
    }.items():  # fmt: skip
        record = train_rules(rules_config(tmp_path, name, **base, **options), told=False)
        row = record.histories[0][-1]
        assert row["train_loss"] == pytest.approx(row["validation_loss"], abs=1e-5), name


def test_published_settings_have_no_variant_and_others_say_what_they_are():
    for model in ("transformer", "lstm", "linear"):
        for grammar in ("aNbN", "bbaN", "parentheses_and_brackets"):
            assert variant(published_settings(grammar, model)) == ""
    assert published_settings("aNbN", "linear").pad_targets == "ignore"
    assert published_settings("bbaN", "lstm").validate_every == 100
    assert published_settings("parentheses_and_brackets", "lstm").num_train == 512
    assert published_settings("baN", "lstm").num_train == 15_000
    other = RulesConfig(model="lstm", max_length=64, seeds=3, oracle=True, lr=1e-3,
                        lstm=LSTMConfig(hidden=32)).resolved()  # fmt: skip
    assert variant(other) == "lr 0.001, oracle on, hidden 32"


def test_settings_survive_their_yaml(tmp_path):
    import yaml

    config = rules_config(tmp_path, curriculum_lengths=(4,), curriculum_epochs=(2,)).resolved()
    again = RulesConfig.from_dict(yaml.safe_load(config.to_yaml()))
    assert again == dataclasses.replace(config, transformer=again.transformer, linear=again.linear)


def test_every_model_has_flags_of_its_own():
    from pyseq.models.rules import MODELS

    names = {field.name for field in dataclasses.fields(RulesConfig)}
    assert set(MODELS) <= names


def test_a_curriculum_trains_through_its_phases(tmp_path):
    config = rules_config(tmp_path, grammar="baN", curriculum_lengths=(4,), curriculum_epochs=(4,))
    run = prepare_rules(config)
    longest = [int((run.batches.tokens(step) > 2).sum(-1).max()) for step in range(24)]
    assert max(longest[:12]) == 4
    assert max(longest[12:]) == 12
    record = train_rules(config, told=False)
    assert record.histories[0][-1]["step"] == 24


def test_a_task_is_given_and_no_target(tmp_path):
    config = rules_config(tmp_path, grammar="L3", multi_task=("L1",), model="transformer")
    run = prepare_rules(config)
    module = RuleTraining(run.model, run.config, run.batches, run.language, run.validation)
    tokens = run.batches.tokens(0)
    with torch.no_grad():
        logits = run.model(tokens[..., :-1])[..., 1:, :]  # after SOS comes the task
    expected = [
        functional.cross_entropy(one.flatten(0, 1), tokens[s, :, 2:].flatten())
        for s, one in enumerate(logits)
    ]
    torch.testing.assert_close(module._word_loss(tokens, 0).detach(), torch.stack(expected))


def test_the_floor_is_that_of_the_loss_also_with_tasks(tmp_path):
    # A model that knows the words reaches it; a model that has to guess the task could not.
    settings = LEARNS | {"max_steps": 600, "validate_every": 600, "max_length": 4,
                         "prompt_length": 2}  # fmt: skip
    config = rules_config(tmp_path, grammar="aNbN", multi_task=("aNbNcN",), **settings)
    (row,) = train_rules(config, told=False).histories[0]
    floor = math.log(2) / 5
    assert floor < row["validation_loss"] < floor + 0.02  # the task would add ln 2 / 6


def test_an_evaluation_of_progressive_training_keeps_to_what_was_held_out(tmp_path):
    config = rules_config(tmp_path, grammar="baN", progressive=(1, 2), max_steps=6)
    train_rules(config, told=False)
    path = tmp_path / "run" / "model.pt"
    assert evaluate_rules(path, device="cpu").prompts == (8, 4)
    assert evaluate_rules(path, prompt_length=4, device="cpu").prompts == (8, 4)
    assert evaluate_rules(path, prompt_length=3, device="cpu").prompts == (4, 4)


def test_what_an_enumerated_grammar_ignores_is_no_variant():
    ignored = {"grammar": "aNbN", "num_train": 7, "num_validation": 9}
    assert variant(RulesConfig(**ignored).resolved()) == ""
    both = variant(RulesConfig(**ignored, multi_task=("baN",)).resolved())
    assert both == "num_train 7, num_validation 9, multi_task baN"
