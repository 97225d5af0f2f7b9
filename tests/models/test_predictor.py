"""The predictor: probabilities that agree with each other, and a continuation that can be had."""

from dataclasses import replace

import pytest
import torch

import pyseq
from pyseq.data.binning import Binning
from pyseq.errors import UserError
from pyseq.models import ModelCard, Predictor, save_model


def make(binning: Binning, model: str = "baseline", **changes) -> Predictor:
    torch.manual_seed(0)
    config = {"classes": binning.classes, "d_model": 16, "nlayers": 1, "nhead": 2, "nhead_kv": 2,
              "dim_ff": 24, **changes}  # fmt: skip
    card = ModelCard(model, config, binning, "tokens", 8)
    built = card.build()
    torch.nn.init.normal_(built.head.weight, std=1.0)  # distributions that are not flat
    return Predictor(built, card)


@pytest.fixture(params=[Binning(300), Binning.uniform(300, 20)], ids=["symbols", "bins"])
def predictor(request):
    return make(request.param)


def test_log_prob_is_the_distribution_at_what_came(predictor):
    window = torch.randint(0, 300, (3, 12)).to(torch.uint16)
    scores = predictor.log_prob(window)
    distribution = predictor.distribution(window[:, :-1])
    assert torch.allclose(distribution.exp().sum(-1), torch.ones(3, 11), atol=1e-5)
    for b in range(3):
        for t in range(11):
            class_ = int(predictor.classes_of(window[b, t + 1]))
            assert scores[b, t] == distribution[b, t, class_]
    assert torch.allclose(predictor.log_prob(window[1]), scores[1], atol=1e-6)


def test_predict_is_the_top_of_the_distribution(predictor):
    context = torch.randint(0, 300, (30,))
    prediction = predictor.predict(context, 5)
    logp = predictor.distribution(context[None, -8:])[0, -1]
    assert prediction.classes.tolist() == logp.argsort(descending=True)[:5].tolist()
    assert torch.allclose(prediction.probability, logp.exp().sort(descending=True).values[:5])
    table = predictor.card.binning.table()
    for class_, (first, last) in zip(prediction.classes, prediction.symbols, strict=True):
        inside = [s for s in range(300) if table[s] == int(class_)]
        assert (first, last) == (inside[0], inside[-1])
    assert len(predictor.predict(context, 10_000).classes) == predictor.card.binning.classes


def test_generate_is_seeded_and_stays_in_the_alphabet(predictor):
    context = torch.randint(0, 300, (5,))
    first = predictor.generate(context, 20, seed=1)
    assert first.shape == (20,)
    assert 0 <= int(first.min()) <= int(first.max()) < 300
    assert torch.equal(first, predictor.generate(context, 20, seed=1))
    assert not torch.equal(first, predictor.generate(context, 20, seed=2))
    assert predictor.generate(context, 0).shape == (0,)


def test_greedy_generation_takes_the_most_likely(predictor):
    context = torch.randint(0, 300, (5,))
    symbols = predictor.generate(context, 6, temperature=0)
    for i in range(6):
        before = torch.cat([context, symbols[:i]])
        if len(before) > 8:
            before = before[5:]  # at 9 symbols the model began anew with the last 4
        best = int(predictor.predict(before, 1).classes[0])
        assert int(predictor.classes_of(symbols[i])) == best


SUPERCHARGED = {"patch": 3, "local_width": 32, "nlayers": 3, "memory": 2, "smoothing": True}


@pytest.mark.parametrize("binning", [Binning(300), Binning.uniform(300, 20)], ids=str)
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("baseline", {"nlayers": 2}),
        ("supercharged", SUPERCHARGED),
        ("supercharged", SUPERCHARGED | {"memory_read": "gate", "hard_serve": "adaptive"}),
        ("supercharged", SUPERCHARGED | {"memory": 0, "hard": False, "patch": 16}),
    ],
)
@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 5}, {"seed": 6, "topk": 3}])
def test_generation_with_and_without_the_cache_is_the_same(binning, model, changes, options):
    """Token for token, over many new beginnings of a window of 8 or 29."""
    for seq_len in (8, 29):
        predictor = make(binning, model, **changes)
        predictor = Predictor(predictor.model, replace(predictor.card, seq_len=seq_len))
        context = torch.randint(0, 300, (seq_len - 3,), generator=torch.Generator().manual_seed(1))
        cached = predictor.generate(context, 120, **options)
        assert torch.equal(cached, predictor.generate(context, 120, cache=False, **options))
        assert len(set(cached.tolist())) > 1


def test_topk_limits_what_is_drawn(predictor):
    context = torch.randint(0, 300, (5,))
    best = set(predictor.predict(context, 3).classes.tolist())
    drawn = {
        int(predictor.classes_of(predictor.generate(context, 1, seed=s, topk=3))) for s in range(60)
    }
    assert drawn <= best
    assert len(drawn) > 1
    everything = predictor.generate(context, 20, seed=1)
    assert torch.equal(predictor.generate(context, 20, seed=1, topk=1000), everything)
    coldest = predictor.generate(context, 4, temperature=1e-300, topk=2)
    best = predictor.generate(context, 4, temperature=0)
    assert torch.equal(predictor.classes_of(coldest), predictor.classes_of(best))


def test_a_continuation_has_no_end(predictor):
    context = torch.randint(0, 300, (1,))
    stream = predictor.continuation(context, seed=2)
    first = [next(stream) for _ in range(20)]
    assert first == predictor.generate(context, 20, seed=2).tolist()
    short = Predictor(predictor.model, replace(predictor.card, seq_len=1))
    assert len(short.generate(context, 5)) == 5


def test_sampling_follows_the_distribution():
    predictor = make(Binning.uniform(300, 20))
    context = torch.randint(0, 300, (5,))
    share = predictor.distribution(context[None])[0, -1].exp()
    drawn = [int(predictor.classes_of(predictor.generate(context, 1, seed=s))) for s in range(600)]
    counts = torch.bincount(torch.tensor(drawn), minlength=20)
    spread = (600 * share * (1 - share)).sqrt()
    assert ((counts - 600 * share).abs() < 5 * spread + 1).all()


def test_load_gives_the_same_predictor(tmp_path, predictor):
    save_model(tmp_path / "m.pt", predictor.model.state_dict(), predictor.card)
    loaded = pyseq.load(tmp_path / "m.pt")
    window = torch.randint(0, 300, (2, 9))
    assert torch.equal(loaded.log_prob(window), predictor.log_prob(window))


def test_what_does_not_fit_is_told(predictor):
    with pytest.raises(UserError, match="symbol 300 lies outside the model's alphabet of 300"):
        predictor.log_prob(torch.tensor([1, 300]))
    with pytest.raises(ValueError, match="T >= 2"):
        predictor.log_prob(torch.tensor([1]))
    with pytest.raises(ValueError, match="T >= 1"):
        predictor.predict(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match="topk is 0"):
        predictor.predict(torch.tensor([1]), 0)
    for options, words in (
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"topk": 0}, "topk is 0"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(ValueError, match=words):
            predictor.generate(torch.tensor([1]), 1, **options)
    with pytest.raises(ValueError, match="n is -1"):
        predictor.generate(torch.tensor([1]), -1)
    with pytest.raises(ValueError, match="T >= 1"):
        predictor.generate(torch.tensor([], dtype=torch.int64), 1)
    with pytest.raises(UserError, match="symbol 300 lies outside"):
        predictor.generate(torch.tensor([300]), 1)
