"""The battery of one short stream, for the tests of its tests."""

import numpy as np

from pyseq.analysis.randomness import lag_information, linear, spectrum
from pyseq.analysis.randomness.lags import lag_tests
from pyseq.analysis.randomness.marginal import DeclaredLaw, marginal_tests
from pyseq.analysis.randomness.runs_and_gaps import clustering_tests
from pyseq.analysis.randomness.symbol_pass import FIRST_LOOK, StreamPass


def pass_counts(symbols):
    """PassCounts of symbols (N,) uint16."""
    taken = StreamPass(symbols[:FIRST_LOOK])
    taken.add(symbols)
    return taken.counts()


def battery(symbols, alphabet, *, seed=0):
    """Every test but the evidence."""
    counts = pass_counts(symbols)
    tests = [*clustering_tests(counts), *lag_tests(counts)]
    if alphabet > 1:
        law = DeclaredLaw(f"uniform over {alphabet}", alphabet)
        tests += marginal_tests(counts.histogram, law)
    sample = symbols[: spectrum.sample_length(symbols.size)]
    for found, _, _ in spectrum.spectrum_tests(sample, alphabet, seed):
        tests += found
    information = lag_information.lag_information(symbols, seed)
    if information is not None:
        tests.append(lag_information.lag_information_test(information))
    return [*tests, *linear.linear_tests(symbols, alphabet)]


def marginals():
    """name -> (alphabet, function (generator, N) -> independent symbols (N,) uint16)."""

    def drawn(probabilities):
        edges = np.cumsum(probabilities)
        return lambda random, count: np.minimum(
            np.searchsorted(edges, random.random(count)), len(edges) - 1
        ).astype(np.uint16)

    zipf = 1 / np.arange(1, 301)
    return {
        "fair bits": (2, drawn([0.5, 0.5])),
        "rare ones": (2, drawn([0.99, 0.01])),
        "a biased die": (6, drawn([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])),
        "uniform": (65_536, lambda random, count: random.integers(65_536, size=count, dtype="u2")),
        "10,001 symbols": (10_001, lambda r, count: r.integers(10_001, size=count, dtype="u2")),
        "few frequent symbols": (300, drawn(zipf / zipf.sum())),
        "huge gaps": (65_536, lambda r, count: r.choice(np.array([0, 7, 65_535], "u2"), count)),
    }
