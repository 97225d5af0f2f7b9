"""Errors that pyseq raises by a name of its own."""


class UserError(ValueError):
    """Bad input, told in one sentence; at the command line it goes to stderr with exit code 2."""


class BackendUnavailable(RuntimeError):
    """A backend that was asked for by name cannot serve the call; the message says why."""
