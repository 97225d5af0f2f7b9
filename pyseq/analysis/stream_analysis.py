"""What `pyseq analyze` says about a stream, as data: page, JSON and terminal show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.intervals import Interval
from pyseq.analysis.predictability.evidence import Evidence
from pyseq.analysis.predictability.sp800_90b import MostCommonValue, Prediction
from pyseq.analysis.randomness.test_result import Question, TestResult


@dataclass(frozen=True)
class StreamVerdict:
    """The answer to one of the two questions.

    Attributes:
        question ("marginal" | "dependence"): which.
        null (str): the declared null in words.
        structure (bool): whether some test fires after Holm's correction over everything run.
        sentence (str): the whole verdict, with what the run would have noticed.
        fired (sequence of str): names of the tests that fired, smallest p-value first.
    """

    question: Question
    null: str
    structure: bool
    sentence: str
    fired: Sequence[str]


@dataclass(frozen=True)
class Power:
    """A departure that this run would have noticed with probability `chance`.

    Attributes:
        question ("marginal" | "dependence"): which verdict it belongs to.
        departure (str): in words, such as "one symbol with probability (1 + d)/k".
        size (float): the smallest such departure.
        text (str): the whole, such as "one symbol whose probability is 1.31 times 1/65536".
        chance (float): the power, such as 0.9.
    """

    question: Question
    departure: str
    size: float
    text: str
    chance: float


@dataclass(frozen=True)
class Band:
    """A measured curve with the band in which the null would keep it.

    Attributes:
        name (str): what it shows, such as "symbols" or "bit 3".
        x (array (N,), float64): frequency in cycles/symbol, lag in symbols, or the like.
        y (array (N,), float64): measured.
        low (array (N,) or float): lower end of the band.
        high (array (N,) or float): upper end.
        level (float): the chance under the null that any point of the curve leaves the band.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | float
    high: NDArray[np.float64] | float
    level: float


@dataclass(frozen=True)
class Pictures:
    """Curves for the page; empty where a stream is too short for them.

    Attributes:
        cumulated_spectrum (sequence of Band): Bartlett's cumulative periodogram: x frequency in
            cycles/symbol, y the share of power up to it minus what white noise would have.
        spectrum (sequence of Band): x frequency in cycles/symbol, y the largest power over the
            mean power in each of a few hundred intervals of frequencies; high is the bound for a
            single line.
        autocorrelation (sequence of Band): x lag, y correlation.
        lag_information (sequence of Band): x lag, y mutual information in bits, plug-in estimate;
            low and high are the permutation null's band.
        histogram (sequence of Band): x symbol (bins of the alphabet), y count over expectation.
        lag_accuracy (sequence of Band): x lag, y share of t with x_t = x_(t-lag); the band is that
            of independent draws.
    """

    cumulated_spectrum: Sequence[Band] = ()
    spectrum: Sequence[Band] = ()
    autocorrelation: Sequence[Band] = ()
    lag_information: Sequence[Band] = ()
    histogram: Sequence[Band] = ()
    lag_accuracy: Sequence[Band] = ()


@dataclass(frozen=True)
class CodeLength:
    """What a predictor needed for symbols it had not seen, in bits/symbol.

    Attributes:
        name (str): such as "online mixture of count models" or "baseline model.pt".
        symbols (int): how many were scored.
        bits (Interval): mean code length with its 95 % interval, over all of them.
        late_bits (Interval): over the second half, when the predictor has learned more: our
            estimate of the entropy rate, from above.
        uniform_bits (float): log2 of the alphabet.
        marginal_bits (float): entropy of the marginal of the same symbols.
        accuracy (Interval): share of right guesses.
        average_min_entropy (Interval): -log2 of it, in bits/symbol.
        weights (mapping name -> float): what each part of a mixture weighs.
        alphabet (int): classes that it predicts; less than the stream's where it was binned.
    """

    name: str
    symbols: int
    bits: Interval
    late_bits: Interval
    uniform_bits: float
    marginal_bits: float
    accuracy: Interval
    average_min_entropy: Interval
    weights: Mapping[str, float] = field(default_factory=dict)
    alphabet: int = 0


@dataclass(frozen=True)
class Compressed:
    """Size of a sample under a general compressor.

    Attributes:
        name (str): such as "xz -9e".
        symbols (int): in the sample.
        bits (float): bits/symbol.
        shuffled_bits (float): of the same symbols in random order: what the marginal alone gives.
    """

    name: str
    symbols: int
    bits: float
    shuffled_bits: float


@dataclass(frozen=True)
class StreamAnalysis:
    """Everything that was found out about a stream.

    Attributes:
        facts (sequence of (name, value)): file, symbols, alphabet, kind, seed, samples, time.
        symbols (int): N.
        alphabet (int): k.
        level (float): of the verdicts together.
        verdicts (sequence of StreamVerdict): marginal, dependence.
        tests (sequence of TestResult): all that were run, in the order of the page.
        adjusted (array (M,), float64): Holm's p-value of each.
        skipped (sequence of (name, why)): tests that this stream is too short or too odd for.
        power (sequence of Power): what the run would have noticed.
        entropy (float), min_entropy (float): plug-in, of the marginal, bits/symbol.
        evidence (sequence of (name, Evidence)): e-processes; the first is their mixture against
            independence, the headline.
        code_lengths (sequence of CodeLength): online mixture first, then a trained model.
        predictions (sequence of Prediction): SP 800-90B's predictors.
        most_common_value (MostCommonValue or None): its estimate.
        expected (mapping): what a perfect uniform source of this length would be expected to score.
        predicted_symbols (int): how many symbols the predictors read.
        compressed (sequence of Compressed): by general compressors.
        pictures (Pictures): curves.
        entropy_rate (float or None): the true one, where the stream's description tells it.
    """

    facts: Sequence[tuple[str, object]]
    symbols: int
    alphabet: int
    level: float
    verdicts: Sequence[StreamVerdict]
    tests: Sequence[TestResult]
    adjusted: NDArray[np.float64]
    skipped: Sequence[tuple[str, str]]
    power: Sequence[Power]
    entropy: float
    min_entropy: float
    evidence: Sequence[tuple[str, Evidence]] = ()
    code_lengths: Sequence[CodeLength] = ()
    predictions: Sequence[Prediction] = ()
    most_common_value: MostCommonValue | None = None
    expected: Mapping[str, object] = field(default_factory=dict)
    predicted_symbols: int = 0
    compressed: Sequence[Compressed] = ()
    pictures: Pictures = field(default_factory=Pictures)
    entropy_rate: float | None = None
