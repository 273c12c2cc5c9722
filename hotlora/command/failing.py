"""How the command ends when something went wrong: a plain sentence, what is wrong line by line, an exit code.

Standard library and typer only; it is loaded for `--help` too.
"""

import json
import sys
from enum import IntEnum
from typing import Any, Final

import typer
from typer.core import TyperGroup

from hotlora import errors

AS_JSON: Final = "hotlora.as_json"
"""Key in the context's meta: whether --json was given."""


class ExitCode(IntEnum):
    """What the process ends with."""

    OK = 0
    FAILED = 1
    """It was tried and did not work out: a job FAILED or was CANCELLED, or the service has a fault."""
    BAD_ARGUMENT = 2
    """An option, a name or a file is not acceptable."""
    NOT_FOUND = 3
    UNAVAILABLE = 4
    """Nobody answers, or not in time; trying later may help."""
    CONFLICT = 5
    """It exists already, is in the wrong state, or somebody else was faster."""
    EXHAUSTED = 6
    """Too large, too many, full."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""


CODES_HELP: Final = (
    "Exit codes: 0 done, 1 failed, 2 bad argument or file, 3 not found, 4 nobody answers, "
    "5 exists already or wrong state, 6 too large or full, 130 interrupted."
)

_CODES: Final[dict[type[errors.HotloraError], ExitCode]] = {
    errors.InvalidArgument: ExitCode.BAD_ARGUMENT,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.AlreadyExists: ExitCode.CONFLICT,
    errors.FailedPrecondition: ExitCode.CONFLICT,
    errors.Aborted: ExitCode.CONFLICT,
    errors.ResourceExhausted: ExitCode.EXHAUSTED,
    errors.Unavailable: ExitCode.UNAVAILABLE,
    errors.DeadlineExceeded: ExitCode.UNAVAILABLE,
    errors.DataLoss: ExitCode.FAILED,
    errors.Internal: ExitCode.FAILED,
    errors.Cancelled: ExitCode.FAILED,
}


class Group(TyperGroup):
    """Commands in which every expected error ends as a sentence and an exit code, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except errors.HotloraError as error:
            report(error, as_json=bool(ctx.meta.get(AS_JSON)))
            raise typer.Exit(code_of(error)) from None
        except OSError as error:
            if error.filename is None:
                raise
            print(f"hotlora: {error.filename}: {error.strerror}.", file=sys.stderr)
            raise typer.Exit(ExitCode.BAD_ARGUMENT) from None
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def code_of(error: errors.HotloraError) -> ExitCode:
    """The exit code for an error."""
    return _CODES.get(type(error), ExitCode.FAILED)


def report(error: errors.HotloraError, *, as_json: bool) -> None:
    """Writes the error to stderr: sentences for a person, or one JSON document."""
    if as_json:
        print(json.dumps({"error": as_dict(error)}), file=sys.stderr)
        return
    print(f"hotlora: {error.message}", file=sys.stderr)
    for violation in error.violations:
        print(f"  {violation.field}: {violation.description}", file=sys.stderr)
    if error.retry_delay_seconds is not None:
        print(f"  Try again in {error.retry_delay_seconds:.0f} s.", file=sys.stderr)


def as_dict(error: errors.HotloraError) -> dict[str, object]:
    """The error for a program."""
    return {
        "code": type(error).__name__,
        "reason": error.reason,
        "message": error.message,
        "violations": [{"field": one.field, "description": one.description} for one in error.violations],
        "retryDelaySeconds": error.retry_delay_seconds,
        "errorId": error.error_id,
    }
