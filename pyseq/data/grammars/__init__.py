"""Formal languages for rule extrapolation: words, rules, prompts and the least possible loss."""

from pyseq.data.grammars.baselines import chance_level, emit_eos_at_once
from pyseq.data.grammars.brackets import CSDyck, Dyck, MatchedBrackets, MatchedParentheses
from pyseq.data.grammars.grammar import EOS, PAD, SOS, Floor, Grammar, Prompts
from pyseq.data.grammars.letters import ABN, ANBM, ANBN, ANBNAN, ANBNCN, BAN, BBAN
from pyseq.data.grammars.vocabulary import JointVocabulary, padded
from pyseq.errors import UserError

__all__ = [
    "EOS",
    "GRAMMARS",
    "PAD",
    "SOS",
    "Floor",
    "Grammar",
    "JointVocabulary",
    "Prompts",
    "chance_level",
    "emit_eos_at_once",
    "find_grammar",
    "padded",
]

# the paper's six in its order, then the others of its published code. Its language of words that
# are all parentheses or all brackets is left out: a mismatch of names leaves it without prompts
GRAMMARS: dict[str, Grammar] = {
    grammar.name: grammar
    for grammar in (
        BAN(),
        BBAN(),
        ANBN(),
        Dyck(),
        ANBNCN(),
        CSDyck(),
        ABN(),
        ANBM(),
        ANBNAN(),
        MatchedParentheses(),
        MatchedBrackets(),
    )
}

COMMON_NAMES = {
    "dyck": "parentheses_and_brackets",
    "dyck2": "parentheses_and_brackets",
    "csdyck": "not_nested_parentheses_and_brackets",
}


def find_grammar(name: str) -> Grammar:
    """A grammar by its name, the paper's label ("L4") or a common name ("Dyck", "CS-Dyck").

    Case and the characters - _ ^ and space do not matter.

    Raises:
        UserError: unknown; the message lists the known ones.
    """
    wanted = _folded(name)
    wanted = _folded(COMMON_NAMES.get(wanted, wanted))
    for grammar in GRAMMARS.values():
        if wanted in (_folded(grammar.name), _folded(grammar.label) or None):
            return grammar
    known = [f"{g.name} ({g.label})" if g.label else g.name for g in GRAMMARS.values()]
    raise UserError(f"there is no grammar {name!r}; known are {', '.join(known)}, Dyck, CS-Dyck")


def _folded(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "-_^ ")
