"""Commands that have subcommands: `pyseq COMMAND SUBCOMMAND [flags]`."""

from pyseq.errors import UserError


def chosen(command: str, known: dict[str, str], arguments: list[str]) -> tuple[str, list[str]]:
    """Which subcommand is asked for; where none is, or help, the known ones are printed.

    Args:
        command (str): such as "rules".
        known (dict name -> what it does): the subcommands.
        arguments (list of str): those after the command.

    Returns:
        tuple (str, list of str): the subcommand and what follows it.

    Raises:
        SystemExit: the help was shown: 0 where it was asked for, 2 where no subcommand was named.
        UserError: an unknown subcommand.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(command, known))
        raise SystemExit(0 if arguments else 2)
    if arguments[0] not in known:
        raise UserError(f"unknown subcommand {arguments[0]!r}; known: {', '.join(known)}")
    return arguments[0], arguments[1:]


def _help(command: str, known: dict[str, str]) -> str:
    width = max(map(len, known))
    lines = [f"  {name:<{width}}  {what}" for name, what in known.items()]
    usage = f"usage: pyseq {command} SUBCOMMAND [flags]"
    return "\n".join([usage, "", *lines, "", f"pyseq {command} SUBCOMMAND --help shows its flags."])
