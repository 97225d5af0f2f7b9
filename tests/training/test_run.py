"""What is settled before the first step: classes, their ceiling, and what training reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pyseq.analysis.evaluation import stream_ceiling
from pyseq.cli.main import main
from pyseq.data.binning import Binning
from pyseq.data.streams import make
from pyseq.errors import UserError
from pyseq.models import load_model, save_model
from pyseq.training import fit as fit_module
from pyseq.training.checkpoint_io import STATE
from pyseq.training.config import TrainConfig
from pyseq.training.fit import fit
from pyseq.training.resume import checkpoint_to_resume
from pyseq.training.run import Run, prepare

SMALL = {"d_model": 32, "nlayers": 1, "nhead": 2, "dim_ff": 48, "seq_len": 16, "batch": 4}
VALUES = {"kind": "values", "alphabet": 3000}
ADAPTIVE = {**VALUES, "bins": 64, "binning": "adaptive"}


def run_on(folder: Path, symbols: np.ndarray, **changes) -> Run:
    path = folder / "s.u16"
    symbols.astype("<u2").tofile(path)
    return prepare(TrainConfig(u16_path=str(path), ckpt=str(folder / "m.pt"), **SMALL | changes))


@pytest.fixture
def bell() -> np.ndarray:
    """20,000 values of which the middle ones are frequent."""
    random = np.random.default_rng(0)
    return np.clip(np.round(random.normal(1500, 200, 20_000)), 0, 2999).astype(np.int64)


@pytest.mark.parametrize("max_samples", [None, 5000])
def test_adaptive_bins_know_nothing_but_what_is_trained_on(bell, tmp_path, max_samples):
    first = run_on(tmp_path, bell, **ADAPTIVE, max_samples=max_samples)
    start, stop = first.batches.loader.start, first.batches.loader.stop
    counts = np.bincount(bell[start:stop], minlength=3000)
    assert first.binning == Binning.adaptive(counts, 64)
    other = bell.copy()
    other[stop:] = np.random.default_rng(1).integers(0, 3000, len(bell) - stop)
    assert run_on(tmp_path, other, **ADAPTIVE, max_samples=max_samples).binning == first.binning
    other[start] = 2999 - other[start]
    other[start : start + 2000] = 7
    assert run_on(tmp_path, other, **ADAPTIVE, max_samples=max_samples).binning != first.binning


def test_adaptive_bins_go_with_the_model(bell, tmp_path):
    run = run_on(tmp_path, bell, **ADAPTIVE)
    assert (run.config.bins, run.config.binning) == (64, "adaptive")
    assert run.model.config.classes == 64
    save_model(tmp_path / "m.pt", run.model.state_dict(), run.card)
    _, card = load_model(tmp_path / "m.pt")
    assert card.binning == run.binning
    sizes = np.bincount(run.binning.table()[bell[: run.splits.train[1]]])
    said = f"classes: 64 bins of {sizes.min()} to {sizes.max()} training symbols each over 3000"
    assert said in run.remarks
    assert sizes.max() < 1.2 * sizes.min()


def test_fewer_symbols_than_bins_are_said(tmp_path):
    few = np.random.default_rng(0).choice([5, 70, 2000], 3000)
    run = run_on(tmp_path, few, **ADAPTIVE)
    assert run.binning.edges == (0, 70, 2000)
    assert run.config.bins == 3
    assert "classes: 3 and not 64, one for each symbol that is trained on" in run.remarks
    # What the resolved settings say gives the same classes again.
    assert prepare(run.config).binning == run.binning


def test_auto_bins_can_be_adaptive(bell, tmp_path):
    run = run_on(tmp_path, bell, **VALUES, binning="adaptive")
    seen = len(np.unique(bell[: run.splits.train[1]]))
    assert run.binning.classes == run.config.bins == min(1024, seen)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "tokens", "bins": 64}, "adaptive needs values, and this stream holds tokens"),
        ({"kind": "tokens"}, "adaptive needs values, and this stream holds tokens"),
        ({"kind": "values", "bins": "none"}, "adaptive needs a number of --bins; without one each"),
        ({"kind": "values", "alphabet": 900}, "each of these 900 symbols is a class of its own"),
        ({"kind": "values", "bins": 1}, "--bins 1 does not fit an alphabet"),
        ({"kind": "values", "bins": 4000, "alphabet": 900}, "--bins 4000 does not fit an alphabet"),
    ],
)
def test_adaptive_bins_that_make_no_sense(tmp_path, changes, words):
    symbols = np.random.default_rng(0).integers(0, 900, 3000)
    with pytest.raises(UserError, match=words):
        run_on(tmp_path, symbols, binning="adaptive", **changes)


def test_a_constant_training_range_has_no_adaptive_bins(tmp_path):
    symbols = np.append(np.full(3000, 4), np.arange(500))
    with pytest.raises(UserError, match="holds 1 different symbols; 2 or more fit"):
        run_on(tmp_path, symbols, kind="values", bins=4, binning="adaptive")


def test_adaptive_bins_are_evaluated_and_predicted(bell, tmp_path, capsys):
    fit(run_on(tmp_path, bell, **ADAPTIVE, max_steps=5, eval_symbols=500))
    files = ["--u16_path", str(tmp_path / "s.u16"), "--ckpt", str(tmp_path / "m.pt")]
    capsys.readouterr()
    assert main(["evaluate", *files, "--max_samples", "500"]) == 0
    assert "6.00000 bits if all 64 classes were equally likely" in capsys.readouterr().out
    assert main(["predict", *files, "--idx", "19000", "--topk", "64"]) == 0
    ranges = {line.split()[0] for line in capsys.readouterr().out.splitlines() if "%  #" in line}
    edges = Binning.adaptive(np.bincount(bell[:16_000], minlength=3000), 64).edges
    lasts = [edge - 1 for edge in (*edges[1:], 3000)]
    pairs = zip(edges, lasts, strict=True)
    assert ranges == {str(a) if a == b else f"{a}..{b}" for a, b in pairs}


def test_a_run_goes_on_with_its_own_bins_only(bell, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "_conclude", lambda run, steps: run)
    settings = {**ADAPTIVE, "max_steps": 4, "eval_symbols": 500, "ignore_fingerprint": True}
    fit(run_on(tmp_path, bell, **settings))
    assert checkpoint_to_resume(run_on(tmp_path, bell, **settings, resume="auto")) is not None
    other = run_on(tmp_path, np.clip(bell + 3, 0, 2999), **settings, resume="auto")
    with pytest.raises(UserError, match="has bins with other edges than --binning adaptive gives"):
        checkpoint_to_resume(other)


def test_the_ceiling_of_adaptive_bins_on_uniform_symbols_is_exact(tmp_path):
    rolls = make("hmac_rolls").generate(200_000, 0).numpy()
    run = run_on(tmp_path, rolls, kind="values", alphabet=10_001, bins=1024, binning="adaptive")
    widths = np.diff(run.binning.edges, append=10_001)
    assert len(np.unique(widths)) > 2  # not the uniform bins
    share = widths / 10_001
    assert run.ceiling.law == "uniform"
    assert run.ceiling.bits == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9)
    assert run.ceiling.top1 == pytest.approx(widths.max() / 10_001)
    assert run.ceiling.top5 == pytest.approx(np.sort(widths)[-5:].sum() / 10_001)


def test_the_ceiling_of_adaptive_bins_is_that_of_their_law():
    """The law is known here, the ceiling is estimated from the counts that made the bins."""
    law = np.exp(-0.5 * ((np.arange(3000) - 1500) / 200) ** 2)
    law[1500] += 100  # a fifth of all
    law /= law.sum()
    counts = np.random.default_rng(0).multinomial(500_000, law)
    binning = Binning.adaptive(counts, 64)
    of_bins = np.bincount(binning.table(), weights=law)
    found = stream_ceiling(counts, binning)
    assert found.law == "marginal"
    assert found.bits == pytest.approx(-(of_bins * np.log2(of_bins)).sum(), abs=2e-3)
    assert found.top1 == pytest.approx(of_bins.max(), abs=2e-3)
    assert found.bits < found.uniform_bits - 0.2  # the frequent value keeps its bin apart


def test_a_ceiling_on_the_counts_that_made_the_bins_says_how_far_off_it_can_be():
    law = np.exp(-0.5 * ((np.arange(30_000) - 15_000) / 3000) ** 2)
    law /= law.sum()
    counts, others = np.random.default_rng(0).multinomial(20_000, law, size=2)
    binning = Binning.adaptive(counts, 1024)
    of_bins = np.bincount(binning.table(), weights=law)
    found = stream_ceiling(counts, binning)
    said = float(found.reason.split("read up to about ")[1].split(" ")[0])
    excess = found.bits + (of_bins * np.log2(of_bins)).sum()
    assert 0.3 * said < excess < said
    assert "made even" not in stream_ceiling(others, binning).reason


def test_there_is_no_augmentation_unless_asked_for(bell, tmp_path):
    assert run_on(tmp_path, bell, **VALUES).augmentation is None
    assert run_on(tmp_path, bell, **VALUES, augment_noise=1.5).augmentation.noise == 1.5


@pytest.mark.parametrize("model", ["baseline", "supercharged"])
def test_masks_give_the_model_one_symbol_more(tmp_path, model):
    symbols = np.random.default_rng(0).integers(0, 50, 3000)
    settings = {"kind": "tokens", "model": model, "local_width": 32}
    plain = run_on(tmp_path, symbols, **settings, augment_replace=0.1)
    assert plain.augmentation.replace == 0.1
    masked = run_on(tmp_path, symbols, **settings, augment_mask=0.1)
    assert (plain.card.config["mask_symbol"], masked.card.config["mask_symbol"]) == (False, True)
    window = torch.zeros(2, 17, dtype=torch.int64)
    objective, _ = masked.model.objective(window, torch.full((2, 16), 50))
    assert torch.isfinite(objective)


def test_replacement_follows_what_is_trained_on(tmp_path):
    symbols = np.append(np.arange(1000) % 10, 10 + np.arange(3000) % 20)
    run = run_on(tmp_path, symbols, kind="tokens", max_samples=1000, augment_replace=0.5)
    assert run.augmentation.cumulated.tolist() == [min(100 * i, 1000) for i in range(1, 31)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "tokens", "augment_noise": 1.0}, "--augment_noise 1 needs values"),
        ({"kind": "values", "augment_mask": 0.1}, "--augment_mask 0.1 needs tokens"),
        ({"kind": "values", "augment_replace": 0.1}, "--augment_replace 0.1 needs tokens"),
        ({"augment_noise": -1.0}, "--augment_noise -1.0; 0 or more fits"),
        ({"augment_noise": float("nan")}, "--augment_noise nan"),
        ({"augment_mask": 1.0}, "--augment_mask 1.0; 0 to below 1 fits"),
        ({"augment_replace": float("nan")}, "--augment_replace nan"),
        ({"augment_replace": 0.5, "augment_mask": 0.5}, "leave nothing as it was"),
    ],
)
def test_augmentation_that_makes_no_sense(tmp_path, changes, words):
    symbols = np.random.default_rng(0).integers(0, 900, 3000)
    with pytest.raises(UserError, match=words):
        run_on(tmp_path, symbols, **changes)


def test_a_run_that_goes_on_keeps_its_rate(bell, tmp_path):
    folder = tmp_path / "m.run"
    (folder / "last").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"lr": 0.0042}))
    settings = {**VALUES, "lr_find": True, "resume": "auto"}
    assert run_on(tmp_path, bell, **settings).config.lr_find  # nothing to go on from
    (folder / "last" / STATE).write_text("{}")
    run = run_on(tmp_path, bell, **settings)
    assert (run.config.lr, run.config.lr_find) == (0.0042, False)
    assert any("learning rate: 0.0042, of the run that goes on" in r for r in run.remarks)
    assert run_on(tmp_path, bell, **settings | {"resume": "never"}).config.lr_find
