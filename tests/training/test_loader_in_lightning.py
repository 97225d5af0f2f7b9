"""WindowLoader as somebody's train_dataloader in Lightning: saved and restored in its place."""

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from pyseq.data import U16Stream, WindowLoader


class Seen(lightning.LightningModule):
    """Trains nothing that matters, and remembers which windows it was given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.offsets: list[list[int]] = []

    def training_step(self, batch, index):
        self.offsets.append(batch["offset"].tolist())
        return self.weight * batch["window"].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-9)


@pytest.fixture
def loader_of(tmp_path):
    path = tmp_path / "s.u16"
    np.arange(3000).astype("<u2").tofile(path)
    return lambda **arguments: WindowLoader(U16Stream(path), 300, 64, stride=4, **arguments)


def trained(loader, folder, steps: int, resume: str | None = None) -> list[list[int]]:
    model = Seen()
    saving = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[saving],
    )  # fmt: skip
    trainer.fit(model, loader, ckpt_path=resume)
    return model.offsets


def test_epochs_follow_one_another(loader_of, tmp_path):
    plain = loader_of(prefetch=0)
    expected = [batch["offset"].tolist() for _ in range(2) for batch in plain]
    assert len(expected) == 20
    assert trained(loader_of(), tmp_path, len(expected)) == expected


@pytest.mark.parametrize("depth", [0, None])
@pytest.mark.parametrize("saved", [1, 5, 10, 11, 12])
def test_a_checkpoint_resumes_with_the_next_batch(loader_of, tmp_path, saved, depth):
    """In the middle of an epoch, at its end, and after it; whatever was gathered ahead."""
    whole = trained(loader_of(prefetch=0), tmp_path / "whole", 16)
    trained(loader_of(prefetch=depth), tmp_path / "first", saved)
    rest = trained(
        loader_of(prefetch=depth), tmp_path / "rest", 16, str(tmp_path / f"first/step={saved}.ckpt")
    )
    assert rest == whole[saved:]
