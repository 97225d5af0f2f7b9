"""Tests for periods and echoes: the periodogram of a sample, and its correlation at every lag.

Of the symbols, their bytes and their bits; the mean is always taken out first. The null is
independent draws of any marginal. Short samples are compared with shuffles of their own, which is
exact; long ones with the laws of normal noise, which hold where the marginal is not too uneven
(`Moments.normal_sums`); a view for which neither holds is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, stats

from pyseq.analysis.randomness.lags import Moments
from pyseq.analysis.randomness.tails import any_of, normal_tail
from pyseq.analysis.randomness.test_result import TestResult
from pyseq.analysis.randomness.views import SYMBOLS, View, bits_of, low_bits, parity, plane, shifted

SAMPLE = 1 << 20  # symbols
FEWEST = 32
_SHUFFLED = 1024  # symbols up to which shuffles decide
_SHUFFLES = 9_999
_AT_ONCE = 500  # shuffles in memory


@dataclass(frozen=True)
class Spectrum:
    """The periodogram of a series without its mean, and its circular autocorrelation.

    Attributes:
        power (array (M,), float64): share of the whole power at the frequencies j / n, j = 1..M,
            with M = (n - 1) // 2, so without the mean and, for even n, the fastest alternation.
        correlation (array (n // 2,), float64): at lags 1..n // 2, the series laid on a circle.
        length (int): n.
    """

    power: NDArray[np.float64]
    correlation: NDArray[np.float64]
    length: int

    @property
    def cumulated(self) -> NDArray[np.float64]:
        """Bartlett's cumulative periodogram at the first M - 1 frequencies."""
        return np.cumsum(self.power, axis=-1)[..., :-1]

    @property
    def bartlett(self) -> NDArray[np.float64]:
        """Largest distance of the cumulative periodogram from that of white noise (Kolmogorov)."""
        steps = self.cumulated
        count = steps.shape[-1]
        above = np.arange(1, count + 1) / count - steps
        below = steps - np.arange(count) / count
        return np.maximum(above.max(axis=-1), below.max(axis=-1))

    @property
    def fisher(self) -> NDArray[np.float64]:
        """Fisher's g: the largest share of the power at one frequency."""
        return self.power.max(axis=-1)

    @property
    def echoes(self) -> NDArray[np.float64]:
        """Correlations without their sign, on one scale: their variance is 1 / n for white noise.

        At half a circle every pair counts twice, and the variance is twice as large.
        """
        sizes = np.abs(self.correlation)
        if self.length % 2 == 0:
            sizes[..., -1] /= 2**0.5
        return sizes

    @property
    def largest_echo(self) -> NDArray[np.float64]:
        """Of any lag."""
        return self.echoes.max(axis=-1)


def spectrum_of(series: NDArray[np.float64]) -> Spectrum:
    """Of series (..., n), none of which is constant."""
    length = series.shape[-1]
    # Single precision is some hundred times finer than the noise of a million symbols.
    centred = (series - series.mean(axis=-1, keepdims=True)).astype(np.float32)
    transform = fft.rfft(centred)
    energy = transform.real**2 + transform.imag**2
    power = energy[..., 1 : (length - 1) // 2 + 1].astype(np.float64)
    total = power.sum(axis=-1, keepdims=True)
    # What only alternates has all its power at the fastest frequency: the next to it takes it.
    alternates = total <= 1e-6 * energy[..., 1:].sum(axis=-1, keepdims=True)
    power[..., -1:] += np.where(alternates, energy[..., -1:].max(), 0.0)
    power = power / power.sum(axis=-1, keepdims=True)
    energy[..., 0] = 0.0
    circular = fft.irfft(energy, length)
    correlation = circular[..., 1 : length // 2 + 1] / circular[..., :1]
    return Spectrum(power, correlation, length)


def fisher_p_value(g: float, frequencies: int) -> float:
    """Bound on the chance that white noise has so large a share at one of M frequencies.

    Source: Fisher 1929, Tests of significance in harmonic analysis: the first term of the exact
    alternating sum, which bounds it.
    """
    if g >= 1:
        return 0.0
    return float(min(1.0, np.exp(np.log(frequencies) + (frequencies - 1) * np.log1p(-g))))


def bartlett_p_value(distance: float, frequencies: int) -> float:
    """Chance that the cumulative periodogram of white noise strays so far.

    Source: Durbin 1969, Tests for serial correlation based on the cumulated periodogram.
    """
    return float(stats.kstwo.sf(distance, frequencies - 1))


def any_lag_p_value(correlation: float, length: int) -> float:
    """Bound on the chance of so large a correlation at one of the lags up to half a circle."""
    lags = length // 2
    return min(1.0, lags * float(normal_tail(correlation * length / np.sqrt(length + 1))))


@dataclass(frozen=True)
class ViewSpectrum:
    """A view's spectrum and its three p-values."""

    view: View
    spectrum: Spectrum
    bartlett: float
    fisher: float
    any_lag: float
    null: str


def sample_length(symbols: int) -> int:
    """How many of the first symbols are looked at: a length with a fast transform."""
    return int(fft.prev_fast_len(min(symbols, SAMPLE), real=True)) if symbols else 0


def view_spectra(
    symbols: NDArray[np.uint16], views: Sequence[View], seed: int
) -> list[ViewSpectrum]:
    """Of each view of a sample (n,) that is not constant and that some null holds for."""
    found = []
    for view in views:
        series = view.table[symbols].astype(np.float64)
        values, counts = np.unique(series, return_counts=True)
        if values.size < 2 or series.size < FEWEST:
            continue
        if series.size <= _SHUFFLED:
            found.append(_against_shuffles(view, series, seed))
        elif Moments.of(values, counts).normal_sums(series.size):
            found.append(_against_noise(view, series))
        else:
            ranks = np.cumsum(counts) - (counts - 1) / 2
            if Moments.of(ranks, counts).normal_sums(series.size):
                place = np.searchsorted(values, series)
                found.append(_against_noise(view, ranks[place]))
    return found


def _against_noise(view: View, series: NDArray[np.float64]) -> ViewSpectrum:
    spectrum = spectrum_of(series)
    frequencies = spectrum.power.size
    return ViewSpectrum(
        view,
        spectrum,
        bartlett_p_value(float(spectrum.bartlett), frequencies),
        fisher_p_value(float(spectrum.fisher), frequencies),
        any_lag_p_value(float(spectrum.largest_echo), spectrum.length),
        "white noise",
    )


def _against_shuffles(view: View, series: NDArray[np.float64], seed: int) -> ViewSpectrum:
    spectrum = spectrum_of(series)
    ours = (spectrum.bartlett, spectrum.fisher, spectrum.largest_echo)
    exceeding = np.ones(3)  # the order that came is one of those that are alike
    random = np.random.Generator(np.random.PCG64(seed))
    for first in range(0, _SHUFFLES, _AT_ONCE):
        many = np.tile(series, (min(_AT_ONCE, _SHUFFLES - first), 1))
        theirs = spectrum_of(random.permuted(many, axis=1))
        for k, values in enumerate((theirs.bartlett, theirs.fisher, theirs.largest_echo)):
            exceeding[k] += np.count_nonzero(values >= ours[k] * (1 - 1e-9))
    p = exceeding / (_SHUFFLES + 1)
    null = f"{_SHUFFLES:,} shuffles"
    return ViewSpectrum(view, spectrum, float(p[0]), float(p[1]), float(p[2]), null)


def spectrum_views(symbols: NDArray[np.uint16], alphabet: int) -> list[tuple[str, list[View]]]:
    """What is looked at: the symbols, how far they are from the median, their bytes, their bits."""
    whole = View("symbols", shifted(0).table, shifted(0).classes)
    groups = [("symbols", [whole])]
    if alphabet > 2 and symbols.size:
        # The median of the sample does not depend on the order of its symbols.
        median = int(np.median(symbols))
        sizes = np.abs(np.arange(SYMBOLS) - median).astype(np.uint16)
        groups.append(("distances from the median", [View("distance", sizes, SYMBOLS)]))
    if alphabet > 256:
        groups += [("high byte", [shifted(8)]), ("low byte", [low_bits(8)])]
    if alphabet > 2:
        planes = [plane(bit) for bit in range(bits_of(alphabet))]
        groups.append(("bits", [*planes, parity()]))
    return groups


def spectrum_tests(
    symbols: NDArray[np.uint16], alphabet: int, seed: int
) -> Iterator[tuple[list[TestResult], list[ViewSpectrum], str]]:
    """For each group of views: its tests, its spectra, and why there is none ("" where there is).

    Args:
        symbols (array (n,), uint16): the first symbols, as many as `sample_length` says.
        alphabet (int): k.
        seed (int): of the shuffles that short samples are compared with.

    Yields:
        tuple: tests of the question "dependence".
    """
    for name, views in spectrum_views(symbols, alphabet):
        spectra = view_spectra(symbols, views, seed)
        if not spectra:
            yield [], [], f"periods of the {name}: too few symbols, or too uneven ones"
            continue
        yield [_line(name, spectra), _whole(name, spectra), _echo(name, spectra)], spectra, ""


def _named(spectrum: ViewSpectrum, among: list[ViewSpectrum]) -> str:
    return f"{spectrum.view.name}: " if len(among) > 1 else ""


def _bonferroni(spectra: list[ViewSpectrum]) -> str:
    return f", Bonferroni over {len(spectra)} views" if len(spectra) > 1 else ""


def _line(name: str, spectra: list[ViewSpectrum]) -> TestResult:
    worst = min(spectra, key=lambda s: (s.fisher, -s.spectrum.fisher))
    place = int(worst.spectrum.power.argmax()) + 1
    period = worst.spectrum.length / place
    return TestResult(
        f"a single line in the spectrum of the {name}", "dependence",
        any_of([s.fisher for s in spectra]),
        f"{_named(worst, spectra)}{worst.spectrum.fisher:.2e} of the power at a period of "
        f"{period:,.2f}",
        f"Fisher's g, {worst.null}{_bonferroni(spectra)}", worst.spectrum.length,
        f"the {name} repeat with a period of {period:,.2f} symbols",
    )  # fmt: skip


def _whole(name: str, spectra: list[ViewSpectrum]) -> TestResult:
    worst = min(spectra, key=lambda s: (s.bartlett, -s.spectrum.bartlett))
    return TestResult(
        f"the whole spectrum of the {name}", "dependence",
        any_of([s.bartlett for s in spectra]),
        f"{_named(worst, spectra)}distance {worst.spectrum.bartlett:.2e}",
        f"Bartlett's cumulative periodogram, {worst.null}{_bonferroni(spectra)}",
        worst.spectrum.length, f"the spectrum of the {name} is not flat",
    )  # fmt: skip


def _echo(name: str, spectra: list[ViewSpectrum]) -> TestResult:
    worst = min(spectra, key=lambda s: (s.any_lag, -s.spectrum.largest_echo))
    lag = int(worst.spectrum.echoes.argmax()) + 1
    lags = worst.spectrum.correlation.size
    null = f"normal, Bonferroni over {lags:,} lags" if worst.null == "white noise" else worst.null
    return TestResult(
        f"correlation of the {name} at any lag", "dependence",
        any_of([s.any_lag for s in spectra]),
        f"{_named(worst, spectra)}{worst.spectrum.correlation[lag - 1]:+.4f} at lag {lag:,}",
        f"{null}{_bonferroni(spectra)}",
        worst.spectrum.length, f"the {name} correlate with those {lag:,} before",
    )  # fmt: skip
