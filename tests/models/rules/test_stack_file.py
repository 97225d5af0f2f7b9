"""Files of stacks: what is saved comes back, and nothing else is accepted."""

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from pyseq.errors import UserError
from pyseq.models import load_model
from pyseq.models.rules import load_stack, save_stack
from tests.models.rules.rule_model_cases import ALL, build, words


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_what_is_saved_comes_back(tmp_path, config):
    model = build(config, seeds=(3, 5, 8))
    model.keep([1, 2])
    path = tmp_path / "model.pt"
    save_stack(path, model.train(), {"grammar": "aNbN", "steps": [1, 2]})
    loaded, metadata = load_stack(path)
    assert metadata == {"grammar": "aNbN", "steps": [1, 2]}
    assert (loaded.config, loaded.seed_numbers) == (config, (5, 8))
    assert (loaded.classes, loaded.max_length) == (model.classes, model.max_length)
    assert not loaded.training
    assert torch.equal(loaded(words(2)), model.eval()(words(2)))
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(
    ("make_file", "words"),
    [
        (lambda p: None, "is no file"),
        (lambda p: p.mkdir(), "is no file"),
        (lambda p: p.write_bytes(b"half"), "is no safetensors file"),
        (lambda p: torch.save({"w": torch.zeros(3)}, p), "is no safetensors file"),
        (lambda p: safetensors.torch.save_file({"w": torch.zeros(3)}, p), "holds no models of"),
    ],
)
def test_other_files_are_refused(tmp_path, make_file, words):
    path = tmp_path / "model.pt"
    make_file(path)
    with pytest.raises(UserError, match=words):
        load_stack(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"version": 1', '"version": 2', "format version 2; 1 fits"),
        ('"lstm"', '"rnn"', "unknown model 'rnn'; known: transformer, lstm, linear"),
        ('"hidden": 8', '"hidden": 9', "does not hold models"),
        ('"hidden"', '"hiddden"', "does not hold models"),
        ('"seeds": [3, 5]', '"seeds": []', "0 seeds"),
        ('"metadata": {}}', "", "does not hold models"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, old, new, words):
    path = tmp_path / "model.pt"
    save_stack(path, build(ALL["lstm"]), {})
    with safe_open(path, "pt") as file:
        header = file.metadata()["pyseq_rules"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert old in header
    broken = {"pyseq_rules": header.replace(old, new, 1)}
    safetensors.torch.save_file(tensors, path, metadata=broken)
    with pytest.raises(UserError, match=words):
        load_stack(path)


def test_a_stack_is_no_model_of_streams(tmp_path):
    path = tmp_path / "model.pt"
    save_stack(path, build(ALL["lstm"]), {})
    with pytest.raises(UserError, match="pyseq did not write it"):
        load_model(path)


def test_metadata_that_json_cannot_hold(tmp_path):
    with pytest.raises(TypeError):
        save_stack(tmp_path / "model.pt", build(ALL["lstm"]), {"model": object()})
    assert list(tmp_path.iterdir()) == []
