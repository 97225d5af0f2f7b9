"""Whether evidence and power are what they say: ``python -m benchmarks.analysis_validity``.

Stopping whenever one likes: of 2,000 independent streams, uniform and biased, how many show the
online mixture evidence of dependence above 20 at any time (expected: at most 1 in 20).

A planted bias: one symbol of probability (1 + d)/k, found at the N that the verdict's power names
(expected: nine times in ten at N, so hardly ever at N / 4 and nearly always at 2 N).

Writes docs/analysis-validity.md.
"""

import argparse
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from benchmarks import machine
from pyseq.analysis.intervals import binomial_interval

DOCS = Path(__file__).parents[1] / "docs"
STREAMS = 2_000
LENGTH = 4_000  # symbols of each
EXCEEDS = 20.0
RUNS = 40  # of each planted bias
PREDICTED = (
    10_000  # symbols of the online mixture, which adds to the tests and finds no bias sooner
)
LEVEL = 0.01
LAWS = {
    "fair bits": np.full(2, 1 / 2),
    "bits, 9 of 10 alike": np.array([0.9, 0.1]),
    "a fair die": np.full(6, 1 / 6),
    "a biased die": np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1]),
    "uniform over 256": np.full(256, 1 / 256),
    "geometric over 256": 0.9 ** np.arange(256) / (0.9 ** np.arange(256)).sum(),
    "uniform over 65,536": np.full(65_536, 1 / 65_536),
    "Zipf over 65,536": 1 / np.arange(1, 65_537) / (1 / np.arange(1, 65_537)).sum(),
}
BIASES = ((6, 0.1), (256, 0.5), (10_001, 2.0), (65_536, 5.0))


def largest_evidence(job: tuple[str, int]) -> float:
    """log of the largest e-value against independence in one stream."""
    from pyseq.analysis.predictability.online_evidence import online_evidence

    torch.set_num_threads(1)
    law = LAWS[job[0]]
    random = np.random.Generator(np.random.PCG64([job[1], law.size]))
    edges = np.cumsum(law)
    symbols = np.minimum(np.searchsorted(edges, random.random(LENGTH)), law.size - 1)
    return online_evidence(symbols.astype(np.uint16), law.size).dependence.log_e_max


def finds_bias(job: tuple[int, float, int, int]) -> bool:
    """Whether the whole analysis finds one symbol of probability (1 + d)/k among N."""
    from pyseq.analysis.analyze_stream import Settings, analyze_stream

    k, bias, count, seed = job
    torch.set_num_threads(1)
    random = np.random.Generator(np.random.PCG64([seed, k, count]))
    p = (1 + bias) / k
    others = 1 + random.integers(k - 1, size=count)
    symbols = np.where(random.random(count) < p, 0, others).astype(np.uint16)
    settings = Settings(
        level=LEVEL, seed=seed, mixture_symbols=PREDICTED, predictors=False, compressors=False
    )
    found = analyze_stream(torch.from_numpy(symbols), alphabet=k, settings=settings)
    return found.verdicts[0].structure


def named_size(k: int, bias: float) -> int:
    """The N at which the power statement of a verdict says d, with as many tests as are run."""
    from pyseq.analysis.analyze_stream import Settings, analyze_stream
    from pyseq.analysis.randomness.power import symbols_for_bias

    settings = Settings(level=LEVEL, mixture_symbols=PREDICTED, predictors=False, compressors=False)
    count, tests = 100_000, 30
    for _ in range(3):  # the number of tests depends a little on N
        count = symbols_for_bias(bias, k, LEVEL / tests)
        symbols = np.random.Generator(np.random.PCG64(k)).integers(k, size=count, dtype=np.uint16)
        found = analyze_stream(torch.from_numpy(symbols), alphabet=k, settings=settings)
        tests = len(found.tests)
    return count


def main() -> int:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=DOCS / "analysis-validity.md")
    arguments = parser.parse_args()
    with get_context("spawn").Pool(arguments.processes) as pool:
        lines = [*_validity(pool, arguments.streams), "", *_power(pool, arguments.runs)]
    arguments.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def _validity(pool, streams: int) -> list[str]:
    names = list(LAWS)
    jobs = [(names[seed % len(names)], seed) for seed in range(streams)]
    largest = np.array(pool.map(largest_evidence, jobs, chunksize=25))
    lines = [
        "# Evidence that may be looked at any time, and power that is what it says",
        "",
        f"`python -m benchmarks.analysis_validity`, {machine.device_name('cpu')}.",
        "",
        f"Independent streams of {LENGTH:,} symbols, seeds 0 to {streams - 1}: how many ever show "
        f"an e-value against independence above {EXCEEDS:g} (at most 1 in {EXCEEDS:g} may).",
        "",
        "| marginal | streams | ever above | share [95 %, exact] | largest e-value |",
        "|---|---|---|---|---|",
    ]
    groups = [(name, largest[np.array([job[0] == name for job in jobs])]) for name in names]
    for name, found in [*groups, ("all", largest)]:
        above = int((found > np.log(EXCEEDS)).sum())
        share = binomial_interval(above, found.size)
        lines.append(
            f"| {name} | {found.size:,} | {above} | {above / found.size:.4f} [{share.low:.4f}, "
            f"{share.high:.4f}] | {np.exp(found.max()):.2f} |"
        )
    above = int((largest > np.log(EXCEEDS)).sum())
    chance = float(stats.binom.sf(above - 1, largest.size, 1 / EXCEEDS))
    return [*lines, "", f"Chance of {above} or more, were it 1 in {EXCEEDS:g}: {chance:.4f}."]


def _power(pool, runs: int) -> list[str]:
    lines = [
        f"One symbol of probability (1 + d)/k, planted {runs} times (seeds 0 to {runs - 1}); N is "
        "where the verdict says that it would have noticed d nine times in ten.",
        "",
        "| k | d | N | found at N/4 | at N/2 | at N | at 2N |",
        "|---|---|---|---|---|---|---|",
    ]
    for k, bias in BIASES:
        count = named_size(k, bias)
        shares = []
        for size in (count // 4, count // 2, count, 2 * count):
            found = pool.map(finds_bias, [(k, bias, size, seed) for seed in range(runs)])
            shares.append(f"{np.mean(found):.0%}")
        lines.append(f"| {k:,} | {bias:g} | {count:,} | {' | '.join(shares)} |")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
