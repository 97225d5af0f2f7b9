"""Evidence by a trained model, on symbols that played no part in making it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyseq.analysis.held_out import unseen_range
from pyseq.analysis.intervals import binomial_interval, block_bootstrap
from pyseq.analysis.predictability.evidence import (
    Evidence,
    average,
    conclude,
    evidence_against_law,
    log_e_against_independence,
)
from pyseq.analysis.predictability.learned import score_model
from pyseq.analysis.predictability.online_evidence import FIRST_LOOK, evidence_views
from pyseq.analysis.stream_analysis import CodeLength
from pyseq.data.u16_stream import U16Stream
from pyseq.errors import UserError
from pyseq.models.predictor import Predictor

_LN2 = float(np.log(2))


@dataclass(frozen=True)
class LearnedEvidence:
    """What a trained model shows.

    Attributes:
        name (str): of the model.
        where (str): which symbols it was asked for, and why those.
        dependence (Evidence): against independent draws of an unknown marginal.
        uniform (Evidence): against independent uniform draws over the alphabet.
        code_length (CodeLength): in the model's classes.
        alphabet (int): of the model; `uniform` is about draws from it.
    """

    name: str
    where: str
    dependence: Evidence
    uniform: Evidence
    code_length: CodeLength
    alphabet: int


def learned_evidence(
    name: str, predictor: Predictor, stream: U16Stream, *, most_symbols: int,
    level: float = 0.01, seed: int = 0,
) -> LearnedEvidence:  # fmt: skip
    """Let a trained model predict what it has not seen.

    Args:
        name (str): what the model is called.
        predictor (Predictor): the model.
        stream (U16Stream): the symbols.
        most_symbols (int): scored at the most.
        level (float): for `Evidence.first_exceeds`.
        seed (int): of the bootstrap.

    Returns:
        LearnedEvidence: valid however the model was trained, and however many symbols were scored.

    Raises:
        UserError: the stream holds nothing the model has not seen, or a symbol that it cannot.
    """
    card = predictor.card
    (start, stop), where = unseen_range(stream, card)
    stop = min(stop, start + most_symbols + 1)
    alphabet = card.binning.alphabet
    if alphabet < 2:
        raise UserError(f"{name} knows one symbol only; a model of 2 or more fits")
    # The bins come from symbols before the range, or from its first ones, which then do not count.
    look = min(FIRST_LOOK, len(stream) // 8)
    views = evidence_views(stream[:look].numpy(), alphabet)
    scores = score_model(
        predictor, stream, start, stop, binning=card.binning, seq_len=card.seq_len, views=views,
        seed=seed,
    )  # fmt: skip
    skipped = max(0, look - scores.first)
    if scores.bits.size - skipped < 2:
        raise UserError(f"{name}: {scores.bits.size} symbols are too few to be evidence")
    paths = []
    for view in views:
        came, log_q = scores.view_classes[view.name][skipped:], scores.log_q[view.name][skipped:]
        paths.append(log_e_against_independence(log_q, came, view.classes))
    dependence = conclude(
        average(paths), "independent draws of one unknown law", level=level, seed=seed
    )
    symbols = stream[scores.first : stop].numpy()
    uniform = evidence_against_law(
        -_LN2 * scores.symbol_bits, symbols, alphabet, level=level, seed=seed
    )
    share = np.bincount(scores.classes) / scores.classes.size
    share = share[share > 0]
    half = scores.bits.size // 2
    code_length = CodeLength(
        name, scores.bits.size, scores.cross_entropy,
        block_bootstrap(scores.bits[half:], block=card.seq_len, seed=seed),
        float(np.log2(scores.number_of_classes)), float(0.0 - (share * np.log2(share)).sum()),
        binomial_interval(int(scores.hits.sum()), scores.hits.size), scores.average_min_entropy,
        {}, scores.number_of_classes,
    )  # fmt: skip
    return LearnedEvidence(name, where, dependence, uniform, code_length, alphabet)
