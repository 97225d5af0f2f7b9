"""How well completions keep a grammar's two rules, and which validation of a run is reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyseq.data.grammars import Grammar


@dataclass(frozen=True)
class Completion:
    """What a model made of one prompt.

    Attributes:
        prompt (str): symbols of the grammar.
        text (str): what followed, up to the first EOS and without it; special tokens in it are
            written as `Grammar.decode` writes them.
        finished (bool): whether EOS came before the greatest length was reached.
    """

    prompt: str
    text: str
    finished: bool

    @property
    def whole(self) -> str:
        """Prompt and text."""
        return self.prompt + self.text


@dataclass(frozen=True)
class RuleScores:
    """Shares from 0 to 1, in-distribution prompts as `id_`, out-of-distribution ones as `ood_`.

    All but the finished rates are over finished completions only, as the paper has them, and 0
    where none finished; so each is to be read beside its finished rate. NaN where there is no
    prompt: nothing breaks the second rule of a grammar that has none.

    Attributes:
        id_rule_1 (float): the whole, prompt and completion, keeps the first rule.
        id_rule_2 (float): the whole keeps the second rule.
        ood_rule_1 (float): rule extrapolation: the first rule kept where the prompt breaks the
            second.
        ood_rule_2 (float): the whole keeps the second rule; prompts that break it beyond repair
            bound it from above.
        ood_rule_2_completion (float): the completion keeps the second rule, without the prompt.
        id_finished (float): share of the completions that finished.
        ood_finished (float): the same.
        id_grammatical (float): the whole is a word of the language.
        ood_grammatical (float): the same.

    Source: Mészáros et al. 2024, Rule Extrapolation in Language Models, section 4.
    """

    id_rule_1: float
    id_rule_2: float
    ood_rule_1: float
    ood_rule_2: float
    ood_rule_2_completion: float
    id_finished: float
    ood_finished: float
    id_grammatical: float
    ood_grammatical: float


METRICS = tuple(field.name for field in fields(RuleScores))


def score(
    grammar: Grammar,
    in_distribution: Sequence[Completion],
    out_of_distribution: Sequence[Completion],
) -> RuleScores:
    """Score the completions of one model.

    Args:
        grammar (Grammar): whose rules are checked.
        in_distribution (sequence of Completion): of prompts that begin a word of the language.
        out_of_distribution (sequence of Completion): of prompts that break the second rule.

    Returns:
        RuleScores: shares.
    """
    inside, outside = in_distribution, out_of_distribution

    def second_rule_after_prompt(each: Completion) -> bool:
        return grammar.rule_2_completion(each.prompt, each.whole)

    return RuleScores(
        id_rule_1=_share(inside, lambda each: grammar.rule_1(each.whole)),
        id_rule_2=_share(inside, lambda each: grammar.rule_2(each.whole)),
        ood_rule_1=_share(outside, lambda each: grammar.rule_1(each.whole)),
        ood_rule_2=_share(outside, lambda each: grammar.rule_2(each.whole)),
        ood_rule_2_completion=_share(outside, second_rule_after_prompt),
        id_finished=_finished(inside),
        ood_finished=_finished(outside),
        id_grammatical=_share(inside, lambda each: grammar.contains(each.whole)),
        ood_grammatical=_share(outside, lambda each: grammar.contains(each.whole)),
    )


def _finished(completions: Sequence[Completion]) -> float:
    if not completions:
        return math.nan
    return sum(each.finished for each in completions) / len(completions)


def _share(completions: Sequence[Completion], kept: Callable[[Completion], bool]) -> float:
    """Share of the finished ones that `kept` is true of."""
    if not completions:
        return math.nan
    finished = [each for each in completions if each.finished]
    return sum(bool(kept(each)) for each in finished) / len(finished) if finished else 0.0


def select_best(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """For each metric the best value of a seed's history, wherever it was reached.

    This is what the paper's tables do. The metrics of one result may come from different
    validations, and a metric that only fluctuates gains with every further validation.

    Args:
        rows (sequence of mappings): a seed's history, as `RunRecord.histories` holds it.

    Returns:
        dict: the largest share for each field of `RuleScores` and the smallest validation_loss;
        without what no row has as a finite number.
    """
    best: dict[str, float] = {}
    for name, choose in [*((metric, max) for metric in METRICS), ("validation_loss", min)]:
        if found := [row[name] for row in rows if _finite(row.get(name))]:
            best[name] = choose(found)
    return best


def select_minimum_loss(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of a seed's history whose validation loss is least, the earliest of equal ones.

    Args:
        rows (sequence of mappings): a seed's history, as `RunRecord.histories` holds it.

    Returns:
        mapping: the row; empty where no row has a finite validation loss.
    """
    found = [row for row in rows if _finite(row.get("validation_loss"))]
    return min(found, key=lambda row: row["validation_loss"]) if found else {}


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
