"""The whole analysis of a stream: one pass, a sample, evidence, predictors, two verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.predictability import sp800_90b
from pyseq.analysis.predictability.evidence import Evidence
from pyseq.analysis.predictability.learned_evidence import LearnedEvidence
from pyseq.analysis.predictability.online_evidence import OnlineEvidence, online_evidence
from pyseq.analysis.predictability.perfect_source import expected_of_perfect, expected_runs
from pyseq.analysis.randomness import lag_information, linear, pictures, spectrum
from pyseq.analysis.randomness.compression import SAMPLE as COMPRESSED
from pyseq.analysis.randomness.compression import compressed_sizes
from pyseq.analysis.randomness.lags import lag_tests
from pyseq.analysis.randomness.marginal import DeclaredLaw, entropies, marginal_tests
from pyseq.analysis.randomness.power import powers
from pyseq.analysis.randomness.runs_and_gaps import clustering_tests
from pyseq.analysis.randomness.symbol_pass import (
    FIRST_LOOK,
    PassCounts,
    StreamPass,
    Symbols,
    pieces,
)
from pyseq.analysis.randomness.test_result import TestResult, holm
from pyseq.analysis.randomness.verdict import verdicts
from pyseq.analysis.randomness.views import SYMBOLS
from pyseq.analysis.stream_analysis import Pictures, StreamAnalysis
from pyseq.errors import UserError


@dataclass(frozen=True)
class Settings:
    """What an analysis does.

    Attributes:
        level (float): chance that any of the two verdicts is wrong on a stream without structure.
        seed (int): of shuffles and bootstraps.
        mixture_symbols (int): the first symbols, that the online mixture predicts.
        predictor_symbols (int): the first symbols, that the predictors of SP 800-90B predict.
        predictors (bool): whether these are run; they enter no verdict.
        compressors (bool): whether a sample is compressed; it enters no verdict.
    """

    level: float = 0.01
    seed: int = 0
    mixture_symbols: int = 1 << 21
    predictor_symbols: int = 1 << 20
    predictors: bool = True
    compressors: bool = True


@dataclass(frozen=True)
class InterimLine:
    """Where the tests of every symbol stand while a stream is read.

    Attributes:
        symbols (int): read so far.
        smallest (TestResult): the test with the smallest p-value.
        adjusted (float): its p-value after Holm's correction over the tests so far. Looking again
            at every doubling is not corrected for: the verdict at the end is.
    """

    symbols: int
    smallest: TestResult
    adjusted: float


class Watcher:
    """Told what is going on; this one does nothing about it."""

    def reading(self, done: int, total: int) -> None:
        """Symbols read of all."""

    def interim(self, line: InterimLine) -> None:
        """The number of symbols read has doubled."""

    def stage(self, name: str) -> None:
        """What is done next: "sample", "online mixture", "predictors", "compressors"."""


def analyze_stream(
    symbols: Symbols,
    *,
    alphabet: int | None = None,
    settings: Settings | None = None,
    law: DeclaredLaw | None = None,
    learned: Sequence[LearnedEvidence] = (),
    facts: Sequence[tuple[str, object]] = (),
    entropy_rate: float | None = None,
    watcher: Watcher | None = None,
) -> StreamAnalysis:
    """Test a stream for structure and measure how predictable it is.

    Histogram, runs, gaps, pairs of bytes, correlation and equality at lags 1 to 64 read every
    symbol; all else reads the first symbols, as many as the results say.

    Args:
        symbols (Symbols): N >= 1 of them.
        alphabet (int or None): k, symbols are 0..k-1; None: the highest symbol + 1, 2 at least.
        settings (Settings or None): see there.
        law (DeclaredLaw or None): what the marginal is compared with; None: uniform over k.
        learned (sequence of LearnedEvidence): by trained models.
        facts (sequence of (name, value)): what the page says of the stream.
        entropy_rate (float or None): bits/symbol, where it is known.
        watcher (Watcher or None): told of progress.

    Returns:
        StreamAnalysis: two verdicts, valid together at the level, and what they come from.

    Raises:
        UserError: there are no symbols, or one lies outside the alphabet.
        BackendUnavailable: pyseq._core was not built.
    """
    settings, watcher = settings or Settings(), watcher or Watcher()
    counts = _read(symbols, watcher)
    highest = int(np.flatnonzero(counts.histogram)[-1])
    if alphabet is not None and highest >= alphabet:
        raise UserError(f"symbol {highest} lies outside the declared alphabet of {alphabet}")
    k = alphabet or max(2, highest + 1)
    law = law or DeclaredLaw(f"uniform over {k:,} symbols", k)
    tests = list(_every_symbol(counts, law))
    watcher.stage("sample")
    sample = _Sample(symbols, k, settings)
    tests += sample.tests
    watcher.stage("online mixture")
    online = sample.evidence()
    if online is not None:
        tests.append(_evidence_test("the online mixture", online.dependence))
        if law.sample is None:
            tests.append(_uniform_test("the online mixture", online.uniform))
    for model in learned:
        tests.append(_evidence_test(model.name, model.dependence))
        if law.sample is None and model.alphabet == k:
            tests.append(_uniform_test(model.name, model.uniform))
    watcher.stage("predictors")
    predictions = sample.predictions() if settings.predictors else ([], None, {})
    watcher.stage("compressors")
    compressed = sample.compressed() if settings.compressors else []
    adjusted = holm([test.p_value for test in tests])
    noticed = list(
        powers(
            counts.symbols, k, settings.level / max(1, len(tests)),
            declared_uniform=law.sample is None,
            correlation=any(test.name.startswith("autocorrelation") for test in tests),
            information=sample.information,
            evidence=(
                (online.dependence.symbols, [view for view, _ in online.views]) if online else None
            ),
        )
    )  # fmt: skip
    entropy, min_entropy = entropies(counts.histogram)
    return StreamAnalysis(
        facts=[*facts, *_reading_facts(counts, settings, sample, online, learned)],
        symbols=counts.symbols,
        alphabet=k,
        level=settings.level,
        verdicts=verdicts(
            tests, adjusted, level=settings.level, symbols=counts.symbols, power=noticed,
            law=law.words,
        ),
        tests=tests,
        adjusted=adjusted,
        skipped=[*_left_out(counts, tests), *sample.left_out],
        power=noticed,
        entropy=entropy,
        min_entropy=min_entropy,
        evidence=_named_evidence(online, learned),
        code_lengths=[*([online.code_length] if online else []), *(m.code_length for m in learned)],
        predictions=predictions[0],
        most_common_value=predictions[1],
        expected=predictions[2],
        predicted_symbols=min(counts.symbols, settings.predictor_symbols),
        compressed=compressed,
        pictures=sample.pictures(counts, law),
        entropy_rate=entropy_rate,
    )  # fmt: skip


def _read(symbols: Symbols, watcher: Watcher) -> PassCounts:
    total = len(symbols)
    if total == 0:
        raise UserError("the stream holds no symbols; 1 or more fit")
    taken = StreamPass(symbols[0 : min(total, FIRST_LOOK)].numpy())
    done = 0
    for piece in pieces(symbols, total):
        taken.add(piece)
        done += piece.size
        watcher.reading(done, total)
        if done.bit_count() == 1 and done >= FIRST_LOOK and done < total:
            watcher.interim(_interim(taken.counts()))
    return taken.counts()


def _interim(counts: PassCounts) -> InterimLine:
    k = int(np.flatnonzero(counts.histogram)[-1]) + 1
    tests = [*clustering_tests(counts), *lag_tests(counts)]
    if not tests:
        tests = list(marginal_tests(counts.histogram, DeclaredLaw(f"uniform over {k:,}", k)))
    p_values = [test.p_value for test in tests]
    smallest = int(np.argmin(p_values))
    return InterimLine(counts.symbols, tests[smallest], float(holm(p_values)[smallest]))


def _every_symbol(counts: PassCounts, law: DeclaredLaw) -> Iterator[TestResult]:
    if law.alphabet > 1:
        yield from marginal_tests(counts.histogram, law)
    yield from clustering_tests(counts)
    yield from lag_tests(counts)


class _Sample:
    """The first symbols of a stream, and everything that reads no more than these."""

    def __init__(self, symbols: Symbols, alphabet: int, settings: Settings):
        self.alphabet, self.settings = alphabet, settings
        most = max(settings.mixture_symbols, settings.predictor_symbols, spectrum.SAMPLE)
        self.symbols: NDArray[np.uint16] = symbols[0 : min(len(symbols), most)].numpy()
        self.tests: list[TestResult] = []
        self.spectra: list[spectrum.ViewSpectrum] = []
        self.left_out: list[tuple[str, str]] = []
        self._spectra()
        self.information = lag_information.lag_information(
            self.symbols[: lag_information.SAMPLE], settings.seed
        )
        if self.information is not None:
            self.tests.append(lag_information.lag_information_test(self.information))
        else:
            self.left_out.append(
                ("mutual information at lags", "too few symbols, or one class only")
            )
        found = list(linear.linear_tests(self.symbols[: linear.SAMPLE], alphabet))
        self.tests += found
        for name in ("linear complexity", "rank"):
            if not any(test.name.startswith(name) for test in found):
                self.left_out.append((f"{name} of bits", "too few symbols, or bits too uneven"))

    def _spectra(self) -> None:
        sample = self.symbols[: spectrum.sample_length(self.symbols.size)]
        groups = spectrum.spectrum_tests(sample, self.alphabet, self.settings.seed)
        for tests, spectra, why in groups:
            self.tests += tests
            self.spectra += spectra
            if why:
                name, _, reason = why.partition(": ")
                self.left_out.append((name, reason))

    def evidence(self) -> OnlineEvidence | None:
        sample = self.symbols[: self.settings.mixture_symbols]
        if sample.size < 2 or self.alphabet < 2:
            self.left_out.append(("evidence by the online mixture", "nothing to predict"))
            return None
        return online_evidence(
            sample, self.alphabet, level=self.settings.level, seed=self.settings.seed
        )

    def predictions(self):
        sample = self.symbols[: self.settings.predictor_symbols]
        try:
            found = sp800_90b.predict_all(sample, self.alphabet)
            common = sp800_90b.most_common_value(sample, self.alphabet)
        except ValueError as refusal:
            self.left_out.append(("predictors of SP 800-90B", str(refusal)))
            return [], None, {}
        if self.alphabet < 2:
            return found, common, {}
        expected: dict[str, object] = dict(expected_of_perfect(sample.size, self.alphabet))
        return found, common, expected | {"runs": expected_runs(sample.size, self.alphabet)}

    def compressed(self):
        sample = self.symbols[:COMPRESSED]
        return compressed_sizes(sample, self.alphabet, self.settings.seed)

    def pictures(self, counts: PassCounts, law: DeclaredLaw) -> Pictures:
        sample = self.symbols[: self.settings.predictor_symbols]
        accuracy = []
        if sample.size > 2 * 128:
            shares = sp800_90b.lag_accuracy(sample)
            histogram = np.bincount(sample, minlength=SYMBOLS)
            accuracy.append(pictures.accuracy_band(shares, histogram))
        return Pictures(
            cumulated_spectrum=[pictures.cumulated_band(found) for found in self.spectra],
            spectrum=[pictures.line_band(found) for found in self.spectra],
            autocorrelation=_present(pictures.correlation_band(counts)),
            lag_information=(
                [pictures.information_band(self.information)] if self.information else []
            ),
            histogram=_present(pictures.histogram_band(counts.histogram, law)),
            lag_accuracy=accuracy,
        )


def _present(band) -> list:
    return [] if band is None else [band]


_VILLE = "Ville's inequality, valid at any time"


def _evidence_test(name: str, found: Evidence) -> TestResult:
    return TestResult(
        f"evidence by {name}", "dependence", found.p_value, _log10(found), _VILLE, found.symbols,
        "the past predicts what comes",
    )  # fmt: skip


def _uniform_test(name: str, found: Evidence) -> TestResult:
    return TestResult(
        f"evidence against uniform draws by {name}", "marginal", found.p_value, _log10(found),
        _VILLE, found.symbols, "a predictor does better than even guesses",
    )  # fmt: skip


def _log10(evidence: Evidence) -> str:
    return f"largest e-value 10^{evidence.log_e_max / np.log(10):.2f}"


def _named_evidence(
    online: OnlineEvidence | None, learned: Sequence[LearnedEvidence]
) -> list[tuple[str, Evidence]]:
    named: list[tuple[str, Evidence]] = []
    if online is not None:
        named.append(("online mixture, mean of all views", online.dependence))
        named += [(f"online mixture, {view.name}", found) for view, found in online.views]
        named.append(("online mixture, against uniform draws", online.uniform))
    for model in learned:
        named.append((f"{model.name}, mean of all views", model.dependence))
        against = f"against uniform draws of {model.alphabet:,} symbols"
        named.append((f"{model.name}, {against}", model.uniform))
    return named


def _reading_facts(
    counts: PassCounts, settings: Settings, sample: _Sample, online: OnlineEvidence | None,
    learned: Sequence[LearnedEvidence],
) -> Iterator[tuple[str, object]]:  # fmt: skip
    yield "seed", settings.seed
    yield "read by the tests of every symbol", f"{counts.symbols:,} symbols"
    spectra = spectrum.sample_length(sample.symbols.size)
    yield "read by the spectra", f"the first {spectra:,} symbols"
    if online is not None:
        skipped = f"; the first {online.skipped:,} decide its bins" if online.skipped else ""
        yield "read by the online mixture", f"the first {online.uniform.symbols:,} symbols{skipped}"
    for model in learned:
        yield f"read by {model.name}", model.where


def _left_out(counts: PassCounts, tests: Sequence[TestResult]) -> Iterator[tuple[str, str]]:
    """Tests of every symbol that could not be run, and why."""
    names = [test.name for test in tests]
    if np.count_nonzero(counts.histogram) < 2:
        yield "all tests of order", "one and the same symbol has no order"
        return
    few = "too few symbols, or a marginal too uneven for the test's null"
    for name in ("runs", "gaps", "pairs: low", "autocorrelation", "equal symbols, lags"):
        if not any(found.startswith(name) for found in names):
            yield name.replace("pairs: low", "pairs of bytes"), few
