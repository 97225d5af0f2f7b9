import numpy as np
import pytest

from pyseq.analysis.baselines import baseline_table, hindsight_bits
from pyseq.analysis.ceilings import ceiling
from pyseq.analysis.verdicts import compare, contest, judge

_BLOCK = 64


def _ceiling(train, alphabet):
    return ceiling(np.bincount(train, minlength=alphabet))


def _add_half(train, test, alphabet):
    counts = np.bincount(train, minlength=alphabet) + 0.5
    return -np.log2(counts / counts.sum())[test]


def _chain(rng, alphabet, count, share):
    """Symbols that follow their predecessor plus one in `share` of the cases, else any symbol."""
    steps = np.where(rng.random(count) < share, 1, rng.integers(0, alphabet, count))
    return np.cumsum(steps) % alphabet


def test_an_order_1_fit_to_independent_streams_is_at_chance():
    kinds, rng = [], np.random.default_rng(0)
    for _ in range(200):
        symbols = rng.integers(0, 16, 6000)
        train, test = symbols[:5000], symbols[5000:]
        table = baseline_table(train, test, 16)
        verdict = judge(
            table["order-1"],
            table["marginal"],
            test,
            ceiling=_ceiling(train, 16),
            block=_BLOCK,
        )
        kinds.append(verdict.kind)
    assert kinds.count("at chance") >= 190


def test_a_model_that_only_knows_the_law_better_than_its_training_symbols_is_at_chance():
    # An untrained network on uniform symbols is nearer to the law than the frequencies of the
    # training symbols are. The gain over the marginal alone would call that structure.
    rng = np.random.default_rng(1)
    claimed, fooled = 0, 0
    for _ in range(100):
        symbols = rng.integers(0, 256, 12_000)
        train, test = symbols[:10_000], symbols[10_000:]
        verdict = judge(
            np.full(test.size, 8.0),
            _add_half(train, test, 256),
            test,
            ceiling=_ceiling(train, 256),
            block=_BLOCK,
        )
        claimed += verdict.kind == "structure"
        fooled += verdict.gain.low > 0
    assert fooled > 50
    assert claimed <= 5


def test_says_why_a_gain_does_not_count():
    symbols = np.random.default_rng(1).integers(0, 256, 12_000)
    train, test = symbols[:10_000], symbols[10_000:]
    verdict = judge(
        np.full(test.size, 8.0),
        _add_half(train, test, 256),
        test,
        ceiling=_ceiling(train, 256),
        block=_BLOCK,
    )
    assert verdict.kind == "at chance"
    assert "does not count" in verdict.sentence


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_planted_chain_is_structure(share):
    rng = np.random.default_rng(2)
    symbols = _chain(rng, 16, 60_000, share)
    train, test = symbols[:50_000], symbols[50_000:]
    table = baseline_table(train, test, 16)
    verdict = judge(
        table["order-1"],
        table["marginal"],
        test,
        ceiling=_ceiling(train, 16),
        block=_BLOCK,
        others={"order-2": table["order-2"]},
        name="the chain model",
    )
    assert verdict.kind == "structure"
    assert 0 < verdict.gain.low < verdict.gain.value < verdict.gain.high
    assert verdict.gain.value == pytest.approx(
        np.mean(table["marginal"]) - np.mean(table["order-1"])
    )
    assert verdict.sentence.startswith("structure: the chain model needs")
    assert "more than any fixed frequencies could give" in verdict.sentence
    assert "order-2" in verdict.sentence


@pytest.mark.parametrize(("alphabet", "spread"), [(2, 0.3), (16, 0.05), (256, 0.05)])
def test_the_sensitivity_it_states_is_about_right(alphabet, spread):
    # Plant gains below and above what the verdict on independent symbols says it would notice.
    rng = np.random.default_rng(3)
    symbols = rng.integers(0, alphabet, 8000)
    marginal = np.full(symbols.size, np.log2(alphabet))
    noise = rng.normal(0.0, spread, symbols.size)
    noise -= noise.mean()
    options = {"ceiling": ceiling(np.full(alphabet, 100)), "block": _BLOCK}
    nothing = judge(marginal + noise, marginal, symbols, **options)
    assert nothing.kind == "at chance"
    noticed = float(nothing.sentence.split("a measured gain of about ")[1].split(" ")[0])
    for factor, kind in ((0.6, "at chance"), (1.4, "structure")):
        verdict = judge(marginal + noise - factor * noticed, marginal, symbols, **options)
        assert verdict.kind == kind, factor


def test_at_chance_names_the_numbers_and_claims_no_certificate():
    rng = np.random.default_rng(4)
    symbols = rng.integers(0, 16, 60_000)
    train, test = symbols[:50_000], symbols[50_000:]
    table = baseline_table(train, test, 16)
    verdict = judge(
        table["order-1"] + 0.001,
        table["marginal"],
        test,
        ceiling=_ceiling(train, 16),
        block=_BLOCK,
        others={"order-1": table["order-1"], "order-2": table["order-2"]},
    )
    assert verdict.kind == "at chance"
    for part in (
        "at chance",
        f"{np.mean(table['order-1']) + 0.001:.4f} bits/symbol",
        f"the marginal {np.mean(table['marginal']):.4f}",
        "independent symbols allow 4.0000",
        "10,000 symbols",
        "order-1 and order-2 found nothing either",
        "a pass is not a certificate",
    ):
        assert part in verdict.sentence


def test_a_model_that_misses_what_a_markov_chain_sees_is_told_so():
    symbols = _chain(np.random.default_rng(5), 16, 60_000, 0.5)
    train, test = symbols[:50_000], symbols[50_000:]
    table = baseline_table(train, test, 16)
    verdict = judge(
        table["marginal"],
        table["marginal"],
        test,
        ceiling=_ceiling(train, 16),
        block=_BLOCK,
        others={"order-1": table["order-1"]},
    )
    assert verdict.kind == "at chance"
    assert "yet knowing the past helps: order-1 needs 2." in verdict.sentence
    assert "fewer than any fixed frequencies could, and no such gain shows in the model" in (
        verdict.sentence
    )
    assert "depend on each other" not in verdict.sentence
    assert "a pass is not a certificate" not in verdict.sentence
    assert "found nothing" not in verdict.sentence


def test_far_behind_the_marginal_is_worse_and_a_hair_behind_is_chance():
    rng = np.random.default_rng(6)
    symbols = rng.integers(0, 16, 6000)
    train, test = symbols[:5000], symbols[5000:]
    marginal = baseline_table(train, test, 16)["marginal"]
    options = {"ceiling": _ceiling(train, 16), "block": _BLOCK}
    far = judge(marginal + 0.5, marginal, test, **options)
    assert far.kind == "worse than the marginal"
    assert "at chance, and worse than the marginal" in far.sentence
    assert far.gain.high < 0
    assert judge(marginal + 0.01, marginal, test, **options).kind == "at chance"


def test_one_symbol_shows_nothing():
    verdict = judge([0.5], [4.0], [3], ceiling=ceiling(np.full(16, 100)), block=_BLOCK)
    assert verdict.kind == "at chance"
    assert "too few to notice any gain" in verdict.sentence


@pytest.mark.parametrize("alphabet", [1, 5])
@pytest.mark.parametrize("model_bits", [0.0, 0.7])
def test_a_constant_range_holds_nothing_to_predict(alphabet, model_bits):
    train, test = np.zeros(5000, dtype=np.int64), np.zeros(2000, dtype=np.int64)
    table = baseline_table(train, test, alphabet, context=train[-2:])
    verdict = judge(
        np.full(test.size, model_bits),
        table["marginal"],
        test,
        ceiling=_ceiling(train, alphabet),
        block=_BLOCK,
        others={name: table[name] for name in ("order-1", "order-2")},
    )
    assert verdict.kind == "at chance"
    assert "the held-out symbols are all of one class: nothing to predict" in verdict.sentence
    assert f"the model needs {model_bits:.4f} bits/symbol" in verdict.sentence
    assert "order-" not in verdict.sentence
    assert "-0.0" not in verdict.sentence


def test_rounding_is_no_finding():
    symbols = np.random.default_rng(9).integers(0, 16, 4000)
    marginal = np.full(symbols.size, 4.0)
    hindsight = hindsight_bits(symbols, 16)
    verdict = judge(
        hindsight - 1e-12,
        marginal,
        symbols,
        ceiling=_ceiling(symbols, 16),
        block=_BLOCK,
        others={"order-1": hindsight - 1e-12},
    )
    assert verdict.kind == "at chance"
    assert "order-1 found nothing" in verdict.sentence
    worse = judge(
        np.full(4000, 1e-12), np.zeros(4000), symbols, ceiling=_ceiling(symbols, 16), block=8
    )
    assert worse.kind == "at chance"
    for gain in (1e-12, -1e-12):
        found = compare(marginal - gain, marginal, block=8, name_a="A", name_b="B")
        assert found.kind == "no difference"


def test_a_drifting_law_shows_that_the_past_helps_and_no_more():
    # Independent draws, but the share of ones moves between a tenth and nine tenths.
    rng = np.random.default_rng(10)
    law = 0.5 + 0.4 * np.sin(np.arange(60_000) / 500)
    symbols = (rng.random(law.size) < law).astype(np.int64)
    train, test = symbols[:40_000], symbols[40_000:]
    recent = np.convolve(symbols, np.ones(100), "full")[39_999:-100][: test.size]
    share = (recent + 0.5) / 101  # of ones among the 100 symbols before each scored one
    average = -np.log2(np.where(test == 1, share, 1 - share))
    table = baseline_table(train, test, 2, context=train[-2:])
    verdict = judge(
        table["marginal"],
        table["marginal"],
        test,
        ceiling=_ceiling(train, 2),
        block=2000,
        others={"moving average": average},
    )
    assert verdict.kind == "at chance"
    assert "knowing the past helps: moving average needs" in verdict.sentence
    assert "depend on" not in verdict.sentence


def test_compare():
    rng = np.random.default_rng(7)
    base = rng.exponential(4.0, 5000)
    better = base - 0.1 + rng.normal(0, 0.5, base.size)
    found = compare(better, base, block=_BLOCK, name_a="A", name_b="B")
    assert found.kind == "better"
    assert found.sentence.startswith("A is better than B")
    assert found.gain.low > 0
    back = compare(base, better, block=_BLOCK, name_a="B", name_b="A")
    assert back.kind == "worse"
    assert f"a loss of {found.gain.value:.3f}" in back.sentence
    # The same symbols are hard for both, so the pairing shows what two separate means would not.
    assert found.gain.half_width < 0.05 < 1.96 * base.std() / np.sqrt(base.size)


def test_compare_finds_no_difference_where_there_is_none():
    rng = np.random.default_rng(8)
    kinds = []
    for _ in range(200):
        base = rng.exponential(4.0, 1000)
        other = base + rng.normal(0, 0.5, base.size)
        kinds.append(compare(other, base, block=16, name_a="A", name_b="B").kind)
    # 95 % of 200, standard deviation 3.1.
    assert 180 <= kinds.count("no difference") <= 199
    assert "no difference that the data can show" in compare(
        [1.0, 2.0, 1.5], [1.0, 2.0, 1.6], block=1, name_a="A", name_b="B"
    ).sentence  # fmt: skip


def test_refuses_unpaired_arrays():
    with pytest.raises(ValueError, match="belong to the same symbols"):
        compare([1.0, 2.0], [1.0], block=1, name_a="A", name_b="B")
    with pytest.raises(ValueError, match="belong to the same symbols"):
        judge([1.0, 2.0], [1.0, 2.0], [3], ceiling=ceiling([5, 5]), block=1)


def _contest(models, symbols, train, **baselines):
    """Two models beside the usual baselines."""
    alphabet = int(train.max()) + 1
    table = baseline_table(train, symbols, alphabet, context=train[-2:])
    return contest(models, table | baselines, symbols, ceiling=_ceiling(train, alphabet), block=16)


def _noise(seed, size, spread=0.1):
    return np.random.default_rng(seed).normal(0, spread, size)


def test_of_two_models_that_fitted_noise_neither_is_better_however_sure_the_difference():
    symbols = np.random.default_rng(11).integers(0, 16, 12_000)
    train, test = symbols[:10_000], symbols[10_000:]
    little, much = 4.01 + _noise(0, test.size), 4.2 + _noise(1, test.size)
    found = _contest({"small": little, "large": much}, test, train)
    assert compare(much, little, block=16, name_a="large", name_b="small").kind == "worse"
    assert found.kind == "at chance"
    assert found.gain.high < 0
    assert "better than" not in found.sentence
    assert "worse than" not in found.sentence
    assert found.best == "none, for no predictor shows that knowing the past helps"
    for part in (
        "at chance: neither small nor large found structure; ",
        f"small needs {little.mean():.4f} bits/symbol, large {much.mean():.4f}, the marginal",
        "independent symbols allow 4.0000",
        "that large needs 0.19",
        "bits/symbol more than small tells how much noise each fitted",
        "so neither is called better",
        f"about {max(v.noticed for v in found.verdicts.values()):.2g} bits/symbol or more",
        "in 2,000 symbols",
        "order-1, order-2 and xz found nothing either; a pass is not a certificate",
    ):
        assert part in found.sentence
    turned = _contest({"large": much, "small": little}, test, train)
    assert "that large needs 0.19" in turned.sentence
    alike = _contest({"small": little, "other": little + _noise(18, test.size)}, test, train)
    assert "may be chance too, so neither is called better" in alike.sentence
    assert "tells how much noise" not in alike.sentence
    same = _contest({"small": little, "other": little}, test, train)
    assert "both need the same, so neither is called better" in same.sentence


def test_of_two_models_that_found_structure_the_better_one_is_named():
    symbols = _chain(np.random.default_rng(12), 16, 60_000, 0.5)
    train, test = symbols[:50_000], symbols[50_000:]
    order1 = baseline_table(train, test, 16, context=train[-2:])["order-1"]
    near, far = order1 + 0.1, order1 + 0.3 + _noise(2, test.size)
    for models, kind, says in (
        ({"A": far, "B": near}, "better", "B is better than A: "),
        ({"A": near, "B": far}, "worse", "B is worse than A: "),
        ({"A": near, "B": near + _noise(3, test.size, 0.01)}, "no difference", "the data can show"),
    ):
        found = _contest(models, test, train)
        assert {verdict.kind for verdict in found.verdicts.values()} == {"structure"}
        assert (found.kind, says in found.sentence) == (kind, True)
        assert "order-1" in found.best
        assert "A" not in found.best
    assert found.gain.value == pytest.approx(np.mean(models["A"] - models["B"]))


def test_a_model_with_structure_beats_one_without_and_the_other_is_called_at_chance():
    symbols = _chain(np.random.default_rng(13), 16, 60_000, 0.5)
    train, test = symbols[:50_000], symbols[50_000:]
    table = baseline_table(train, test, 16, context=train[-2:])
    found = _contest({"blind": table["marginal"] + 0.001, "B": table["order-1"]}, test, train)
    assert found.kind == "better"
    assert found.sentence.endswith("; blind itself is at chance")
    assert [found.verdicts[name].kind for name in ("blind", "B")] == ["at chance", "structure"]


@pytest.mark.parametrize(("finder", "period"), [("order-1", 0), ("xz", 500)])
def test_what_only_a_baseline_found_is_told_and_makes_neither_model_better(finder, period):
    rng = np.random.default_rng(14)
    symbols = _chain(rng, 16, 24_000, 0.5)
    if period:  # repeats that no short context sees
        symbols = np.tile(rng.integers(0, 250, period), 48)
        symbols[:20_000] = rng.integers(0, 250, 20_000)
    train, test = symbols[:20_000], symbols[20_000:]
    chance = _add_half(train, test, int(train.max()) + 1)
    found = _contest({"A": chance + 0.05, "B": chance + 0.02}, test, train)
    assert found.kind == "at chance"
    assert f"yet knowing the past helps: {finder} needs" in found.sentence
    assert "no such gain shows in either model" in found.sentence
    assert "so neither is called better" in found.sentence
    assert finder in found.best
    assert "none" not in found.best


def test_predictors_that_the_data_cannot_tell_apart_share_the_first_place():
    symbols = _chain(np.random.default_rng(15), 16, 60_000, 0.5)
    train, test = symbols[:50_000], symbols[50_000:]
    best = baseline_table(train, test, 16, context=train[-2:])["order-1"] - 0.5
    found = _contest({"A": best, "B": best + _noise(4, test.size, 0.01)}, test, train)
    assert "which the data cannot tell from" in found.best
    assert f"({best.mean():.4f})" in found.best or f"with {best.mean():.4f}" in found.best
    assert {"A", "B"} <= set(found.best)
    assert "order-1" not in found.best


def test_two_models_and_their_baselines_are_more_chances_and_the_level_allows_for_them():
    symbols = np.random.default_rng(16).integers(0, 2, 6000)
    train, test = symbols[:3000], symbols[3000:]
    noise = _noise(5, test.size)
    sure = noise - noise.mean() - 0.0042  # 2.3 standard errors
    marginal = np.full(test.size, 1.0)
    options = {"ceiling": _ceiling(train, 2), "block": 1}
    alone = judge(marginal + sure, marginal, test, **options)
    assert alone.kind == "structure"
    rivals = {"marginal": marginal, "order-1": marginal + 0.1, "order-2": marginal + 0.1, "xz": 1.2}
    found = contest({"A": marginal + sure, "B": marginal + 0.1}, rivals, test, **options)
    assert found.level == pytest.approx(1 - 0.05 / 5)
    assert found.verdicts["A"].kind == found.kind == "at chance"
    assert found.verdicts["A"].noticed > alone.gain.half_width


def test_streams_whose_past_says_nothing_are_hardly_ever_said_to_have_structure():
    claims, rng = 0, np.random.default_rng(17)
    for _ in range(60):
        symbols = rng.integers(0, 2, 4000)
        train, test = symbols[:2000], symbols[2000:]
        models = {name: 1 + rng.normal(0, 0.02, test.size) for name in "AB"}
        found = _contest(models, test, train)
        claims += found.kind != "at chance" or not found.best.startswith("none")
    assert claims <= 3


def test_a_contest_over_equal_symbols_or_a_single_one_claims_nothing():
    train = np.arange(4000) % 5
    for test, words in (
        (np.zeros(2000, dtype=np.int64), "symbols are all of one class: nothing to predict"),
        (np.array([3]), "1 symbols are too few to notice any gain"),
    ):
        bits = np.full(test.size, 0.5)
        found = _contest({"A": bits, "B": bits + 0.2}, test, train)
        assert found.kind == "at chance"
        assert words in found.sentence


def test_a_contest_refuses_unpaired_arrays():
    bits = np.ones(50)
    table = {"marginal": bits, "order-1": bits, "xz": 1.0}
    options = {"ceiling": ceiling([5, 5]), "block": 4}
    with pytest.raises(ValueError, match="belong to the same symbols"):
        contest({"A": bits, "B": bits[1:]}, table, np.arange(50) % 2, **options)
    with pytest.raises(ValueError, match="broadcast"):
        contest({"A": bits, "B": bits}, table | {"order-1": bits[1:]}, np.arange(50) % 2, **options)
