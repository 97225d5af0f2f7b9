"""A trained stack scored again: every seed, and all of them as one."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pyseq.analysis.rules import RuleScores, validation_loss
from pyseq.data.grammars import Grammar, chance_level, emit_eos_at_once, find_grammar
from pyseq.errors import UserError
from pyseq.models.device import choose_device
from pyseq.models.rules import RuleModel, load_stack
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.language import Language


@dataclass(frozen=True)
class Evaluated:
    """How good the seeds of a model file are.

    Attributes:
        config (RulesConfig): of their training.
        weights (str): which weights of it the file holds.
        grammar (Grammar): whose prompts were completed.
        scores (list of RuleScores): of each seed.
        losses (list of float): of each seed, nats per target on its validation words.
        ensemble (RuleScores): of the probabilities averaged over seeds at every step.
        floor (float): nats per target that a perfect model reaches.
        references (dict name -> dict): scores of random completions, and of stopping at once.
        prompts (tuple of int): how many were completed, in and out of distribution.
    """

    config: RulesConfig
    weights: str
    grammar: Grammar
    scores: list[RuleScores]
    losses: list[float]
    ensemble: RuleScores
    floor: float
    references: dict[str, dict[str, float]]
    prompts: tuple[int, int]


def evaluate_rules(
    path: Path, *, grammar: str | None = None, prompt_length: int | None = None,
    device: str = "auto",
) -> Evaluated:  # fmt: skip
    """Complete the prompts of a model file's grammar.

    Args:
        path (Path): what `train_rules` wrote.
        grammar (str | None): what it must be of; None: whatever it is of. Of a multi-task model any
            of its grammars.
        prompt_length (int | None): symbols of a prompt; None: as in its training.
        device (str): auto, cpu, cuda or cuda:N.

    Returns:
        Evaluated: all prompts that its training tested.

    Raises:
        UserError: no such file, one of another grammar, or prompts that are too long.
    """
    model, metadata = load_stack(path)
    config = _training(path, metadata)
    tested = _among(path, config, grammar)
    language = _language(config, tested, prompt_length)
    model.to(choose_device(device))
    tokens = language.validation_tokens(config.num_validation or 1, config.all_seeds).long()
    pair = language.prompts
    return Evaluated(
        config=config,
        weights=metadata.get("weights", ""),
        grammar=language.grammar,
        scores=language.scores(model),
        losses=validation_loss(model, tokens, given=len(language.start)).tolist(),
        ensemble=_as_one(model, language),
        floor=language.grammar.loss_floor(config.max_length).nats_per_target,
        references={
            "chance": chance_level(language.grammar, pair, max_length=config.max_length),
            "EOS at once": emit_eos_at_once(language.grammar, pair),
        },
        prompts=(len(pair.in_distribution), len(pair.out_of_distribution)),
    )


def _training(path: Path, metadata: dict) -> RulesConfig:
    try:
        return RulesConfig.from_dict(metadata["training"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not say how its models were trained: {error}") from error


def _among(path: Path, config: RulesConfig, grammar: str | None) -> str:
    """The grammar to test; refuses one that the models have not learned."""
    learned = (config.grammar, *config.multi_task)
    if grammar is None:
        return config.grammar
    name = find_grammar(grammar).name
    if name not in learned:
        raise UserError(f"{path} holds models of {', '.join(learned)}, not of {name}")
    return name


def _language(config: RulesConfig, tested: str, prompt_length: int | None) -> Language:
    """What the training learned, with the prompts of the grammar that is tested."""
    # Of a progressive training, only what it has not been shown.
    if tested == config.grammar and prompt_length in (None, config.prompt_length):
        return Language.of(config)
    learned = [find_grammar(name) for name in (config.grammar, *config.multi_task)]
    grammar = find_grammar(tested)
    length = grammar.prompt_length if prompt_length is None else prompt_length
    if length > config.max_length:
        raise UserError(
            f"prompts of {length} symbols are longer than the longest word of the training,"
            f" {config.max_length} symbols"
        )
    return Language(learned, config.max_length, grammar.prompts(length=length), tested=grammar)


def _as_one(model: RuleModel, language: Language) -> RuleScores:
    with torch.inference_mode():
        (scores,) = language.scores(model, average=True)
    return scores
