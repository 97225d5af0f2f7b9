"""The whole analysis: verdicts, declared laws, interim lines, and streams that are odd."""

import warnings

import numpy as np
import pytest
import torch

from pyseq.analysis.analyze_stream import Settings, Watcher, analyze_stream
from pyseq.analysis.randomness.lags import lag_tests
from pyseq.analysis.randomness.marginal import DeclaredLaw, marginal_tests
from pyseq.data.streams import make
from pyseq.errors import UserError
from pyseq.ops import backends
from tests.analysis.randomness.batteries import pass_counts

pytestmark = pytest.mark.skipif(
    backends.refuse_native() is not None, reason="pyseq._core is not built"
)

QUICK = Settings(compressors=False, predictors=False, mixture_symbols=1 << 15)


def random(seed):
    return np.random.Generator(np.random.PCG64(seed))


def analysis(symbols, *, settings=QUICK, **named):
    tensor = torch.from_numpy(np.asarray(symbols).astype(np.uint16))
    return analyze_stream(tensor, settings=settings, **named)


def structure(found):
    """Whether there is any, by question."""
    return {verdict.question: verdict.structure for verdict in found.verdicts}


def rows(found):
    return [(test.name, test.question, test.p_value, test.statistic) for test in found.tests]


def assert_sound(found):
    """What holds of every analysis."""
    p_values = np.array([test.p_value for test in found.tests])
    assert np.isfinite(p_values).all()
    assert ((p_values >= 0) & (p_values <= 1)).all()
    assert (found.adjusted >= p_values).all()
    assert (found.adjusted <= 1).all()
    # Holm: in the order of p-values the corrected ones do not fall, and the first is M times it.
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(found.adjusted[order]) >= 0).all()
    if p_values.size:
        assert found.adjusted.min() == min(1.0, p_values.size * p_values.min())
    assert [verdict.question for verdict in found.verdicts] == ["marginal", "dependence"]
    for verdict in found.verdicts:
        fired = {
            test.name
            for test, p in zip(found.tests, found.adjusted, strict=True)
            if p <= found.level and test.question == verdict.question
        }
        assert set(verdict.fired) == fired
        assert verdict.structure == bool(fired)
        assert verdict.sentence.startswith(f"{verdict.question}: ")
        assert verdict.sentence.endswith(".")
        what = "structure in" if fired else "no "
        assert verdict.sentence.startswith(f"{verdict.question}: {what}")


# Each has another departure from uniform independent draws; the streams are those of a seed, so
# that these verdicts are either always right or always wrong.
@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("hmac_rolls", 30_000, (False, False)),
        ("pcg64", 30_000, (False, False)),
        ("biased", 20_000, (True, False)),
        ("discretised_normal", 20_000, (True, False)),
        ("markov1", 20_000, (True, True)),
        ("random_walk", 20_000, (True, True)),
        ("periodic", 20_000, (True, True)),
    ],
)
def test_verdicts(name, count, expected):
    stream = make(name)
    found = analysis(stream.generate(count, 3), alphabet=stream.alphabet)
    assert_sound(found)
    assert tuple(structure(found).values()) == expected
    assert (found.symbols, found.alphabet) == (count, stream.alphabet)
    if not any(expected):
        assert {power.question for power in found.power} == {"marginal", "dependence"}
        for verdict in found.verdicts:
            mine = [power.text for power in found.power if power.question == verdict.question]
            assert "this run would have noticed" in verdict.sentence
            assert all(text in verdict.sentence for text in mine)


def test_a_linear_generator_is_found_by_dependence():
    """Its marginal is even; the bits alone give it away."""
    stream = make("lfsr16")
    found = analysis(stream.generate(20_000, 3), alphabet=stream.alphabet)
    assert structure(found)["dependence"]
    assert any(name.startswith("linear complexity") for name in found.verdicts[1].fired)


def test_what_it_says_it_would_have_noticed_is_noticed():
    """At the bias it names the test fires 9 times in 10; of 40 streams fewer than 30 is below
    0.002."""
    count, k = 20_000, 64
    null = analysis(random(0).integers(k, size=count), alphabet=k)
    [bias] = [power.size for power in null.power if power.question == "marginal"]
    shares = np.full(k, (1 - (1 + bias) / k) / (k - 1))
    shares[9] = (1 + bias) / k
    found = 0
    for counts in random(1).multinomial(count, shares, 40):
        histogram = np.append(counts, np.zeros(65_536 - k, np.int64))
        tests = {test.name: test.p_value for test in marginal_tests(histogram, DeclaredLaw("", k))}
        found += tests["single symbols"] <= null.level / len(null.tests)
    assert found >= 30


def test_a_law_from_a_sample():
    """An uneven source has the law of another stretch of itself, and not of a shifted one."""
    source = make("discretised_normal")
    sample = source.generate(60_000, 1).numpy()
    law = DeclaredLaw(
        "that of another stretch", source.alphabet, np.bincount(sample, minlength=65_536)
    )
    same = source.generate(30_000, 2).numpy()
    found = analysis(same, alphabet=source.alphabet, law=law)
    assert_sound(found)
    assert structure(found) == {"marginal": False, "dependence": False}
    assert "that of another stretch" in found.verdicts[0].sentence
    assert not any("uniform" in test.name for test in found.tests)
    # Against uniform draws the same stream is found, so that the sample decided.
    assert structure(analysis(same, alphabet=source.alphabet))["marginal"]
    deviation = float(same.astype(float).std())
    shifted = np.minimum(same + round(deviation / 10), source.alphabet - 1)
    other = analysis(shifted, alphabet=source.alphabet, law=law)
    assert structure(other) == {"marginal": True, "dependence": False}


class Told(Watcher):
    """Remembers everything."""

    def __init__(self):
        self.read, self.lines, self.stages = [], [], []

    def reading(self, done, total):
        self.read.append((done, total))

    def interim(self, line):
        self.lines.append(line)

    def stage(self, name):
        self.stages.append(name)


@pytest.mark.parametrize(("name", "fires"), [("hmac_rolls", False), ("periodic", True)])
def test_interim_lines_come_when_symbols_double(name, fires):
    stream, told = make(name), Told()
    count = 300_000
    symbols = stream.generate(count, 1)
    found = analyze_stream(
        symbols, alphabet=stream.alphabet, settings=Settings(
            compressors=False, predictors=False, mixture_symbols=1_000
        ), watcher=told,
    )  # fmt: skip
    assert [line.symbols for line in told.lines] == [65_536, 131_072, 262_144]
    assert all((line.adjusted <= 0.01) == fires for line in told.lines)
    assert all(line.smallest.p_value <= line.adjusted for line in told.lines)
    assert [done for done, _ in told.read] == sorted({done for done, _ in told.read})
    assert told.read[-1] == (count, count)
    assert {total for _, total in told.read} == {count}
    assert told.stages == ["sample", "online mixture", "predictors", "compressors"]
    assert found.symbols == count
    # A line is what a stream that ends there gets from its tests of every symbol.
    there = analysis(symbols[:65_536].numpy(), alphabet=stream.alphabet)
    [same] = [test for test in there.tests if test.name == told.lines[0].smallest.name]
    assert same.p_value == told.lines[0].smallest.p_value


def test_a_power_of_two_has_no_interim_line_at_its_end():
    told = Told()
    analysis(random(0).integers(4, size=131_072), watcher=told,
             settings=Settings(compressors=False, predictors=False, mixture_symbols=2))  # fmt: skip
    assert [line.symbols for line in told.lines] == [65_536]


def test_refusals():
    with pytest.raises(UserError, match="symbol 9 lies outside the declared alphabet of 9"):
        analysis([1, 9, 3], alphabet=9)
    with pytest.raises(UserError, match="holds no symbols"):
        analysis([])


def test_the_same_seed_gives_the_same_analysis():
    symbols = make("hmac_rolls").generate(20_000, 5).numpy()
    settings = [Settings(compressors=False, predictor_symbols=5_000, seed=seed) for seed in (1, 1)]
    first, again = (analysis(symbols, settings=each) for each in settings)
    assert rows(first) == rows(again)
    assert np.array_equal(first.adjusted, again.adjusted)
    assert [v.sentence for v in first.verdicts] == [v.sentence for v in again.verdicts]
    assert first.predictions == again.predictions
    assert first.predicted_symbols == 5_000
    assert first.code_lengths == again.code_lengths
    other = analysis(symbols, settings=Settings(compressors=False, predictors=False, seed=2))
    assert rows(other) != rows(first)  # shuffles have another seed
    assert [name for name, *_ in rows(other)] == [name for name, *_ in rows(first)]


def test_the_compressors_enter_no_verdict():
    symbols = random(0).integers(6, size=20_000)
    without = analysis(symbols)
    beside = analysis(symbols, settings=Settings(mixture_symbols=1 << 15, predictors=False))
    assert rows(without) == rows(beside)
    assert without.compressed == []
    [xz] = [made for made in beside.compressed if made.name.startswith("xz")]
    assert xz.symbols == 20_000
    assert np.log2(6) < xz.bits == pytest.approx(xz.shuffled_bits, rel=0.01)


def repeated_then_noise():
    return np.r_[np.full(5_000, 3), random(4).integers(1_000, size=5_000)]


ODD = {
    "constant": lambda: np.full(3_000, 9),
    "two symbols": lambda: random(1).integers(2, size=3_000),
    "the only symbol": lambda: np.zeros(3_000),
    **{f"{n} of six symbols": lambda n=n: random(2).integers(6, size=n)
       for n in (1, 2, 3, 10, 33, 100)},
    **{f"{n} equal symbols": lambda n=n: np.full(n, 4) for n in (1, 2, 3, 10, 33, 100)},
    **{f"{n} zeros": lambda n=n: np.zeros(n) for n in (1, 2, 3, 10, 33, 100)},
    "huge gaps": lambda: random(3).choice([0, 7, 65_535], 3_000),
    "repeated, then noise": repeated_then_noise,
    "all different": lambda: random(5).permutation(65_536),
    "alternating": lambda: np.arange(3_000) % 2,
    "one exception": lambda: np.r_[np.zeros(2_000), 9, np.zeros(2_000)],
    "counting": lambda: np.arange(3_000),
    "300 alternating": lambda: np.arange(300) % 2,
    "300 different in order": lambda: np.arange(300),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_streams_get_verdicts_without_a_warning(name):
    symbols = ODD[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = analysis(symbols, settings=Settings(compressors=False, mixture_symbols=1 << 15))
    assert_sound(found)
    assert found.symbols == len(symbols)
    assert np.isfinite([found.entropy, found.min_entropy]).all()
    assert all(np.isfinite(power.size) for power in found.power)
    # Nothing is left out in silence.
    names = " ".join(test.name for test in found.tests)
    said = " ".join(name for name, _ in found.skipped)
    if "all tests of order" not in said:
        for test in ("runs", "gaps", "autocorrelation", "equal symbols", "linear complexity"):
            assert (test in names) or (test in said), test


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("repeated, then noise", "dependence"),
        ("alternating", "dependence"),
        ("counting", "dependence"),
        ("all different", "marginal"),  # too even for independent draws
        ("constant", "marginal"),
        ("huge gaps", "marginal"),
    ],
)
def test_odd_streams_that_are_structured_are_found(name, question):
    assert structure(analysis(ODD[name]()))[question]


def test_one_exception_among_equal_symbols_shows_no_dependence():
    """One symbol may come anywhere: its place cannot tell."""
    assert not structure(analysis(ODD["one exception"]()))["dependence"]


def test_the_only_symbol_of_its_alphabet_leaves_nothing_to_test():
    found = analysis(np.zeros(3_000), alphabet=1)
    assert found.alphabet == 1
    assert structure(found) == {"marginal": False, "dependence": False}
    assert found.verdicts[1].sentence.startswith("dependence: no test could be run on 3,000")
    assert found.verdicts[0].sentence.startswith("marginal: no test could be run on 3,000")


@pytest.mark.parametrize(("k", "count"), [(2, 20), (2, 1_000), (6, 100), (256, 40), (65_536, 40)])
def test_counts_that_happen_to_be_even_are_no_structure(k, count):
    """With few cells counts equal their expectations now and then, which is chance and no fault.

    Of 200 independent streams, at a level of 1 %, 9 or more fail with a chance of 3e-4.
    """
    draw, law, wrong = random(k), DeclaredLaw(f"uniform over {k}", k), 0
    for _ in range(200):
        counts = pass_counts(draw.integers(k, size=count).astype(np.uint16))
        found = [*marginal_tests(counts.histogram, law), *lag_tests(counts)]
        wrong += min(test.p_value for test in found) <= 0.01 / len(found)
    assert wrong < 9
