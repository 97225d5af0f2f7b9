"""A file of bytes, read as symbols of 8, 4, 2 or 1 bits: what NIST's program reads."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyseq.analysis.predictability.sp800_90b import as_symbols
from pyseq.errors import UserError

_CHUNK = 1 << 24  # bytes looked at, at a time


class BytesAsSymbols:
    """Symbols cut from bytes, high bits first; or one per byte, where no byte is too large for one.

    Args:
        path (path): of the file.
        symbol_bits (int): 8, 4, 2 or 1.

    Raises:
        UserError: the file cannot be read, or is empty.
    """

    def __init__(self, path: str | os.PathLike[str], symbol_bits: int):
        self.path, self.symbol_bits = Path(path), symbol_bits
        try:
            self._file = open(path, "rb")  # noqa: SIM115, closed by `close`
            self._bytes = os.fstat(self._file.fileno()).st_size
            largest = max((int(part.max()) for part in self._parts()), default=None)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        if largest is None:
            raise UserError(f"{path} is empty; 1 byte or more fits")
        self.packed = largest >= 1 << symbol_bits
        self._per_byte = 8 // symbol_bits if self.packed else 1

    @property
    def words(self) -> str:
        """How bytes became symbols."""
        if self._per_byte > 1:
            return f"{self._per_byte} symbols of {self.symbol_bits} bits from each byte, high first"
        return f"one symbol of {self.symbol_bits} bits from each byte"

    def __len__(self) -> int:
        return self._bytes * self._per_byte

    def __getitem__(self, window: slice) -> Tensor:
        """Symbols [a:b], (b - a,) uint16, copied."""
        start, stop, step = window.indices(len(self))
        if step != 1:
            raise ValueError(f"BytesAsSymbols: a step of {step}; 1 fits")
        first = start // self._per_byte
        last = -(-stop // self._per_byte)
        data = os.pread(self._file.fileno(), max(0, last - first), first)
        layout = "packed" if self.packed else "one_per_byte"
        symbols = as_symbols(data, self.symbol_bits, layout=layout)
        skipped = start - first * self._per_byte
        return torch.from_numpy(symbols[skipped : skipped + max(0, stop - start)].copy())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _parts(self):
        for start in range(0, self._bytes, _CHUNK):
            yield np.frombuffer(os.pread(self._file.fileno(), _CHUNK, start), np.uint8)
