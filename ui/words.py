"""Errors in words for the person at the page."""

from hotlora.errors import HotloraError, InvalidArgument, Unavailable


def plain(error: HotloraError) -> str:
    """One or a few sentences: what is wrong and what to do. Never a trace, never a code."""
    if isinstance(error, InvalidArgument) and error.violations:
        return "; ".join(f"{violation.field}: {violation.description}" for violation in error.violations)
    if isinstance(error, Unavailable):
        return f"{error.message} Try again in a moment."
    return error.message
