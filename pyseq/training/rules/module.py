"""The Lightning module of a stack: its loss, its optimiser, its validation."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pyseq.analysis.rules import validation_loss
from pyseq.errors import UserError
from pyseq.models.rules import RuleModel
from pyseq.models.rules.stacked import StackedLinear
from pyseq.training.rules import losses
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.language import Language
from pyseq.training.rules.schedules import rule_rate_factor
from pyseq.training.rules.stack import clip_gradients, gradient_norms, keep_optimizer_state
from pyseq.training.rules.words import WordBatches, replace_symbols
from pyseq.training.schedules import Progress

FIRST_SYMBOL = 3
FINE_TUNING = 0.1  # of the rate, in the last phase of progressive training
COUNTING_SEED = 1 << 32  # added to a seed's number: its counting layer is drawn apart


class RuleTraining(lightning.LightningModule):
    """Trains S seeds as one model: the loss is the sum over seeds of each seed's mean.

    Nothing that a seed computes depends on the others, so that without dropout it learns in any
    stack what it learns alone.

    Args:
        model (RuleModel): the stack.
        config (RulesConfig): resolved.
        batches (WordBatches): whose words are read.
        language (Language): grammar, spelling, prompts and completions.
        validation (Tensor (S, N, L), uint8): validation words of every seed.

    Attributes:
        steps (int): optimiser steps at the most.
        progress (Progress): share of the steps or of the time.
        finished (bool): whether no step is left, for whatever reason.
        measured (list of dict): after a validation, a row for each active seed.
    """

    def __init__(self, model: RuleModel, config: RulesConfig, batches: WordBatches,
                 language: Language, validation: Tensor):  # fmt: skip
        super().__init__()
        self.model, self.config, self.batches, self.language = model, config, batches, language
        self.validation = validation
        self.steps = len(batches)
        self.finished = False
        self.progress = Progress(
            self.steps, None if config.max_time is None else 60 * config.max_time
        )
        self.measured: list[dict[str, Any]] = []
        self._prompts, self._prompt_targets = language.completion_batch()  # (P, L), bool (P, L - 1)
        self._hidden: Tensor | None = None
        self.counting = self._counting_layer() if config.auxiliary_weight else None
        seeds = model.seeds
        self._loss = torch.zeros(seeds)  # since the last validation, of each seed
        self._losses = 0
        self._norms = torch.zeros(seeds)  # of the last step, when a validation follows
        self._saved_rng: dict[str, Any] | None = None

    def _counting_layer(self) -> StackedLinear:
        out = getattr(self.model, "out", None)
        if not isinstance(out, StackedLinear):
            raise UserError(
                f"--auxiliary_weight needs a last hidden state, and --model {self.config.model} has"
                " none"
            )
        out.register_forward_pre_hook(self._keep_hidden)
        symbols = self.language.symbols_end - FIRST_SYMBOL
        answers = symbols + symbols * (symbols - 1) // 2
        layer = StackedLinear(self.model.seeds, out.weight.shape[2], answers)
        layer.reset(
            [torch.Generator().manual_seed(COUNTING_SEED + n) for n in self.model.seed_numbers]
        )
        return layer

    def _keep_hidden(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0]

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        step, tokens = batch["step"], batch["tokens"]
        on_words, on_prompts = self._phase(step)
        total = torch.zeros(self.model.seeds, device=tokens.device)
        if on_words:
            total = total + self._word_loss(tokens, step)
        if on_prompts:
            total = total + self._completion_loss()
            if not on_words:
                self._count_loss(total)
        return total.sum()

    def _phase(self, step: int) -> tuple[bool, bool]:
        """Whether a step learns from words, and whether from completions of prompts."""
        if not self.config.progressive:
            return True, self.config.oracle or self.config.adversarial
        mixed, tuned = self.config.progressive
        epoch = self.batches.epoch(step)
        return epoch < tuned, epoch >= mixed

    def _word_loss(self, tokens: Tensor, step: int) -> Tensor:
        """Loss of every seed on a batch of words (S, B, L)."""
        config, read = self.config, tokens[..., :-1]
        # A task's token is given: which one comes says nothing of words, and the floor is theirs.
        given = len(self.language.start)
        targets = tokens[..., given:]
        ignore_pad = config.pad_targets == "ignore"
        seen = read
        if config.augment:
            seen = replace_symbols(
                read, config.augment, seeds=self.model.seed_numbers, step=step,
                special=FIRST_SYMBOL, classes=self.language.symbols_end,
            )  # fmt: skip
        logits = self.model(seen)[..., given - 1 :, :]
        loss = losses.word_loss(
            logits, targets, ignore_pad=ignore_pad,
            label_smoothing=config.label_smoothing, focal_gamma=config.focal_gamma,
        )  # fmt: skip
        if ignore_pad or config.label_smoothing or config.focal_gamma:
            with torch.no_grad():
                self._count_loss(losses.word_loss(logits, targets))
        else:
            self._count_loss(loss)
        if self.counting is not None and self._hidden is not None:
            asked = losses.counting_targets(seen, FIRST_SYMBOL, self.language.symbols_end)
            answers = self.counting(self._hidden)
            loss = loss + config.auxiliary_weight * losses.counting_loss(answers, asked, seen)
        return loss

    def _completion_loss(self) -> Tensor:
        """Loss of every seed on the prompts' completions and their EOS, each target alike."""
        prompts = self._prompts.to(self.device)
        read = prompts.expand(self.model.seeds, -1, -1)
        logits = self.model(read[..., :-1])
        each = -logits.log_softmax(-1).gather(-1, read[..., 1:, None])[..., 0]
        return losses.masked_mean(each, self._prompt_targets.to(self.device))

    def _count_loss(self, loss: Tensor) -> None:
        # On the loss's device: to fetch it every step would hold up a GPU.
        self._loss = self._loss.to(loss.device) + loss.detach()
        self._losses += 1

    def validation_step(self, *_: Any) -> None:
        model, language = self.model, self.language
        chosen = self.validation[self.batches.active].to(self.device).long()
        loss = validation_loss(model, chosen, given=len(language.start))
        scores = language.scores(model)
        losses_so_far = self._loss.cpu()
        rate = self.trainer.optimizers[0].param_groups[0]["lr"] if self.trainer.optimizers else None
        self.measured = [
            {
                "seed": model.seed_numbers[i],
                "step": self.trainer.global_step,
                "epoch": self.trainer.global_step // self.batches.steps_per_epoch,
                "train_loss": float(losses_so_far[i]) / self._losses if self._losses else None,
                "validation_loss": float(loss[i]),
                "grad_norm": float(self._norms[i]),
                "lr": rate,
                **vars(scores[i]),
            }
            for i in range(model.seeds)
        ]
        self._loss = torch.zeros_like(self._loss)
        self._losses = 0

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        # The gradients are still there. Norms cost a pass over everything, so only where they are
        # shown; after StopAtEnd, which a callback is, it is known whether this step is the last.
        trainer = self.trainer
        validates = trainer.should_stop or (batch_idx + 1) % trainer.val_check_batch == 0
        if validates and not self.config.clip:
            self._norms = gradient_norms(self.parameters())

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        if self.config.clip:
            parameters = list(self.parameters())
            self._norms = gradient_norms(parameters)
            clip_gradients(parameters, self._norms, self.config.clip)

    def keep(self, which: list[int], optimizer: torch.optim.Optimizer | None = None) -> None:
        """Let only these of the active seeds stay, by their place in the stack.

        Args:
            which (list of int): places.
            optimizer (Optimizer | None): shrunk likewise.
        """
        before = self.model.seeds
        self.model.keep(which)
        self.batches.keep(which)
        if self.counting is not None:
            for parameter in self.counting.parameters():
                parameter.data = parameter.data[which].contiguous()
        if optimizer is not None:
            keep_optimizer_state(optimizer, which, before)
        self._loss = self._loss[which]

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["finished"] = self.finished
        checkpoint["active"] = self.batches.active
        checkpoint["elapsed"] = self.progress.elapsed
        checkpoint["losses"] = {"sum": self._loss.cpu(), "count": self._losses}
        checkpoint["rng"] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # Lightning calls this before it gives the parameters their values.
        self.keep([self.batches.active.index(place) for place in checkpoint["active"]])
        # What was the last batch need not be now: --max_steps may have risen.
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        progress["is_last_batch"] = progress["current"]["ready"] >= len(self.batches)
        losses_before = checkpoint["losses"]
        self._loss, self._losses = losses_before["sum"], losses_before["count"]
        self._saved_rng = checkpoint["rng"]
        self.progress.resume(checkpoint["elapsed"])

    def on_train_start(self) -> None:
        if self._saved_rng is not None:
            torch.set_rng_state(self._saved_rng["cpu"])
            torch.cuda.set_rng_state_all(self._saved_rng["cuda"])

    def configure_optimizers(self):
        config, parameters = self.config, list(self.parameters())
        settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
        optimizer: torch.optim.Optimizer
        match config.optimizer:
            case "adamw":
                optimizer = torch.optim.AdamW(parameters, fused=True, **settings)
            case "adam":
                optimizer = torch.optim.Adam(parameters, fused=True, **settings)
            case "sgd":
                optimizer = torch.optim.SGD(parameters, momentum=0.9, **settings)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        config = self.config
        epoch = self.batches.epoch(step)
        units = step if config.schedule_unit == "step" else epoch
        factor = rule_rate_factor(config.schedule, units, config.warmup, self.progress(step))
        if config.progressive and epoch >= config.progressive[1]:
            factor *= FINE_TUNING
        return factor
