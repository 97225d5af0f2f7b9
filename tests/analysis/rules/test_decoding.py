import math

import pytest
import torch

from pyseq.analysis.rules import Completion, greedy_completions, validation_loss
from tests.analysis.rules.lookup_model import LookupModel

SOS, EOS, PAD, A, B = range(5)


class Letters:
    """The spelling of a's and b's, as grammars have it."""

    def encode(self, word):
        return [3 + "ab".index(symbol) for symbol in word]

    def decode(self, tokens):
        return "".join("^$_ab"[token] for token in tokens)


def test_each_seed_follows_its_own_answers_until_its_end():
    model = LookupModel([{(SOS, A): B, (SOS, A, B): B}, {(SOS, A): A}, {}])
    found = greedy_completions(model, Letters(), ["a"], max_length=9)
    assert found == [
        [Completion("a", "bb", True)],
        [Completion("a", "a", True)],
        [Completion("a", "", True)],
    ]
    assert [seed[0].whole for seed in found] == ["abb", "aa", "a"]


def test_prompts_are_completed_side_by_side():
    model = LookupModel([{(SOS, A, B): PAD, (SOS, B, A): A, (SOS, B, A, A): SOS}])
    (found,) = greedy_completions(model, Letters(), ["ab", "ba"], max_length=9)
    assert [each.prompt for each in found] == ["ab", "ba"]
    assert [each.text for each in found] == ["_", "a^"]


def test_decoding_ends_at_the_greatest_length_with_start_and_prompt_counted():
    endless = {(SOS, *[A] * n): A for n in range(20)}
    model = LookupModel([endless])
    ((found,),) = greedy_completions(model, Letters(), ["aa"], max_length=8)
    assert found == Completion("aa", "aaaaa", False)
    assert model.calls == 5
    # EOS as the last token that fits still finishes.
    model = LookupModel([{key: A for key in endless if len(key) < 7}])
    ((found,),) = greedy_completions(model, Letters(), ["aa"], max_length=8)
    assert found == Completion("aa", "aaaa", True)


def test_nothing_is_decoded_after_all_have_ended():
    model = LookupModel([{(SOS, A): B}, {}])
    greedy_completions(model, Letters(), ["a", "b"], max_length=100)
    assert model.calls == 2


def test_the_average_chooses_what_no_single_seed_would():
    # A and B win once each; EOS comes second in both and wins the average.
    one = {(SOS, A): [0, 0.4, 0, 0.6, 0]}
    two = {(SOS, A): [0, 0.4, 0, 0, 0.6]}
    model = LookupModel([one, two])
    apart = greedy_completions(model, Letters(), ["a"], max_length=5)
    assert [seed[0].text for seed in apart] == ["a", "b"]
    averaged = greedy_completions(model, Letters(), ["a"], max_length=5, average=True)
    assert averaged == [[Completion("a", "", True)]]


def test_the_average_reads_the_same_tokens_in_every_seed():
    # The first seed alone would say a, and then end; the second goes on where b came.
    one = {(SOS, A): [0, 0, 0, 0.55, 0.45]}
    two = {(SOS, A): [0, 0, 0, 0.0, 1.0], (SOS, A, B): [0, 0, 0, 1.0, 0]}
    three = {(SOS, A, B): [0, 0, 0, 1.0, 0]}
    found = greedy_completions(
        LookupModel([one, two, three]), Letters(), ["a"], max_length=5, average=True
    )
    assert found == [[Completion("a", "ba", True)]]


def test_a_task_token_stands_before_the_prompt():
    model = LookupModel([{(SOS, 5, A): B}], classes=6)
    found = greedy_completions(model, Letters(), ["a"], max_length=9, start=(SOS, 5))
    assert found == [[Completion("a", "b", True)]]


def test_the_mode_of_the_model_is_left_as_it_was():
    model = LookupModel([{}]).train()
    greedy_completions(model, Letters(), ["a"], max_length=4)
    validation_loss(model, torch.tensor([[SOS, EOS]]))
    assert model.training


def test_no_prompts_have_no_completions():
    model = LookupModel([{}, {}])
    assert greedy_completions(model, Letters(), [], max_length=4) == [[], []]
    assert greedy_completions(model, Letters(), [], max_length=4, average=True) == [[]]


def test_refusals_say_what_fits():
    model = LookupModel([{}])
    with pytest.raises(ValueError, match="prompts of 1 to 2 symbols; all must have one length"):
        greedy_completions(model, Letters(), ["a", "ab"], max_length=9)
    with pytest.raises(ValueError, match="leave no token to decode of 4; a prompt has 2 at most"):
        greedy_completions(model, Letters(), ["aba"], max_length=4)
    with pytest.raises(ValueError, match=r"\(2, 1, 3\) for 1 seeds"):
        validation_loss(model, torch.zeros(2, 1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="no target"):
        validation_loss(model, torch.zeros(0, 3, dtype=torch.long))


HALF = [0.0, 0.5, 0.0, 0.5, 0.0]
QUARTERS = [0.0, 0.25, 0.25, 0.25, 0.25]


def test_loss_is_nats_per_target_with_pad_counted_unless_it_is_left_out():
    words = torch.tensor([[SOS, A, EOS, PAD], [SOS, EOS, PAD, PAD]])
    unsure = {(SOS,): HALF, (SOS, A): QUARTERS, (SOS, A, EOS): PAD, (SOS, EOS): PAD}
    unsure[(SOS, EOS, PAD)] = QUARTERS
    model = LookupModel([unsure])
    two, four = math.log(2), math.log(4)
    expected = torch.tensor([(two + four + 0 + two + 0 + four) / 6], dtype=torch.float64)
    torch.testing.assert_close(validation_loss(model, words), expected, atol=1e-6, rtol=0)
    # Only a, EOS and EOS are left.
    expected = torch.tensor([(two + four + two) / 3], dtype=torch.float64)
    found = validation_loss(model, words, ignore_pad=True)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_batches_of_unequal_size_do_not_change_the_loss():
    unsure = {(SOS,): HALF, (SOS, A): QUARTERS, (SOS, EOS): PAD}
    words = torch.tensor([[SOS, A, EOS]] * 2 + [[SOS, EOS, PAD]] * 3)
    model = LookupModel([unsure, {(SOS,): QUARTERS, (SOS, A): EOS, (SOS, EOS): PAD}])
    whole = validation_loss(model, words)
    torch.testing.assert_close(validation_loss(model, words, batch_size=2), whole)
    expected = [(5 * math.log(2) + 2 * math.log(4)) / 10, 5 * math.log(4) / 10]
    torch.testing.assert_close(whole, torch.tensor(expected).double(), atol=1e-6, rtol=0)


def test_seeds_may_be_given_words_of_their_own():
    model = LookupModel([{(SOS,): HALF}] * 2)
    words = torch.tensor([[[SOS, EOS]], [[SOS, B]]])  # (2, 1, 2): the second is all but impossible
    found = validation_loss(model, words)
    assert found[0] == pytest.approx(math.log(2))
    assert found[1] > 10
