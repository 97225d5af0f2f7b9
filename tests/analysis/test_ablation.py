import csv
import dataclasses
import io

import pytest

from pyseq.analysis.ablation import ablation_row, components, to_json, to_tsv, training_budget
from pyseq.data.binning import Binning
from pyseq.models.checkpoint import MODELS, ModelCard
from tests.analysis import evaluations

SMALL = {"d_model": 32, "nlayers": 3, "nhead": 2, "nhead_kv": 2, "dim_ff": 48, "classes": 300,
         "kind": "values"}  # fmt: skip
OFF = {
    "memory tokens": {"memory": 0},
    "hard attention": {"hard": False},
    "Fourier mixing": {"fourier": False},
    "exponential smoothing": {"smoothing": False},
    "scale term": {"scale_bins": ()},
    "pattern term": {"horizons": 1},
    "label smoothing": {"label_smoothing": 0.0},
    "stochastic depth": {"stochastic_depth": 0.0},
    "dropout": {"dropout": 0.0},
}
ON = {
    "local_width": 32, "memory": 4, "smoothing": True, "label_smoothing": 0.1,
    "stochastic_depth": 0.1, "dropout": 0.1, "scale_bins": (16, 64),
}  # fmt: skip


def made(model: str, **changes):
    """A model and its card, as it is read from a file."""
    config_type, model_type = MODELS[model]
    config = config_type(**(SMALL | changes))
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(config).items()}
    training = {"ckpt": "m.pt", "seed": 7, "device": "cpu"}
    card = ModelCard(model, plain, Binning(300), "values", seq_len=64, training=training)
    return model_type(config), card


def by_name(model: str, **changes):
    return {part.name: part for part in components(*made(model, **changes))}


@pytest.mark.parametrize("model", MODELS)
def test_nothing_of_a_model_is_left_out(model):
    net, card = made(model)
    parts = components(net, card)
    assert sum(part.parameters for part in parts) == sum(p.numel() for p in net.parameters())
    settings = [name for part in parts for name in part.settings]
    assert sorted(settings) == sorted(field.name for field in dataclasses.fields(MODELS[model][0]))


def test_what_found_no_place_in_the_model_is_off():
    """Fourier mixing waits for a third block, the scale term for neighbours and fewer bins."""
    assert not by_name("supercharged", nlayers=2)["Fourier mixing"].on
    assert not by_name("supercharged", nlayers=1)["cosine attention"].parameters
    assert not by_name("supercharged", kind="tokens", **ON)["scale term"].on
    assert not by_name("supercharged", scale_bins=(300, 1024))["scale term"].on


def test_every_switch_is_read_from_the_config():
    whole = by_name("supercharged", **ON)
    assert {name for name, part in whole.items() if part.on} == {*OFF, "patch reader"}
    for name, change in OFF.items():
        without = by_name("supercharged", **(ON | change))
        assert [n for n in whole if whole[n].on and not without[n].on] == [name]
        assert without[name].parameters == 0
        assert (
            without[name].settings.items()
            >= {k: list(v) if isinstance(v, tuple) else v for k, v in change.items()}.items()
        )
    assert by_name("supercharged", **ON, scale_weight=0.0)["scale term"].on is False
    assert by_name("supercharged", **ON, patch=1)["patch reader"].on is False


def test_parameters_are_counted_where_they_work():
    parts = by_name("supercharged", **ON)
    assert parts["memory tokens"].parameters == 4 * 32
    assert parts["head"].parameters == 300 * 32
    assert parts["embedding"].parameters == 300 * 32 + 32  # and a direction for the size
    assert parts["pattern term"].parameters == 3 * 32 * 32
    for name in ("hard attention", "cosine attention", "Fourier mixing", "exponential smoothing",
                 "feed-forward", "local decoder", "patch reader", "the rest"):  # fmt: skip
        assert parts[name].parameters > 0
    twice = by_name("supercharged", **ON | {"memory": 8})
    changed = [name for name in parts if twice[name].parameters != parts[name].parameters]
    assert changed == ["memory tokens"]
    near = by_name("supercharged", **ON, local_reach=1)
    changed = {name: parts[name].parameters - near[name].parameters for name in parts}
    assert {name: n for name, n in changed.items() if n} == {"local decoder": 4 * 32 * 32}


def test_a_baseline_lacks_what_only_the_other_model_has():
    parts = by_name("baseline")
    for name in (*OFF, "patch reader", "local decoder"):
        assert parts[name].on is False
        assert parts[name].parameters == 0
    assert by_name("baseline", dropout=0.1)["dropout"].on is True
    assert parts["cosine attention"].on is None


def row(model: str) -> dict:
    net, card = made(model)
    parts = components(net, card)
    return ablation_row(card, parts, evaluations.evaluation(), stream="a b\tc.u16", budget={})


def test_rows_of_both_models_fit_under_one_heading():
    rows = [row(model) for model in MODELS]
    heading = to_tsv(rows[0]).splitlines()[0]
    assert to_tsv(rows[1]).splitlines()[0] == heading
    table = "\n".join([heading, *(to_tsv(r).splitlines()[1] for r in rows)])
    baseline, supercharged = csv.DictReader(io.StringIO(table), dialect="excel-tab")
    assert (baseline["model"], supercharged["model"]) == ("baseline", "supercharged")
    assert (baseline["memory"], supercharged["memory"]) == ("", "20")
    assert (baseline["fourier"], supercharged["fourier"]) == ("", "on")
    assert supercharged["scale_bins"] == "256 1024 4096"
    assert supercharged["stream"] == "a b c.u16"  # a tab would shift the columns
    assert (supercharged["seed"], supercharged["device"]) == ("7", "cpu")
    assert supercharged["parameters_memory_tokens"] == str(20 * 32)
    assert supercharged["model_bits"] == "2.3521"
    assert supercharged["steps"] == ""


def test_components_are_json():
    import json

    found = to_json(components(*made("supercharged")))
    assert json.loads(json.dumps(found)) == found
    assert found["memory tokens"] == {
        "on": True, "settings": {"memory": 20, "memory_read": "prefix"}, "parameters": 640,
    }  # fmt: skip


def test_the_speed_leaves_out_what_is_not_training():
    """Validations take time, and their rows have no speed."""
    curve = [
        {"step": 1, "symbols": 100, "seconds": 2.0, "symbols_per_second": 50.0, "memory_mib": 7.0},
        {"step": 1, "symbols": 100, "seconds": 30.0, "val_bits": 3.0, "memory_mib": 8.0},
        {"step": 4, "symbols": 400, "seconds": 32.0, "symbols_per_second": 150.0,
         "memory_mib": 9.0},
    ]  # fmt: skip
    assert training_budget(curve, 4, 3_000_000) == {
        "steps": 4, "symbols": 400, "seconds": 32.0, "symbols_per_second": 100.0,
        "mflop_per_symbol": 3.0, "memory_mib": 9.0,
    }  # fmt: skip
    nothing = training_budget([], 0, 1)
    assert nothing["symbols_per_second"] is nothing["seconds"] is None
