"""Numbers that may be left out: fields of text, because an empty number field turns into 0 by itself."""


class NotANumberError(ValueError):
    """What was typed is no number; the message names the field and what would be accepted."""


def whole(text: str, field: str) -> int | None:
    """A whole number, None for an empty field. Raises NotANumberError."""
    try:
        return int(text) if text.strip() else None
    except ValueError:
        raise NotANumberError(f"{field}: {text[:40]!r} is not a whole number, for example 8.") from None


def decimal(text: str, field: str) -> float | None:
    """A decimal number, None for an empty field. Raises NotANumberError."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise NotANumberError(f"{field}: {text[:40]!r} is not a number, for example 2e-4.") from None
