import numpy as np
import pytest

from benchmarks import fusion_peers
from benchmarks.fusion_peers import NOISE, OURS, section, versions
from pyseq.analysis.fusion import Peer, paired_gain, read_record
from pyseq.analysis.fusion.technique_table import percent
from pyseq.data.modalities import find_data

SMALL = {
    "epochs": 2, "warmup_epochs": 1, "cycle_epochs": 1, "folds": 2, "batch": 256,
    "model.width": 16, "model.heads": 4, "model.classifier_layers": 1, "model.encoder_layers": 1,
    "model.fusion_layers": 1,
}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """Tiny models, and peers that guess: their own tests are elsewhere."""
    monkeypatch.setattr(fusion_peers, "SETTINGS", fusion_peers.SETTINGS | SMALL)
    monkeypatch.setattr(fusion_peers, "OUTER_FOLDS", 2)
    monkeypatch.setattr(fusion_peers, "DATA", {"synthetic": {"count": 100}})

    def guess(data, outer, seed, *, versions):
        views = {"clean": data, **versions}
        sure = np.eye(data.classes)[np.roll(data.label, 1)] * 0.6 + 0.1
        return [Peer(n, dict.fromkeys(views, sure), [{"C": 1}]) for n in fusion_peers.PEERS]

    monkeypatch.setattr(fusion_peers, "peers", guess)


def test_each_object_is_predicted_once_and_folds_are_kept(small, tmp_path, capsys):
    page = tmp_path / "page.md"
    arguments = ["--data", "synthetic", "--results", str(tmp_path), "--page", str(page)]
    assert fusion_peers.main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    record = read_record(tmp_path / "synthetic-nested" / "record.json")
    given = record.predictions[OURS]
    np.testing.assert_allclose(given.sum(1), 1, atol=1e-5)
    assert set(np.unique(record.fold)) == {0, 1}
    assert set(record.corrupted) == {
        "noise", "scalars missing", "sequence missing", "tokens missing", "graph missing",
    }  # fmt: skip
    gain = paired_gain(given, record.peers["SVC"], record.label, fold=record.fold)
    assert percent(gain.interval, signed=True) in page.read_text()
    assert "<svg" in (tmp_path / "synthetic-nested" / "report.html").read_text()
    text = page.read_text()
    fusion_peers.main(arguments)
    assert capsys.readouterr().out == ""
    assert page.read_text() == text
    assert section(record)[1] in text


def test_folds_of_other_settings_are_not_taken_for_these(small, tmp_path, monkeypatch):
    folder = tmp_path / "synthetic-nested"
    folder.mkdir()
    np.savez(folder / "fold-1.npz", settings="others", seconds=1.0)
    with pytest.raises(SystemExit, match="of other settings"):
        fusion_peers.main(
            ["--data", "synthetic", "--results", str(tmp_path), "--page", str(tmp_path / "p.md")]
        )


def test_noise_is_in_units_of_each_feature():
    data = find_data("wine")
    noisy = versions(data)["noise"]
    for clean, other in zip(data.modalities, noisy.modalities, strict=True):
        added = (other.values - clean.values).std(0)
        np.testing.assert_allclose(added / clean.values.std(0), NOISE, rtol=0.25)
