"""What a stack reads: whole epochs, short words first, the same in every stack."""

import numpy as np
import pytest
import torch

from pyseq.data.grammars import find_grammar
from pyseq.errors import UserError
from pyseq.training.rules.language import Language
from pyseq.training.rules.words import Curriculum, WordBatches, replace_symbols

CPU = torch.device("cpu")


def language(*names: str, max_length: int = 12) -> Language:
    grammars = [find_grammar(name) for name in names]
    return Language(grammars, max_length, grammars[0].prompts(length=4))


def batches(*names: str, seeds=(0, 1), count=40, batch=16, curriculum=None, max_length=12):
    pools = language(*names, max_length=max_length).training_pools(count, seeds)
    return WordBatches(pools, seeds, batch, 100, curriculum or Curriculum(), CPU)


def words_of(tokens: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in tokens.tolist()]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_epoch_reads_every_word_once(epoch):
    served = batches("baN")
    assert served.steps_per_epoch == 3
    parts = [served.tokens(3 * epoch + i) for i in range(3)]
    assert [part.shape for part in parts] == [(2, 16, 14), (2, 16, 14), (2, 8, 14)]
    for place, seed in enumerate((0, 1)):
        read = [word for part in parts for word in words_of(part[place])]
        drawn = find_grammar("baN").data(40, 12, seed)
        encoded = [(0, *find_grammar("baN").encode(word), 1) for word in drawn]
        assert sorted(read) == sorted(row + (2,) * (14 - len(row)) for row in encoded)


def test_epochs_and_seeds_have_orders_of_their_own():
    served = batches("aNbN", max_length=32, batch=64)
    first, second = served.tokens(0), served.tokens(1)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert sorted(words_of(first[0])) == sorted(words_of(second[1]))


def test_a_seed_reads_the_same_in_every_stack_and_after_others_have_left():
    stack = batches("baN", seeds=(0, 1, 2))
    alone = batches("baN", seeds=(2,))
    for step in (0, 2, 3):
        assert torch.equal(stack.tokens(step)[2], alone.tokens(step)[0])
    stack.keep([1, 2])
    stack.keep([1])
    assert stack.active == [2]
    for step in (3, 7):
        assert torch.equal(stack.tokens(step), alone.tokens(step))


def test_batches_go_on_where_their_state_was_taken():
    first, second = batches("baN"), batches("baN")
    reading = iter(first)
    for _ in range(5):
        next(reading)
    second.load_state_dict(first.state_dict())
    expected, found = next(reading), next(iter(second))
    assert expected["step"] == found["step"] == 5
    assert torch.equal(expected["tokens"], found["tokens"])


def test_a_curriculum_never_shows_longer_words_before_its_threshold():
    served = batches("baN", count=200, curriculum=Curriculum((4, 8), (2, 5)))
    longest = {}
    for step in range(8 * served.steps_per_epoch):
        symbols = (served.tokens(step) > 2).sum(-1)  # (S, B)
        epoch = served.epoch(step)
        longest[epoch] = max(longest.get(epoch, 0), int(symbols.max()))
    assert longest == {0: 4, 1: 4, 2: 8, 3: 8, 4: 8, 5: 12, 6: 12, 7: 12}


def test_in_a_curriculum_short_words_come_again_and_evenly():
    served = batches("aNbN", count=1, batch=128, max_length=64, curriculum=Curriculum((8,), (1,)))
    read = words_of(served.tokens(0)[0])
    assert len(read) == 32  # as many as there are words in all
    assert sorted(read.count(word) for word in set(read)) == [8, 8, 8, 8]


def test_a_phase_without_words_is_refused():
    with pytest.raises(UserError, match="curriculum_lengths 1: a seed has no word so short"):
        batches("aNbN", curriculum=Curriculum((1,), (2,)))


def test_tasks_share_every_batch_evenly_and_are_told_apart():
    served = batches("aNbN", "baN", "Dyck", count=40, batch=18)
    tokens = served.tokens(0)
    tasks = tokens[0, :, 1].tolist()
    assert [tasks.count(task) for task in sorted(set(tasks))] == [6, 6, 6]
    assert min(tasks) > tokens[..., 2:].max()  # no symbol is a task
    assert served.tokens(0).shape == (2, 18, 15)
    brackets = tokens[0][tokens[0, :, 1] == max(tasks)][:, 2:]
    letters = tokens[0][tokens[0, :, 1] == min(tasks)][:, 2:]
    both = set(brackets.unique().tolist()) & set(letters.unique().tolist())
    assert both <= {0, 1, 2}  # a and ( are different tokens
    with pytest.raises(UserError, match="--batch 2 is less than one word of each of 3"):
        batches("aNbN", "baN", "Dyck", batch=2)


def test_augmentation_replaces_a_share_of_the_symbols_only():
    tokens = batches("baN", count=400, batch=400).tokens(0)
    options = {"seeds": (0, 1), "special": 3, "classes": 5}
    seen = replace_symbols(tokens, 0.4, step=7, **options)
    assert torch.equal(seen[tokens < 3], tokens[tokens < 3])
    assert set(seen[tokens > 2].tolist()) == {3, 4}
    changed = (seen != tokens)[tokens > 2].float().mean().item()
    assert abs(changed - 0.2) < 0.02  # half of what is drawn is what was there
    assert torch.equal(seen, replace_symbols(tokens, 0.4, step=7, **options))
    assert not torch.equal(seen, replace_symbols(tokens, 0.4, step=8, **options))
    alone = replace_symbols(tokens[1:], 0.4, step=7, seeds=(1,), special=3, classes=5)
    assert torch.equal(alone[0], seen[1])
    assert np.array_equal(replace_symbols(tokens, 0.0, step=7, **options), tokens)


def test_augmentation_leaves_the_tasks_as_they_are():
    both = language("aNbN", "baN")
    tokens = batches("aNbN", "baN").tokens(0)
    seen = replace_symbols(tokens, 1.0, seeds=(0, 1), step=7, special=3, classes=both.symbols_end)
    assert torch.equal(seen[..., 1], tokens[..., 1])
    assert not torch.equal(seen[..., 2:], tokens[..., 2:])
