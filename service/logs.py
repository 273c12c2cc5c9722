"""What the service says, on standard error: one JSON object a line, its own lines and those of libraries
alike.

A line that belongs to a call carries the call's id as `request`, one about a job the job's as `job`, and one
about a version its exact name as `model`. Knows neither protocol.
"""

import logging
import re
import secrets
from contextlib import AbstractContextManager
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

REQUEST_ID: Final = "x-request-id"
"""Name of the header (HTTP) and of the metadata (gRPC) that carries a call's id in and out."""
_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""Ids of callers that are kept. Others could hold anything, and are replaced."""


def configure(stream: TextIO) -> None:
    """Once, before anything is said. Libraries are heard from warnings on."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    of_libraries = logging.StreamHandler(stream)
    of_libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[of_libraries])


def request_id(given: str | bytes | None) -> str:
    """The caller's own id where it is 1 to 64 letters, digits, dots, colons, dashes and underscores; else a
    new one."""
    if isinstance(given, str) and _ACCEPTED.fullmatch(given):
        return given
    return secrets.token_hex(12)


def of_request(request: str) -> AbstractContextManager[object]:
    """Whatever this task says meanwhile carries the call's id."""
    return structlog.contextvars.bound_contextvars(request=request)
