"""The predictor: probabilities that agree with each other, and a continuation that can be had."""

import pytest
import torch

import pyseq
from pyseq.data.binning import Binning
from pyseq.errors import UserError
from pyseq.models import Baseline, BaselineConfig, ModelCard, Predictor, save_model


def make(binning: Binning) -> Predictor:
    torch.manual_seed(0)
    config = {"classes": binning.classes, "d_model": 16, "nlayers": 1, "nhead": 2, "nhead_kv": 2,
              "dim_ff": 24}  # fmt: skip
    model = Baseline(BaselineConfig(**config))
    torch.nn.init.normal_(model.head.weight, std=1.0)  # distributions that are not flat
    return Predictor(model, ModelCard("baseline", config, binning, "tokens", 8))


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
        best = int(predictor.predict(before, 1).classes[0])
        assert int(predictor.classes_of(symbols[i])) == best


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
    with pytest.raises(ValueError, match="temperature is -1"):
        predictor.generate(torch.tensor([1]), 1, temperature=-1)
