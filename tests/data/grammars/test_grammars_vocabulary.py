"""Padded tensors and the joint vocabulary."""

import subprocess
import sys

import pytest
import torch

from pyseq.data.grammars import EOS, GRAMMARS, PAD, SOS, JointVocabulary, find_grammar, padded
from pyseq.errors import UserError


def test_padded_rows():
    tokens = padded(GRAMMARS["aNbN"], ["ab", "aabb", ""], 5)
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [
        [SOS, 3, 4, EOS, PAD, PAD, PAD],
        [SOS, 3, 3, 4, 4, EOS, PAD],
        [SOS, EOS, PAD, PAD, PAD, PAD, PAD],
    ]


@pytest.mark.parametrize("name", list(GRAMMARS))
def test_padded_rows_decode_to_their_words(name):
    grammar = GRAMMARS[name]
    words = grammar.data(20, 12, seed=0)
    tokens = padded(grammar, words, 12)
    assert tokens.shape == (len(words), 14)
    for word, row in zip(words, tokens, strict=True):
        assert grammar.decode(row) == "^" + word + "$" + "_" * (12 - len(word))


def test_no_words_and_long_words():
    assert padded(GRAMMARS["aNbN"], [], 5).shape == (0, 7)
    with pytest.raises(UserError, match=r"6 symbols.*at most 5"):
        padded(GRAMMARS["aNbN"], ["ab", "aaabbb"], 5)


def test_joint_tokens_do_not_clash():
    letters, brackets = find_grammar("L5"), find_grammar("Dyck")
    joint = JointVocabulary([GRAMMARS["aNbN"], letters, brackets])
    assert joint.classes == 3 + 7 + 3
    assert joint.symbols == "abc()[]"
    assert joint.encode(letters, "abc") == [3, 4, 5]
    assert joint.encode(brackets, "()[]") == [6, 7, 8, 9]
    assert [joint.task(g) for g in (GRAMMARS["aNbN"], letters, brackets)] == [10, 11, 12]
    assert joint.prefix(brackets) == [SOS, 12]
    assert joint.padded(brackets, ["()"], 4).tolist() == [[SOS, 12, 6, 7, EOS, PAD, PAD]]
    assert joint.decode(brackets, [SOS, 12, 6, 7, EOS, PAD]) == "^#()$_"


def test_foreign_symbols_survive_decoding_and_are_no_word():
    grammar = GRAMMARS["aNbN"]
    joint = JointVocabulary([grammar, find_grammar("Dyck")])
    text = joint.decode(grammar, [3, 5, 4])
    assert text == "a(b"
    assert grammar.rule_1(text)
    assert not grammar.contains(text)


def test_a_joint_vocabulary_refuses_what_it_does_not_know():
    joint = JointVocabulary([GRAMMARS["aNbN"], find_grammar("Dyck")])
    with pytest.raises(UserError, match="baN is not in this vocabulary of aNbN, parenth"):
        joint.task(GRAMMARS["baN"])
    with pytest.raises(UserError, match=r"'\(' in '\(b' is no symbol"):
        joint.encode(GRAMMARS["aNbN"], "(b")
    with pytest.raises(UserError, match=r"0\.\.10"):
        joint.decode(GRAMMARS["aNbN"], [11])
    with pytest.raises(UserError, match="at most 4"):
        joint.padded(GRAMMARS["aNbN"], ["aaabbb"], 4)


@pytest.mark.parametrize("names", [[], ["aNbN", "aNbN"]])
def test_a_joint_vocabulary_needs_different_grammars(names):
    with pytest.raises(UserError, match="different grammars"):
        JointVocabulary([GRAMMARS[name] for name in names])


def test_grammars_are_light():
    code = (
        "import pyseq, sys; print(pyseq.data.grammars.find_grammar('L3').name);"
        "print(*{'scipy', 'matplotlib', 'lightning', 'tyro'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["aNbN"]
