"""The `hotlora` command. What a command needs is loaded only when it runs, so that help answers at once."""

import sys

from hotlora.command.app import app
from hotlora.command.failing import ExitCode


def main() -> None:
    """Runs the command line; the process ends with one of `hotlora.command.ExitCode`."""
    for number, argument in enumerate(sys.argv[1:], start=1):
        if any("\ud800" <= character <= "\udfff" for character in argument):
            print(f"hotlora: argument {number} is not UTF-8 text.", file=sys.stderr)
            sys.exit(ExitCode.BAD_ARGUMENT)
    app()
