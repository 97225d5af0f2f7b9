"""Evidence by the online mixture: views, validity, what is counted and what is not."""

import math

import numpy as np
import pytest
from scipy import stats

from pyseq.analysis.intervals import Interval
from pyseq.analysis.predictability.mixture import mixture_scores
from pyseq.analysis.predictability.online_evidence import (
    FIRST_LOOK,
    code_length,
    evidence_views,
    online_evidence,
    surprise_of,
)
from pyseq.data.streams import make
from pyseq.ops import backends

needs_core = pytest.mark.skipif(
    backends.refuse_native() is not None, reason="pyseq._core is not built"
)


def random(seed):
    return np.random.Generator(np.random.PCG64(seed))


def sticky(count, k, stay, seed):
    """Each symbol repeats the one before with a chance `stay` (0 to 1), or is drawn anew."""
    draw = random(seed)
    fresh, stays = draw.integers(k, size=count), draw.random(count) < stay
    last = np.maximum.accumulate(np.where(stays, 0, np.arange(count)))
    return fresh[last].astype(np.uint16)


@pytest.mark.parametrize(
    ("alphabet", "names"),
    [
        (2, ["symbols"]),
        (6, ["symbols", "2 bins"]),
        (256, ["symbols", "2 bins", "16 bins"]),
        (257, ["2 bins", "16 bins", "256 bins", "low 8 bits"]),
        (65_536, ["2 bins", "16 bins", "256 bins", "low 8 bits"]),
    ],
)
def test_views_have_at_most_256_classes(alphabet, names):
    first = random(0).integers(alphabet, size=60_000).astype(np.uint16)
    views = evidence_views(first, alphabet)
    shown = [view.name for view in views]
    if alphabet > 256:  # some of 256 quantiles may coincide
        assert shown[:2] + shown[3:] == names[:2] + names[3:]
        assert 240 <= views[2].classes <= 256
    else:
        assert shown == names
    for view in views:
        assert 2 <= view.classes <= 256
        assert view.table.shape == (65_536,)
        assert view.table[:alphabet].max() == view.classes - 1


def test_bins_hold_about_equally_many_of_the_first_look():
    first = (random(0).normal(30_000, 2_000, 60_000)).astype(np.uint16)
    for view in evidence_views(first, 65_536)[:2]:
        share = np.bincount(view.table[first], minlength=view.classes) / first.size
        assert share.max() < 1.1 / view.classes
        assert share.min() > 0.9 / view.classes


def test_alike_views_are_looked_at_once_and_constant_ones_never():
    views = evidence_views(np.array([3, 3, 3, 3], np.uint16), 6)
    assert [view.name for view in views] == ["symbols"]
    assert [view.name for view in evidence_views(np.empty(0, np.uint16), 6)] == ["symbols"]
    for alphabet in (3, 17, 300):
        views = evidence_views(np.arange(alphabet, dtype=np.uint16), alphabet)
        assert len({view.table.tobytes() for view in views}) == len(views)
    # 2 and 16 bins of these differ in symbol 6 only, which did not come.
    first = np.repeat(np.array([5, 7], np.uint16), [49, 43])
    names = [view.name for view in evidence_views(first, 16)]
    assert names == ["symbols", "2 bins"]


@needs_core
def test_symbols_after_the_first_look_change_no_bin():
    x = random(0).integers(1_000, size=4_000).astype(np.uint16)
    y = x.copy()
    y[500:] = 999 - y[500:] // 7  # 4,000 / 8 symbols are looked at
    ours, theirs = online_evidence(x, 1_000), online_evidence(y, 1_000)
    assert ours.skipped == theirs.skipped == 500
    for (view, _), (other, _) in zip(ours.views, theirs.views, strict=True):
        assert np.array_equal(view.table, other.table)
    y = x.copy()
    y[:500] //= 7
    assert not all(
        np.array_equal(view.table, other.table)
        for (view, _), (other, _) in zip(
            ours.views, online_evidence(y, 1_000).views, strict=True
        )
    )  # fmt: skip


@needs_core
@pytest.mark.parametrize(("count", "alphabet", "skipped"),
                         [(1_000, 6, 125), (1_000, 2, 0), (600_000, 6, FIRST_LOOK)])  # fmt: skip
def test_how_many_decide_the_bins(count, alphabet, skipped):
    found = online_evidence(random(0).integers(alphabet, size=count).astype(np.uint16), alphabet)
    assert found.skipped == skipped
    assert found.dependence.symbols == count - skipped
    assert all(evidence.symbols == count - skipped for _, evidence in found.views)
    assert found.uniform.symbols == found.code_length.symbols == count


@needs_core
@pytest.mark.parametrize(
    ("k", "law"),
    [(2, [0.8, 0.2]), (6, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]), (400, None)],
    ids=["bits", "die", "wide"],
)
def test_independent_draws_of_an_uneven_law_are_no_evidence(k, law):
    """E reaches 20 on at most one stream in 20: more than 22 of 200 have a chance below 1e-3."""
    weights = np.ones(k) if law is None else np.array(law)
    weights = np.arange(1, k + 1) ** -0.7 if law is None else weights
    edges = np.cumsum(weights / weights.sum())[:-1]
    draw, passed = random(k), 0
    for _ in range(200):
        x = np.searchsorted(edges, draw.random(500), side="right").astype(np.uint16)
        found = online_evidence(x, k)
        assert found.dependence.p_value == pytest.approx(math.exp(-found.dependence.log_e_max))
        passed += found.dependence.log_e_max >= math.log(20)
    assert passed <= stats.binom.isf(1e-3, 200, 0.05)


@needs_core
@pytest.mark.parametrize("k", [2, 6, 400])
def test_a_chain_is_evidence(k):
    x = sticky(6_000, k, 0.4, 1)
    found = online_evidence(x, k)
    assert found.dependence.log_e > 100
    assert found.dependence.first_exceeds is not None
    # The mean of W processes is at least the best of them over W, and at most the best.
    logs = [evidence.log_e for _, evidence in found.views]
    assert max(logs) - math.log(len(logs)) <= found.dependence.log_e <= max(logs) + 1e-9
    assert all(evidence.saved_bits.low > 0 for _, evidence in found.views)


@needs_core
def test_uneven_frequencies_are_evidence_against_uniform_draws_only():
    x = make("biased").generate(10_000, 1).numpy()
    found = online_evidence(x, 6)
    assert found.uniform.log_e > 50
    assert found.dependence.p_value > 0.01


@needs_core
def test_what_the_bins_were_decided_by_counts_as_no_evidence():
    """The look is all order, and what follows is none; seen from the start it would be evidence."""
    count, k = 8_000, 6
    draw = random(3)
    x = draw.integers(k, size=count).astype(np.uint16)
    look = count // 8
    x[:look] = np.arange(look) % k
    found = online_evidence(x, k)
    assert found.skipped == look
    assert found.dependence.p_value > 0.05
    assert all(evidence.log_e < 0 for _, evidence in found.views)
    # The same symbols count in the evidence against uniform draws, which needs no bins.
    assert found.uniform.first_exceeds is not None
    assert found.uniform.first_exceeds < look


@needs_core
def test_the_code_length_is_that_of_the_mixture():
    x = make("markov1", alphabet=20).generate(10_001, 2).numpy()
    scores = mixture_scores(x, 20)
    found = online_evidence(x, 20).code_length
    assert found == code_length(scores, x, 20)
    assert found.bits.value == pytest.approx(scores.bits.mean(), rel=1e-12)
    assert found.late_bits.value == pytest.approx(scores.bits[5_000:].mean(), rel=1e-12)
    assert found.bits.low < found.bits.value < found.bits.high
    assert found.accuracy.value == scores.hits.mean()
    assert found.weights == scores.weights
    assert found.average_min_entropy.value == pytest.approx(-math.log2(scores.hits.mean()))
    assert found.average_min_entropy.low < found.average_min_entropy.value
    share = np.bincount(x) / x.size
    assert found.marginal_bits == pytest.approx(-(share * np.log2(share)).sum())
    assert (found.symbols, found.alphabet, found.uniform_bits) == (10_001, 20, math.log2(20))
    # The mean gain against uniform draws is what the code saves.
    uniform = online_evidence(x, 20).uniform
    assert uniform.saved_bits.value == pytest.approx(math.log2(20) - found.bits.value, abs=1e-9)


def test_a_share_as_bits():
    found = surprise_of(Interval(0.25, 0.125, 0.5))
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)
    nothing = surprise_of(Interval(0.0, 0.0, 0.5))
    assert (nothing.value, nothing.low, nothing.high) == (math.inf, 1.0, math.inf)
    assert math.copysign(1, surprise_of(Interval(1.0, 1.0, 1.0)).value) == 1
