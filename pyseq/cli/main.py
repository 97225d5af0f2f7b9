"""`pyseq COMMAND`: finds the command's file, runs it, and turns errors into exit codes."""

import contextlib
import errno
import importlib
import sys
import traceback

from pyseq.errors import BackendUnavailable, UserError
from pyseq.training.interruption import Interruption, TrainingStopped

COMMANDS = {
    "data": "make a u16 stream from text, wav, npy, csv, or a generator",
    "train": "train a model and report on it",
    "supercharged": "train the supercharged model: train --model supercharged",
    "compare": "train both models on one budget and judge them",
    "analyze": "say whether a stream has structure, and how predictable it is",
    "evaluate": "score a trained model beside the baselines",
    "predict": "show the most likely next symbols",
    "generate": "continue a stream with a trained model",
    "rules": "train models on grammars, and see which rules they extrapolate",
    "fusion": "train classifiers over several views of an object, and ensembles of them",
    "bench": "time an op against its peers",
    "doctor": "show what this machine can run, and why not",
    "demo": "make a stream from real text, train two minutes, report",
}

# Commands that SIGTERM and Ctrl-C stop so that `--resume auto` can go on.
TRAINING = ("train", "supercharged", "compare", "demo", "analyze", "rules", "fusion")

# Where the machine, not pyseq, refuses to take what is written.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, 2 for the user's mistake, 1 for ours, 130 for Ctrl-C.

    A training that SIGTERM stops returns 0, as nothing of it is lost; where it is stopped at once
    by a second signal, 143.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from pyseq import __version__

        print(f"pyseq {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        print(f"pyseq: unknown command {command!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        with Interruption() if command in TRAINING else contextlib.nullcontext():
            return importlib.import_module(f"pyseq.cli.{command}").main(rest)
    except (UserError, BackendUnavailable) as error:
        print(f"pyseq {command}: {error}", file=sys.stderr)
        return 2
    except TrainingStopped as end:
        print(f"pyseq {command}: {end}", file=sys.stderr)
        return end.exit_code
    except KeyboardInterrupt:
        print(f"pyseq {command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has enough
        return 0
    except SystemExit as end:  # tyro, after showing help
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            where = error.filename or "the output"
            print(f"pyseq {command}: {where}: {error.strerror}", file=sys.stderr)
            return 2
        traceback.print_exc()
        print(f"pyseq {command}: this is a fault of pyseq, not yours", file=sys.stderr)
        return 1


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        ["usage: pyseq COMMAND [flags]", "", *lines, "", "pyseq COMMAND --help shows its flags."]
    )


if __name__ == "__main__":
    sys.exit(main())
