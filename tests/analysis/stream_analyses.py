"""Analyses of streams with everything, with structure and with almost nothing, for tests."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from pyseq.analysis.intervals import Interval
from pyseq.analysis.predictability.evidence import Evidence
from pyseq.analysis.predictability.perfect_source import Expectation, ExpectedRun
from pyseq.analysis.predictability.sp800_90b import MostCommonValue, Prediction
from pyseq.analysis.randomness.test_result import TestResult, holm
from pyseq.analysis.stream_analysis import (
    Band,
    CodeLength,
    Compressed,
    Pictures,
    Power,
    StreamAnalysis,
    StreamVerdict,
)

N, K, LEVEL = 1_000_000, 10_001, 0.01
NULLS = {
    "marginal": f"independent draws, uniform over {K:,} symbols",
    "dependence": "independent draws of the symbols' own frequencies",
}
NAMES = {
    "marginal": ("histogram", "coarser scales", "single symbols"),
    "dependence": (
        "the whole spectrum of the symbols",
        "a single line in the spectrum of the symbols",
        "autocorrelation, lags 1 to 64 together",
        "mutual information at lags",
        "equal symbols, one of lags 1 to 128",
        "runs above and below the median",
        "rank of 64 x 64 matrices of bits",
        "evidence of the online mixture",
    ),
}


def band(name, y, half, *, middle=0.0, first=1.0, step=1.0, low=None):
    """A curve over evenly spaced x, with a band of one half width all along."""
    x = first + step * np.arange(len(y))
    lower = middle - half if low is None else low
    return Band(name, x, np.asarray(y, dtype=np.float64), lower, middle + half, LEVEL)


def curves(structured=False, seed=1):
    """All kinds of curves; structured ones leave their bands in known places."""
    draw = np.random.default_rng(seed)
    views = ["symbols", "high byte", "low byte", *(f"bit {k}" for k in range(5))]
    correlation, lines = draw.normal(0, 0.001, 64), draw.uniform(5, 12, 300)
    information = draw.normal(0.004, 0.0003, 32)
    equal = draw.normal(1e-4, 1e-5, 128)
    counts = draw.normal(1, 0.01, 128)
    if structured:
        correlation[6], lines[85], information[6], equal[6], counts[0] = 0.2, 9000, 0.4, 0.21, 1.3

    def cumulated(k):
        bridge = np.cumsum(draw.normal(0, 1, 2000))
        bridge -= np.linspace(0, bridge[-1], 2000)
        return bridge * 0.0004 / np.abs(bridge).max() * (4 if structured and k == 2 else 1)

    step = 0.5 / 2000
    return Pictures(
        cumulated_spectrum=[
            band(name, cumulated(k), 0.0012, first=step, step=step) for k, name in enumerate(views)
        ],
        spectrum=[
            band(name, lines if k == 0 else draw.uniform(5, 12, 300), 17.0, first=1 / 1200,
                 step=1 / 600, low=0.0)
            for k, name in enumerate(views)
        ],
        autocorrelation=[
            band(name, correlation if k == 0 else draw.normal(0, 0.001, 64), 0.0041)
            for k, name in enumerate(views[:3])
        ],
        lag_information=[band("high byte", information, 0.0012, middle=0.004)],
        histogram=[band("bins of 78 symbols", counts, 0.04, middle=1.0, first=39, step=78)],
        lag_accuracy=[band("symbols", equal, 5e-5, middle=1e-4)],
    )  # fmt: skip


def evidence(name, total, *, null="independent draws of an unknown law, 256 classes"):
    """An e-process that goes straight to a total log10 E, by way of a small maximum."""
    seen = np.linspace(0, N, 501).astype(np.int64)
    path = total * seen / N
    path[3] = max(path[3], 0.4)
    largest = float(path.max())
    passed = int(N * 2 / total) if total > 2 else None
    return name, Evidence(
        null=null,
        symbols=N,
        log_e=total * math.log(10),
        log_e_max=largest * math.log(10),
        level=LEVEL,
        first_exceeds=passed,
        p_value=min(1.0, 10.0**-largest),
        path=(seen, path),
        saved_bits=Interval(0.5, 0.49, 0.51) if total > 0 else Interval(-0.001, -0.002, 0.0),
    )


def prediction(name, correct, run, chance):
    """One predictor on N symbols of K."""
    guesses, share = N - 63, correct / (N - 63)
    bits = -math.log2(max(share, 1 / K))
    return Prediction(
        name=name,
        predictions=guesses,
        correct=correct,
        longest_run=run,
        p_global=share,
        p_global_bound=1.2 * share,
        p_local=0.004,
        min_entropy=7.9658,
        global_bits=bits - 0.26,
        accuracy_interval=Interval(share, 0.8 * share, 1.2 * share),
        local_bits=7.9658,
        local_chance=chance,
    )


def verdict(question, fired, symbols=N):
    """A verdict in the words that a run gives it."""
    if fired:
        sentence = f"{question}: structure in {symbols:,} symbols: {', '.join(fired)}"
    else:
        sentence = (
            f"{question}: no evidence of structure in {symbols:,} symbols; this run would have "
            "noticed one symbol that comes 1.6 times as often as the others, 9 times in 10"
        )
    return StreamVerdict(question, NULLS[question], bool(fired), sentence, fired)


def analysis(p_values, pictures, **changes):
    """An analysis with a p-value for each of `NAMES`, in their order."""
    tests = [
        TestResult(
            name, question, p, f"statistic {k + 3.25}", "exact, hypergeometric" if k % 2 else
            "chi-square, 65,535 degrees of freedom", N - k, f"finding {k}" if p < 1e-4 else "",
        )
        for k, ((question, name), p) in enumerate(
            zip([(q, name) for q in NAMES for name in NAMES[q]], p_values, strict=True)
        )
    ]  # fmt: skip
    adjusted = holm(p_values)
    fired = {
        question: [
            test.name for test, p in sorted(zip(tests, adjusted, strict=True), key=lambda t: t[1])
            if test.question == question and p <= LEVEL
        ]
        for question in NAMES
    }  # fmt: skip
    found = StreamAnalysis(
        facts=[("file", Path("data/rolls.u16")), ("seed", 7), ("seconds", 12.5)],
        symbols=N,
        alphabet=K,
        level=LEVEL,
        verdicts=[verdict(question, fired[question]) for question in NAMES],
        tests=tests,
        adjusted=adjusted,
        skipped=[("matrix rank, bit 15", "the bit never changes")],
        power=[
            Power("marginal", "one symbol with probability (1 + d)/k", 0.6,
                  "one symbol whose probability is 1.6 times 1/10,001", 0.9),
            Power("dependence", "a correlation at one lag", 0.0051, "a correlation of 0.0051", 0.9),
        ],
        entropy=13.2807,
        min_entropy=12.6123,
        evidence=[
            evidence("mixture", -310.0),
            evidence("high byte", -420.0),
            evidence("bit 0", -2.5),
        ],
        code_lengths=[
            CodeLength(
                "online mixture of count models", N, Interval(13.2921, 13.2919, 13.2923),
                Interval(13.2913, 13.291, 13.2916), math.log2(K), 13.2807,
                Interval(0.0001, 0.00008, 0.00012), Interval(13.2877, 13.0247, 13.6096),
                {"order 0": 0.91, "uniform": 0.06, "order 1": 0.03}, K,
            )
        ],
        predictions=[
            prediction("MultiMCW", 101, 1, 0.99), prediction("Lag", 97, 2, 0.0087),
            prediction("MultiMMC", 99, 1, 0.99), prediction("LZ78Y", 104, 1, 0.99),
        ],
        most_common_value=MostCommonValue(151, 1.51e-4, 1.83e-4, 12.4162),
        expected={
            "MultiMCW": Expectation(13.0211, 12.8404, 13.2198),
            "most_common_value": Expectation(12.4051, 12.2613, 12.4908),
            "runs": [ExpectedRun(1, 0.9999, 13.9), ExpectedRun(2, 0.00995, 7.97)],
        },
        predicted_symbols=N,
        compressed=[Compressed("xz -9e", 100_000, 14.9012, 14.9034)],
        pictures=pictures,
    )  # fmt: skip
    return replace(found, **changes)


def nothing():
    """A stream in which nothing was found."""
    return analysis([0.41, 0.7, 0.093, 0.55, 0.031, 0.72, 0.2, 0.9, 0.33, 1.0, 1.0], curves())


def structure():
    """A stream that repeats every seven symbols."""
    code = CodeLength(
        "online mixture of count models", N, Interval(8.912, 8.909, 8.915),
        Interval(8.731, 8.728, 8.734), math.log2(K), 13.2807, Interval(0.21, 0.2092, 0.2108),
        Interval(2.2515, 2.246, 2.2571), {"lag 7": 0.83, "order 1": 0.17}, K,
    )  # fmt: skip
    model = replace(
        code, name="baseline model.pt", bits=Interval(3.1, 3.0, 3.2), alphabet=256,
        late_bits=Interval(3.05, 3.0, 3.1), marginal_bits=7.99, uniform_bits=8.0, weights={},
    )  # fmt: skip
    return analysis(
        [0.41, 0.7, 0.093, 0.55, 0.0, 1e-45, 3e-9, 1e-60, 0.33, 0.2, 1e-310],
        curves(structured=True),
        evidence=[evidence("mixture", 30_000.0), evidence("high byte", 29_000.0),
                  evidence("bit 0", -2.5)],
        code_lengths=[code, model],
        entropy_rate=8.7234,
    )  # fmt: skip


def tiny():
    """A hundred symbols: most parts are missing, empty or not finite."""
    none = Interval(math.nan, -math.inf, math.inf)
    return StreamAnalysis(
        facts=[],
        symbols=100,
        alphabet=2,
        level=LEVEL,
        verdicts=[verdict(question, [], 100) for question in NAMES],
        tests=[TestResult("single symbols", "marginal", 1.0, "50 of 100", "exact", 100)],
        adjusted=np.array([1.0]),
        skipped=[("spectrum", "100 symbols are too few")],
        power=[],
        entropy=1.0,
        min_entropy=math.inf,
        evidence=[(
            "bit 0",
            Evidence("fair bits", 0, 0.0, 0.0, LEVEL, None, 1.0, (np.array([0]), np.zeros(1)),
                     none),
        )],
        code_lengths=[CodeLength("mixture", 0, none, none, 1.0, math.nan, none, none)],
        predictions=[
            replace(
                prediction("Lag", 0, 0, math.nan), predictions=0, p_local=None, local_bits=math.inf,
                accuracy_interval=Interval(0.0, 0.0, 1.0),
            )
        ],
        compressed=[Compressed("zstd", 0, math.inf, math.nan)],
        pictures=Pictures(
            autocorrelation=[band("symbols", [np.nan, np.nan], 0.1)],
            histogram=[band("symbols", [], 0.1)],
            lag_accuracy=[band("symbols", [0.5], 0.0, middle=0.5)],
        ),
    )  # fmt: skip
