"""`data check`: looks at a file of training rows where no service is, by the service's own code."""

import os
from pathlib import Path

import typer

from hotlora import errors
from hotlora.command import output, report_display
from hotlora.command.failing import ExitCode
from hotlora.v1.dataset_service_pb2 import UploadHeader

_DEFAULT_BASE = "smollm2-135m-instruct"
_ENGINE_LENGTH = "HOTLORA_ENGINE_MAX_MODEL_LEN"
_DEFAULT_ENGINE_LENGTH = 2048
_LEAST_ENGINE_LENGTH = 16


def check(path: Path, *, wishes: UploadHeader, base_model: Path | None, as_json: bool) -> ExitCode:
    """Prints the report of a file; OK when every row of it would be taken."""
    try:
        from hotlora import inspection  # noqa: PLC0415 - it needs more than the rest of the command
    except ImportError as error:
        raise typer.BadParameter(f"this needs `pip install hotlora[service]`: {error}") from error

    directory = base_model or _default_base()
    dataset = inspection.check(path, wishes, directory, engine_length=_engine_length())
    if as_json:
        output.print_json(dataset)
    else:
        report_display.show(dataset)
        if directory is None:
            output.console().print("Tokens were not counted: name a base model's directory by --base-model.")
    return ExitCode.BAD_ARGUMENT if dataset.report.problems else ExitCode.OK


def _engine_length() -> int:
    """The context that a service with this environment serves, in tokens. Raises InvalidArgument where such a
    service would not start."""
    given = os.environ.get(_ENGINE_LENGTH)
    if given is None:
        return _DEFAULT_ENGINE_LENGTH
    try:
        length = int(given)
    except ValueError:
        length = 0
    if length < _LEAST_ENGINE_LENGTH:
        raise errors.InvalidArgument(
            f"{_ENGINE_LENGTH} is {given[:60]!r}; it must be a whole number of tokens, "
            f"{_LEAST_ENGINE_LENGTH} or more.",
            reason="BAD_SETTING",
        )
    return length


def _default_base() -> Path | None:
    """The default base model, where it lies prepared."""
    home = Path(os.environ.get("HOTLORA_HOME", ".hotlora"))
    folder = Path(os.environ.get("HOTLORA_MODELS_DIR", home / "models"))
    directory = folder / os.environ.get("HOTLORA_BASE_MODEL", _DEFAULT_BASE)
    return directory if (directory / "tokenizer.json").is_file() else None
