"""What the command's exit status says. Scripts rely on the numbers: they stay as they are."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The ends of the command."""

    OK = 0
    #: A task ended without a result, or a part of the local stack didn't start.
    FAILED = 1
    #: The command line is wrong; typer's own number.
    USAGE = 2
    UNREACHABLE = 3
    #: The gateway said no, or what answered is no gateway.
    REFUSED = 4
    TIMED_OUT = 5
    #: As shells count: 128 and the number of SIGINT.
    INTERRUPTED = 130
