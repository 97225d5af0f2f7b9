import math

import pytest
import torch

from pyseq.analysis.rules import Completion, greedy_completions, validation_loss
from pyseq.data.grammars import JointVocabulary, find_grammar, padded
from pyseq.models.rules import MODELS, build_rule_model
from tests.analysis.rules.lookup_model import LookupModel

SOS, EOS, PAD, A, B = range(5)


AB = find_grammar("aNbN")


def test_each_seed_follows_its_own_answers_until_its_end():
    model = LookupModel([{(SOS, A): B, (SOS, A, B): B}, {(SOS, A): A}, {}])
    found = greedy_completions(model, AB, ["a"], max_length=9)
    assert found == [
        [Completion("a", "bb", True)],
        [Completion("a", "a", True)],
        [Completion("a", "", True)],
    ]
    assert [seed[0].whole for seed in found] == ["abb", "aa", "a"]


def test_prompts_are_completed_side_by_side():
    model = LookupModel([{(SOS, A, B): PAD, (SOS, B, A): A, (SOS, B, A, A): SOS}])
    (found,) = greedy_completions(model, AB, ["ab", "ba"], max_length=9)
    assert [each.prompt for each in found] == ["ab", "ba"]
    assert [each.text for each in found] == ["_", "a^"]


def test_the_whole_has_max_length_symbols_and_an_eos():
    endless = {(SOS, *[A] * n): A for n in range(20)}
    model = LookupModel([endless])
    ((found,),) = greedy_completions(model, AB, ["aa"], max_length=6)
    assert found == Completion("aa", "aaaaa", False)
    assert model.calls == 5
    # EOS after the last symbol that fits still finishes.
    model = LookupModel([{key: A for key in endless if len(key) < 7}])
    ((found,),) = greedy_completions(model, AB, ["aa"], max_length=6)
    assert found == Completion("aa", "aaaa", True)
    ((found,),) = greedy_completions(LookupModel([{}]), AB, ["aa"], max_length=2)
    assert found == Completion("aa", "", True)


@pytest.mark.parametrize("name", ["aNbN", "baN", "parentheses_and_brackets"])
def test_the_longest_word_can_be_completed(name):
    grammar, max_length = find_grammar(name), 16
    word = max(grammar.data(200, max_length, 0, "train"), key=len)
    assert len(word) >= max_length - 1
    read = [SOS, *grammar.encode(word)]
    answers = {tuple(read[:i]): read[i] for i in range(1, len(read))}
    model = LookupModel([answers], grammar.classes)
    ((found,),) = greedy_completions(model, grammar, [word[:8]], max_length=max_length)
    assert found == Completion(word[:8], word[8:], True)


def test_nothing_is_decoded_after_all_have_ended():
    model = LookupModel([{(SOS, A): B}, {}])
    greedy_completions(model, AB, ["a", "b"], max_length=100)
    assert model.calls == 2


def test_the_average_chooses_what_no_single_seed_would():
    # A and B win once each; EOS comes second in both and wins the average.
    one = {(SOS, A): [0, 0.4, 0, 0.6, 0]}
    two = {(SOS, A): [0, 0.4, 0, 0, 0.6]}
    model = LookupModel([one, two])
    apart = greedy_completions(model, AB, ["a"], max_length=5)
    assert [seed[0].text for seed in apart] == ["a", "b"]
    averaged = greedy_completions(model, AB, ["a"], max_length=5, average=True)
    assert averaged == [[Completion("a", "", True)]]


def test_the_average_reads_the_same_tokens_in_every_seed():
    # The first seed alone would say a, and then end; the second goes on where b came.
    one = {(SOS, A): [0, 0, 0, 0.55, 0.45]}
    two = {(SOS, A): [0, 0, 0, 0.0, 1.0], (SOS, A, B): [0, 0, 0, 1.0, 0]}
    three = {(SOS, A, B): [0, 0, 0, 1.0, 0]}
    found = greedy_completions(
        LookupModel([one, two, three]), AB, ["a"], max_length=5, average=True
    )
    assert found == [[Completion("a", "ba", True)]]


def test_a_task_token_stands_before_the_prompt_and_costs_no_length():
    dyck = find_grammar("Dyck")
    vocabulary = JointVocabulary([dyck, AB])  # ( ) [ ] a b and the tasks: 3 to 10
    a, b, task = 7, 8, vocabulary.task(AB)
    model = LookupModel([{(SOS, task, a): b, (SOS, task, a, b): 3}], vocabulary.classes)
    found = greedy_completions(model, AB, ["a"], max_length=9, vocabulary=vocabulary)
    assert found == [[Completion("a", "b(", True)]]
    found = greedy_completions(model, AB, ["a"], max_length=2, vocabulary=vocabulary)
    assert found == [[Completion("a", "b(", False)]]
    assert not AB.contains(found[0][0].whole)


def test_the_mode_of_the_model_is_left_as_it_was():
    model = LookupModel([{}]).train()
    greedy_completions(model, AB, ["a"], max_length=4)
    validation_loss(model, torch.tensor([[SOS, EOS]]))
    assert model.training


def test_no_prompts_have_no_completions():
    model = LookupModel([{}, {}])
    assert greedy_completions(model, AB, [], max_length=4) == [[], []]
    assert greedy_completions(model, AB, [], max_length=4, average=True) == [[]]


def test_refusals_say_what_fits():
    model = LookupModel([{}])
    with pytest.raises(ValueError, match="prompts of 1 to 2 symbols; all must have one length"):
        greedy_completions(model, AB, ["a", "ab"], max_length=9)
    with pytest.raises(ValueError, match="prompts of 3 symbols are longer than max_length 2"):
        greedy_completions(model, AB, ["aba"], max_length=2)
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


@pytest.mark.parametrize("name", sorted(MODELS))
def test_real_models_decode_as_if_they_read_everything_again(name):
    # An official Linear reads its last position while decoding, so that it has its own test.
    model = build_rule_model(MODELS[name](), classes=AB.classes, max_length=24, seeds=[1, 2])
    prompts = AB.prompts(length=3).out_of_distribution
    found = greedy_completions(model.eval(), AB, prompts, max_length=24)
    for s, seed in enumerate(found):
        for each in seed:
            read = [SOS, *AB.encode(each.prompt)]
            for token in [*AB.encode(each.text), *[EOS] * each.finished]:
                with torch.no_grad():
                    both = model.next_logits(torch.tensor(read).expand(2, 1, -1))[s, 0]
                # Ties of untrained models may go either way.
                assert both[token] > both.max() - 1e-4
                read.append(token)
            assert len(read) <= 26


def test_the_loss_of_a_model_is_that_of_the_library_on_the_same_logits():
    model = build_rule_model(
        MODELS["transformer"](), classes=AB.classes, max_length=12, seeds=[1, 2, 3]
    ).eval()
    words = padded(AB, AB.words(12), 12)
    found = validation_loss(model, words, batch_size=4)
    with torch.no_grad():
        logits = model(words[:, :-1].expand(3, -1, -1))
    for s in range(3):
        expected = torch.nn.functional.cross_entropy(
            logits[s].flatten(0, 1), words[:, 1:].flatten()
        )
        assert float(found[s]) == pytest.approx(float(expected), abs=1e-5)
