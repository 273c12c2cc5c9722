"""Words for the person at the page: what fields are called, and errors in sentences."""

import re

from hotlora.errors import FieldViolation, HotloraError, InvalidArgument, Unavailable

_PATH = re.compile(r"[a-z_]+(\.[a-z_]+|\[[^\]]*\])*")
"""Of a field of a request. Places in a file ("line 2") are none."""
_NESTED = re.compile(r"\b(?:hyperparameters|header)\.[a-z_]+")
_AS_WRITTEN = {"dpo": "DPO", "rslora": "rsLoRA"}


def label(path: str) -> str:
    """What the page calls the field of a request: "hyperparameters.max_steps" is "Max steps"."""
    name = re.sub(r"\[[^\]]*\]", "", path).rpartition(".")[2]
    words = [_AS_WRITTEN.get(word, word) for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def refusal(field: str, description: str) -> InvalidArgument:
    """What the page itself refuses, as the service would say it; `field` is a path or a label."""
    violation = FieldViolation(field=field, description=description)
    return InvalidArgument(f"{label(field)}: {description}", violations=(violation,))


def about(field: str, description: str) -> str:
    """What is said of a field of a request, with fields called as the page calls them."""
    name = label(field) if _PATH.fullmatch(field) else field
    return f"{name}: {_NESTED.sub(lambda found: label(found[0]), description)}"


def plain(error: HotloraError) -> str:
    """One or a few sentences: what is wrong and what to do. Never a trace, never a code."""
    if isinstance(error, InvalidArgument) and error.violations:
        return "; ".join(about(one.field, one.description) for one in error.violations)
    if isinstance(error, Unavailable):
        return f"{error.message.removesuffix('.')}. Try again in a moment."
    return error.message
