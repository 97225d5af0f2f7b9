"""Files of fusion models: what goes in comes out, and damaged ones are refused in one sentence."""

import dataclasses

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from pyseq.errors import UserError
from pyseq.models import load_model
from pyseq.models.fusion import DataShape, load_fusion, save_fusion
from tests.models.fusion.fusion_cases import CONFIGS, SHAPE, build, modality_data, some_missing


def test_models_come_back(tmp_path):
    wider = dataclasses.replace(CONFIGS["attention"], width=24)
    other_shares = dataclasses.replace(SHAPE, class_shares=(0.5, 0.25, 0.25))
    models = [build(config) for config in CONFIGS.values()]
    models.append(build(wider, shape=other_shares))
    path = tmp_path / "ensemble.safetensors"
    metadata = {"class_names": ["a", "b", "c"], "temperature": 1.25}
    save_fusion(path, models, metadata)
    state = torch.get_rng_state()
    again, found = load_fusion(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert found == metadata
    present = some_missing()
    present[2] = False
    batch = modality_data(present=present).batch()
    for ours, theirs in zip(models, again, strict=True):
        assert (ours.config, ours.shape) == (theirs.config, theirs.shape)
        assert not theirs.training
        assert torch.equal(ours(batch), theirs(batch))


def test_models_of_different_data_are_refused(tmp_path):
    path = tmp_path / "ensemble.safetensors"
    fewer = DataShape(SHAPE.modalities[:2], SHAPE.class_shares)
    model = build(CONFIGS["attention"])
    with pytest.raises(ValueError, match="models of 2 kinds of data"):
        save_fusion(path, [model, build(CONFIGS["attention"], shape=fewer)], {})
    with pytest.raises(ValueError, match="no models"):
        save_fusion(path, [], {})
    with pytest.raises(TypeError):
        save_fusion(path, [model], {"model": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"version": 1', '"version": 2', "format version 2; 1 fits"),
        ('"width": 16', '"width": 18', "does not hold models"),
        ('"heads": 2', '"heads": 3', "3 heads do not divide width 16"),
        ('"width"', '"widht"', "does not hold models"),
        ('"features": 5', '"features": 4', "does not hold models"),
        ('"kind": "graph"', '"kind": "image"', "kind image"),
        ('"metadata": {}}', "", "does not hold models"),
        ('"models": [{', '"models": [], "other": [{', "no models"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, old, new, words):
    path = tmp_path / "ensemble.safetensors"
    save_fusion(path, [build(CONFIGS["attention"])], {})
    with safe_open(path, "pt") as file:
        header = file.metadata()["pyseq_fusion"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert old in header
    broken = {"pyseq_fusion": header.replace(old, new, 1)}
    safetensors.torch.save_file(tensors, path, metadata=broken)
    with pytest.raises(UserError, match=words):
        load_fusion(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "ensemble.safetensors"
    with pytest.raises(UserError, match="is no file"):
        load_fusion(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="no safetensors file"):
        load_fusion(path)
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="holds no fusion models"):
        load_fusion(path)
    save_fusion(path, [build(CONFIGS["attention"])], {})
    with pytest.raises(UserError, match="pyseq did not write it"):
        load_model(path)
