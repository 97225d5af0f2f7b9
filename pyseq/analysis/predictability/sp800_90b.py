"""NIST's prediction estimates of min-entropy, for symbols of up to 16 bits.

Up to 256 symbols the figures are those of NIST's program (SP800-90B_EntropyAssessment), whose
dictionaries have the sizes that the standard gives them. Above 256, which that program refuses,
dictionaries of those sizes are full long before a context of a wide alphabet comes back, and see
nothing; there they grow as the stream needs, within a memory that is given.

Source: Turan et al. 2018, NIST SP 800-90B, sections 6.3.1 and 6.3.7 to 6.3.10; where the program
differs from the words of the standard, the program is followed. One such place shows: when the
model that MultiMMC listens to has not seen the context, the program makes no guess, and such a
symbol does not end a run of correct guesses; it counts as a symbol that was not guessed.
"""

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pyseq.analysis.intervals import Interval, binomial_interval
from pyseq.analysis.predictability.runs import chance_of_run, likeliest_p, log_chance_of_no_run
from pyseq.errors import BackendUnavailable
from pyseq.ops import backends

Z = 2.5758293035489008  # a normal variable stays below in 99.5 %, as NIST's program has it
CONFIDENCE = 0.99
WIDEST_OF_STANDARD = 256  # up to this alphabet NIST's program and its dictionaries are reproduced
DEFAULT_MEMORY = 1 << 30
LEAST_MEMORY = 1 << 20
FIRST_GUESSED = {"MultiMCW": 63, "Lag": 1, "MultiMMC": 2, "LZ78Y": 17}
# NIST's program refuses MultiMCW less than its longest window; all need two guesses for a bound.
FEWEST_SYMBOLS = {"MultiMCW": 4096, "Lag": 3, "MultiMMC": 4, "LZ78Y": 19}
_AT_ONCE = 1 << 20  # symbols between two reports of progress


@dataclass(frozen=True)
class Prediction:
    """What one predictor scored on a stream.

    Attributes:
        name (str): "MultiMCW", "Lag", "MultiMMC" or "LZ78Y".
        predictions (int): N', the symbols it was asked for.
        correct (int): C, those it guessed.
        longest_run (int): of correct guesses; one less than the r that NIST's program prints.
        p_global (float): C / N'.
        p_global_bound (float): upper end of its 99 % interval, as NIST computes it.
        p_local (float | None): the chance of a guess for which the longest run is no surprise (99 %
            of streams have none longer); None where it is below p_global_bound.
        min_entropy (float): NIST's figure, bits per symbol: -log2 of the largest of p_global_bound,
            p_local and one in the number of different symbols.
        global_bits (float): -log2 p_global_bound, bits per symbol; may be above log2 of the
            alphabet.
        accuracy_interval (Interval): p_global with its exact 95 % interval, which holds if guesses
            are correct independently of each other.
        local_bits (float): what the longest run alone says, bits per symbol.
        local_chance (float): that independent uniform draws of as many different symbols show a run
            at least as long.
        full_at (int | None): the first symbol that found the memory of a wide alphabet full; what
            was seen before is counted on, new contexts are not learnt. None if it was enough.
    """

    name: str
    predictions: int
    correct: int
    longest_run: int
    p_global: float
    p_global_bound: float
    p_local: float | None
    min_entropy: float
    global_bits: float
    accuracy_interval: Interval
    local_bits: float
    local_chance: float
    full_at: int | None = None


@dataclass(frozen=True)
class MostCommonValue:
    """The most common symbol of a stream.

    Attributes:
        count (int): how often it occurs.
        p (float): its share.
        bound (float): upper end of the share's 99 % interval, as NIST computes it.
        min_entropy (float): -log2 bound, bits per symbol.
    """

    count: int
    p: float
    bound: float
    min_entropy: float


def most_common_value(symbols: np.ndarray, alphabet: int) -> MostCommonValue:
    """The most-common-value estimate.

    Args:
        symbols (array (N,), uint16): the stream; N >= 2.
        alphabet (int): symbols are below this; 1 to 65536.

    Raises:
        TypeError: symbols is no array of uint16.
        ValueError: it is too short, not one-dimensional, or holds symbols beyond the alphabet.

    Source: SP 800-90B, 6.3.1.
    """
    symbols = _checked("most_common_value", symbols, alphabet, 2)
    count = int(_histogram(symbols, alphabet).max())
    p = count / symbols.size
    bound = min(1.0, p + Z * math.sqrt(p * (1 - p) / (symbols.size - 1)))
    return MostCommonValue(count, p, bound, _bits(bound))


def predict_all(
    symbols: np.ndarray,
    alphabet: int,
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    memory: int = DEFAULT_MEMORY,
) -> list[Prediction]:
    """What the four predictors score on a stream.

    Time is linear in N. Up to 256 symbols MultiMMC takes at most some 200 MiB, and LZ78Y at most
    some 800, which wants each of its 65,536 contexts followed by every symbol. Above, each of the
    two takes some 90 bytes per symbol where nothing repeats and some 500 where all does, but no
    more than `memory`; `full_at` tells if that was too little.

    Args:
        symbols (array (N,), uint16): the stream; N >= 3. It must not change meanwhile.
        alphabet (int): symbols are below this; 1 to 65536.
        threads (int | None): predictors that run at once; None is as many as there are processors.
        progress (callable | None): is told, again and again and by several threads, though never
            two at once, how many symbols more a predictor is through with; 4 N in all, or a few
            less.
        memory (int): bytes for MultiMMC, and as many for LZ78Y, above 256 symbols; >= 2^20.

    Returns:
        list of Prediction: in the order of the standard: MultiMCW (from N = 4096 on), Lag, MultiMMC
        (from 4) and LZ78Y (from 19).

    Raises:
        TypeError: symbols is no array of uint16.
        ValueError: it is too short, not one-dimensional, or holds symbols beyond the alphabet; or
            an option is out of its range.
        BackendUnavailable: the native code was not built.

    Source: SP 800-90B, 6.3.7 to 6.3.10.
    """
    symbols = _checked("predict_all", symbols, alphabet, min(FEWEST_SYMBOLS.values()))
    if memory < LEAST_MEMORY or (threads is not None and threads < 1):
        raise ValueError(
            f"predict_all: memory {memory}, threads {threads}; "
            f"memory must be >= {LEAST_MEMORY} bytes and threads >= 1"
        )
    reason = backends.refuse_native()
    if reason is not None:
        raise BackendUnavailable(f"predict_all: {reason}")
    different = int(np.count_nonzero(_histogram(symbols, alphabet)))
    stop, telling = threading.Event(), threading.Lock()

    def tell(count: int) -> None:
        if progress is not None:
            with telling:
                progress(count)

    def run(name: str) -> Prediction:
        predictor = backends.core().Predictor(name, symbols, alphabet=alphabet, memory=memory)
        tell(FIRST_GUESSED[name])
        left = symbols.size - FIRST_GUESSED[name]
        while left > 0 and not stop.is_set():
            before, left = left, predictor.advance(_AT_ONCE)
            tell(before - left)
        correct, longest_run = predictor.score()
        full_at = predictor.full_at()
        predictions = symbols.size - FIRST_GUESSED[name]
        return _prediction(name, predictions, correct, longest_run, different, full_at)

    names = [name for name, fewest in FEWEST_SYMBOLS.items() if symbols.size >= fewest]
    # The slowest begin first.
    begun = sorted(names, key=["MultiMMC", "LZ78Y", "MultiMCW", "Lag"].index)
    with ThreadPoolExecutor(min(len(names), threads or os.cpu_count() or 1)) as pool:
        try:
            found = {p.name: p for p in pool.map(run, begun)}
        finally:
            stop.set()  # after an error or an interrupt nobody waits for the others
    return [found[name] for name in names]


def as_symbols(data: bytes | np.ndarray, symbol_bits: int, *, layout: str = "auto") -> np.ndarray:
    """Bytes as symbols of 8, 4, 2 or 1 bits.

    NIST's program reads one symbol from each byte and refuses bytes that are too large for one. A
    file that it would accept is read so, and any other is cut, the high bits of a byte first, as
    that program cuts a file of 8-bit symbols for its bitstring. So packed bits whose every byte
    happens to be small are taken for one symbol per byte; `layout` says otherwise.

    Args:
        data (bytes or array (N,), uint8): what a file holds.
        symbol_bits (int): 8, 4, 2 or 1.
        layout (str): "one_per_byte", "packed", or "auto" as described.

    Returns:
        array (N,) or (N * 8 / symbol_bits,), uint16.

    Raises:
        TypeError: data is an array that is not uint8.
        ValueError: an option is none of those, or a byte is too large for one symbol.
    """
    values = data if isinstance(data, np.ndarray) else np.frombuffer(data, dtype=np.uint8)
    if values.dtype != np.uint8:
        raise TypeError(f"as_symbols: data is {values.dtype}; bytes or uint8 fit")
    if symbol_bits not in (1, 2, 4, 8) or layout not in ("auto", "one_per_byte", "packed"):
        raise ValueError(
            f"as_symbols: symbol_bits {symbol_bits}, layout {layout!r}; "
            "8, 4, 2 or 1, and auto, one_per_byte or packed fit"
        )
    largest = int(values.max(initial=0))
    fits = largest < 1 << symbol_bits
    if layout == "one_per_byte" and not fits:
        raise ValueError(f"as_symbols: a byte is {largest}; {symbol_bits} bits hold no such symbol")
    if symbol_bits == 8 or layout == "one_per_byte" or (layout == "auto" and fits):
        return values.astype(np.uint16)
    shifts = np.arange(8 - symbol_bits, -1, -symbol_bits, dtype=np.uint8)
    cut = values[:, None] >> shifts & np.uint8((1 << symbol_bits) - 1)  # (N, symbols of a byte)
    return cut.reshape(-1).astype(np.uint16)


def lag_accuracy(symbols: np.ndarray, max_lag: int = 128) -> np.ndarray:
    """How often a symbol equals the one some symbols before it.

    Args:
        symbols (array (N,), uint16): the stream; N > max_lag.
        max_lag (int): the longest lag, in symbols; >= 1.

    Returns:
        array (max_lag,), float64: for the lags 1 to max_lag, the share of t with x_t = x_(t - lag).

    Raises:
        TypeError: symbols is no array of uint16.
        ValueError: it is too short for max_lag, or not one-dimensional.
        BackendUnavailable: the native code was not built.
    """
    if max_lag < 1:
        raise ValueError(f"lag_accuracy: max_lag {max_lag}; it must be >= 1")
    symbols = _checked("lag_accuracy", symbols, 1 << 16, max_lag + 1)
    reason = backends.refuse_native()
    if reason is not None:
        raise BackendUnavailable(f"lag_accuracy: {reason}")
    equal = np.empty(max_lag, dtype=np.int64)
    backends.core().count_equal_at_lags(symbols, equal)
    return equal / (symbols.size - np.arange(1, max_lag + 1))


def global_bound(correct: int, predictions: int) -> float:
    """NIST's upper 99 % bound on the chance of a guess; predictions >= 2."""
    if correct == 0:
        return 1 - (1 - CONFIDENCE) ** (1 / predictions)
    p = correct / predictions
    return min(1.0, p + Z * math.sqrt(p * (1 - p) / (predictions - 1)))


def _prediction(
    name: str, predictions: int, correct: int, longest_run: int, different: int, full_at: int
) -> Prediction:
    """The figures that follow from a score."""
    bound = global_bound(correct, predictions)
    # NIST's r is the shortest run that did not occur.
    local = likeliest_p(longest_run + 1, predictions, CONFIDENCE)
    largest = max(1 / different, bound)
    p_local = None
    if largest < 1 and log_chance_of_no_run(largest, longest_run + 1, predictions) > math.log(
        CONFIDENCE
    ):
        p_local = local
        largest = max(largest, local)
    return Prediction(
        name=name,
        predictions=predictions,
        correct=correct,
        longest_run=longest_run,
        p_global=correct / predictions,
        p_global_bound=bound,
        p_local=p_local,
        min_entropy=_bits(largest),
        global_bits=_bits(bound),
        accuracy_interval=binomial_interval(correct, predictions),
        local_bits=_bits(local),
        local_chance=chance_of_run(1 / different, longest_run, predictions),
        full_at=None if full_at < 0 else full_at,
    )


def _bits(p: float) -> float:
    """-log2 p, and 0 rather than -0 for p = 1."""
    return abs(math.log2(p))


def _histogram(symbols: np.ndarray, alphabet: int) -> np.ndarray:
    """How often each symbol occurs, (alphabet,) int64; in pieces, since bincount widens them."""
    counts = np.zeros(alphabet, dtype=np.int64)
    for first in range(0, symbols.size, _AT_ONCE):
        counts += np.bincount(symbols[first : first + _AT_ONCE], minlength=alphabet)
    return counts


def _checked(who: str, symbols: np.ndarray, alphabet: int, fewest: int) -> np.ndarray:
    """The symbols in one piece, if they are a stream of at least so many over the alphabet."""
    if not isinstance(symbols, np.ndarray) or symbols.dtype != np.uint16:
        what = symbols.dtype if isinstance(symbols, np.ndarray) else type(symbols).__name__
        raise TypeError(f"{who}: symbols is {what}; a numpy array of uint16 fits")
    if symbols.ndim != 1 or symbols.size < fewest:
        raise ValueError(f"{who}: symbols has shape {symbols.shape}; (N,) with N >= {fewest} fits")
    largest = int(symbols.max())
    if not 1 <= alphabet <= 1 << 16 or largest >= alphabet:
        raise ValueError(
            f"{who}: alphabet {alphabet} and a symbol {largest}; "
            "symbols must be below the alphabet, which is 1 to 65536"
        )
    return np.ascontiguousarray(symbols)
