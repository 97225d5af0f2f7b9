"""Windows of a 16-bit stream, gathered into one dense tensor."""

from pyseq.ops.gather_windows.api import SymbolStream, gather_windows

__all__ = ["SymbolStream", "gather_windows"]
