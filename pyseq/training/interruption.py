"""SIGTERM and Ctrl-C: a training ends at a whole step, with its state saved."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Within this time a signal is no second one: timeout(1) sends its signal to the process and to its
# group, and a terminal's Ctrl-C may arrive once more through a parent.
SAME_SECONDS = 0.5


class TrainingStopped(BaseException):
    """A signal ended a training; not an Exception, for the reason that KeyboardInterrupt is none.

    Args:
        received (Signals): the signal.
        what (str): what became of the training, for the sentence that this prints as.
        advice (str): how it can go on, for the same sentence.
        exit_code (int): for the process.

    Attributes:
        received (Signals): the signal.
        what (str): what became of the training.
        exit_code (int): 0 after a SIGTERM that lost no step; else 128 plus the signal's number, as
            shells say it: 130 for Ctrl-C, 143 for a SIGTERM that stopped at once.
    """

    def __init__(self, received: signal.Signals, what: str, advice: str, exit_code: int):
        super().__init__("; ".join(filter(None, (f"stopped by {received.name}", what, advice))))
        self.received, self.what, self.exit_code = received, what, exit_code


class Interruption:
    """In its `with` block SIGTERM and SIGINT raise TrainingStopped; afterwards all is as before.

    Signals that are ignored stay ignored (a shell starts background jobs so), and outside the main
    thread, where Python handles no signals, nothing changes.

    Attributes:
        received (Signals | None): in a `deferred` block: the signal to be obeyed.
        advice (str): how the training can go on, for the sentence.
        next (str): what happens after a first signal in a `deferred` block, which says it.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.advice = "no training was running"
        self.next = "saving after this step"
        self._deferring = False
        self._raised: TrainingStopped | None = None
        self._last = -SAME_SECONDS
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        """Put the handlers in place.

        Raises:
            TrainingStopped: a block around this one has raised it and was not heard.
        """
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            for handler in handlers.values():
                outer = getattr(handler, "__self__", None)
                # Python drops what is raised in a callback of a weak reference: imports have many.
                if isinstance(outer, Interruption) and outer._raised is not None:
                    raise outer._raised
            # None is a handler that is not Python's and could not be put back.
            self._before = {n: h for n, h in handlers.items() if h not in (signal.SIG_IGN, None)}
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        """Put back the handlers that were there."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Put the handlers in place once more, after others have taken their place."""
        for number in self._before:
            signal.signal(number, self._receive)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note the first signal in this block; who runs in it looks at `received`.

        Raises:
            TrainingStopped: by a second signal, at once; at the end of the block, if nobody has
                obeyed.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self.obey("all steps are made and saved")

    def obey(self, what: str) -> None:
        """Stop now if a signal was noted.

        Args:
            what (str): what became of the training.

        Raises:
            TrainingStopped: a signal was noted.
        """
        if self.received is not None:
            raise self._stopped(self.received, what, unsaved=False)

    def _receive(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last < SAME_SECONDS:
            return
        self._last = now
        received = signal.Signals(number)
        if not self._deferring:
            self._raised = self._stopped(received, "", unsaved=False)
            raise self._raised
        if self.received is not None:
            raise self._stopped(received, "at once, without saving", unsaved=True)
        self.received = received
        _say(f"{received.name}: {self.next}; again to stop at once")

    def _stopped(self, received: signal.Signals, what: str, unsaved: bool) -> TrainingStopped:
        clean = received == signal.SIGTERM and not unsaved
        return TrainingStopped(received, what, self.advice, 0 if clean else 128 + received)


def present_interruption() -> Interruption | None:
    """The innermost one in whose block this is, if it handles a signal."""
    for number in SIGNALS:
        owner = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(owner, Interruption):
            return owner
    return None


def _say(line: str) -> None:
    """Write a line to stderr from a handler, which may have interrupted a write to sys.stderr."""
    start = "\n" if os.isatty(2) else ""  # a progress bar leaves its line open
    with contextlib.suppress(OSError):
        os.write(2, f"{start}{line}\n".encode())
