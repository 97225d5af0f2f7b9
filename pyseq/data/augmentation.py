"""Disturbances of what a model reads in training; what it is to predict stays as it was."""

import numpy as np
import torch
from torch import Tensor, nn

from pyseq.data.binning import Binning
from pyseq.data.stream_info import Kind
from pyseq.errors import UserError


class Augmentation(nn.Module):
    """From the symbols of a window to the classes that the model is shown instead.

    Values get Gaussian noise, rounded to whole symbols, before they are binned. What leaves the
    alphabet is reflected at its ends: clamped, it would pile up there as symbols that the stream
    never showed so often, while a reflected flat histogram stays flat. Tokens are replaced by ones
    drawn independently from the given frequencies, or masked: shown as class `binning.classes`,
    which no symbol has. A token is never both. All draws come from torch's default generator of the
    symbols' device, and nothing waits for the device.

    Args:
        kind ("tokens" | "values"): whether a symbol's magnitude means something.
        binning (Binning): from symbols to classes.
        frequencies (array (alphabet,), int64): how often each symbol occurs where the model is
            trained; what replaces tokens is drawn accordingly.
        noise (float): standard deviation of the noise on values, in symbols.
        replace (float): probability that a token is replaced.
        mask (float): probability that a token is masked.

    Raises:
        UserError: noise for tokens or wider than the alphabet, or replacement or masks for values.
    """

    cumulated: Tensor

    def __init__(
        self,
        kind: Kind,
        binning: Binning,
        frequencies: np.ndarray,
        *,
        noise: float = 0.0,
        replace: float = 0.0,
        mask: float = 0.0,
    ):
        super().__init__()
        if noise > 0 and kind != "values":
            raise UserError(
                f"--augment_noise {noise:g} needs values, and this stream holds {kind}: an id that"
                " lies close to another means nothing like it"
            )
        if noise > binning.alphabet:
            raise UserError(
                f"--augment_noise {noise:g} drowns an alphabet of {binning.alphabet} symbols;"
                f" 0 to {binning.alphabet} fits"
            )
        for flag, share in (("--augment_replace", replace), ("--augment_mask", mask)):
            if share > 0 and kind != "tokens":
                raise UserError(
                    f"{flag} {share:g} needs tokens, and this stream holds {kind};"
                    " --augment_noise fits values"
                )
        self.binning, self.noise, self.replace, self.mask = binning, noise, replace, mask
        cumulated = torch.from_numpy(np.cumsum(frequencies)).double()  # (alphabet,)
        self.register_buffer("cumulated", cumulated, persistent=False)

    def forward(self, symbols: Tensor) -> Tensor:
        """Classes (B, T) int64, disturbed, of symbols (B, T) of any integer dtype."""
        symbols = symbols.long()
        if self.noise > 0:
            return self.binning.apply(self._noisy(symbols))
        chance = torch.rand(symbols.shape, device=symbols.device)
        if self.replace > 0:
            replaced = chance < self.mask + self.replace  # those below mask are masked all the same
            symbols = torch.where(replaced, self._drawn(symbols), symbols)
        return self.binning.apply(symbols).masked_fill(chance < self.mask, self.binning.classes)

    def _noisy(self, symbols: Tensor) -> Tensor:
        alphabet = self.binning.alphabet
        noise = self.noise * torch.randn(symbols.shape, device=symbols.device)
        moved = (symbols + noise.round().long()).remainder(2 * alphabet)
        return torch.minimum(moved, 2 * alphabet - 1 - moved)  # ..., 1, 0 | 0, 1, ..., V-1 | V-1

    def _drawn(self, symbols: Tensor) -> Tensor:
        """Independent symbols of the training range, by the inverse of their distribution."""
        # Single precision would not tell rare symbols of a long stream apart.
        where = torch.rand(symbols.shape, device=symbols.device, dtype=torch.float64)
        return torch.searchsorted(self.cumulated, where * self.cumulated[-1], right=True)
