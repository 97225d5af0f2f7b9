"""Model files: what is saved comes back, and nothing else is accepted."""

import pickle

import pytest
import safetensors.torch
import torch

from pyseq.data.binning import Binning
from pyseq.errors import UserError
from pyseq.models import Baseline, BaselineConfig, ModelCard, load_model, save_model


def make(binning: Binning) -> tuple[Baseline, ModelCard]:
    config = {"classes": binning.classes, "d_model": 16, "nlayers": 1, "nhead": 2, "nhead_kv": 1,
              "dim_ff": 24, "kind": "values", "dropout": 0.0}  # fmt: skip
    card = ModelCard("baseline", config, binning, "values", 32, {"symbols": 5}, {"lr": 0.1})
    return Baseline(BaselineConfig(**config)), card


@pytest.mark.parametrize("binning", [Binning(300), Binning.uniform(10_001, 64)])
def test_what_is_saved_comes_back(tmp_path, binning):
    model, card = make(binning)
    save_model(tmp_path / "model.pt", model.state_dict(), card)
    loaded, loaded_card = load_model(tmp_path / "model.pt")
    assert loaded_card == card
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    model, card = make(Binning(300))
    path = tmp_path / "model.pt"
    save_model(path, model.state_dict(), card)
    before = path.read_bytes()

    def full_disk(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(UserError, match="No space left"):
        save_model(path, model.state_dict(), card)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize(
    ("make_file", "words"),
    [
        (lambda p: None, "is no file"),
        (lambda p: p.mkdir(), "is no file"),
        (lambda p: p.write_bytes(b""), "is no safetensors file"),
        (lambda p: p.write_bytes(pickle.dumps(Bomb())), "is no safetensors file"),
        (lambda p: torch.save({"w": torch.zeros(3)}, p), "is no safetensors file"),
        (lambda p: safetensors.torch.save_file({"w": torch.zeros(3)}, p), "pyseq did not write it"),
    ],
)
def test_other_files_are_refused(tmp_path, make_file, words):
    path = tmp_path / "model.pt"
    make_file(path)
    with pytest.raises(UserError, match=words):
        load_model(path)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.replace('"version": 1', '"version": 2'), "format version 2"),
        (
            lambda t: t.replace('"baseline"', '"unknown"'),
            "unknown model 'unknown'; known: baseline",
        ),
        (lambda t: t.replace('"d_model": 16', '"d_model": 18'), "does not hold a model"),
        (lambda t: t.replace('"dim_ff"', '"dim_fff"'), "does not hold a model"),
        (lambda t: t[:-5], "does not hold a model"),
        (lambda t: "null", "describes a NoneType; a mapping fits"),
    ],
)
def test_damaged_descriptions_are_refused(tmp_path, edit, words):
    model, card = make(Binning(300))
    text = edit(card.to_json())
    path = tmp_path / "model.pt"
    safetensors.torch.save_file(model.state_dict(), path, metadata={"pyseq": text})
    with pytest.raises(UserError, match=words):
        load_model(path)
