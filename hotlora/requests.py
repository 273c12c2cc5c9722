"""Builds the requests that take more than a name, for both clients."""

from collections.abc import Sequence

from hotlora import errors
from hotlora.calls import UPLOAD_LIMIT_BYTES
from hotlora.v1.chat_service_pb2 import ChatRequest
from hotlora.v1.dataset_service_pb2 import (
    HubSplit,
    ImportDatasetRequest,
    UploadDatasetRequest,
    UploadHeader,
)
from hotlora.v1.resources_pb2 import Message


def chat_request(
    *,
    model: str,
    messages: Sequence[Message],
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    seed: int | None,
    stop: Sequence[str],
    sticky_key: str,
) -> ChatRequest:
    """A chat request in which None leaves the service's default."""
    return ChatRequest(
        model=model,
        messages=messages,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=stop,
        sticky_key=sticky_key,
    )


def upload_header(
    *, dataset_id: str, display_name: str, size_bytes: int, wishes: UploadHeader | None
) -> UploadDatasetRequest:
    """The first message of an upload: `wishes` with id and name filled in.

    Raises ResourceExhausted when the file is above the API's bound.
    """
    if size_bytes > UPLOAD_LIMIT_BYTES:
        raise errors.ResourceExhausted(
            f"The file has {size_bytes:,} bytes; a dataset may have {UPLOAD_LIMIT_BYTES:,} at most.",
            reason="FILE_TOO_LARGE",
        )
    header = _header(dataset_id, display_name, wishes)
    header.size_bytes = size_bytes
    return UploadDatasetRequest(header=header)


def import_request(
    *, source: str | HubSplit, dataset_id: str, display_name: str, wishes: UploadHeader | None
) -> ImportDatasetRequest:
    """An import of a path on the service's machine, or of a split of the hub."""
    header = _header(dataset_id, display_name, wishes)
    if isinstance(source, str):
        return ImportDatasetRequest(header=header, local_path=source)
    return ImportDatasetRequest(header=header, hub=source)


def _header(dataset_id: str, display_name: str, wishes: UploadHeader | None) -> UploadHeader:
    header = UploadHeader(dataset_id=dataset_id, display_name=display_name)
    if wishes is not None:
        header.MergeFrom(wishes)
    return header


def user(content: str) -> Message:
    """A turn of the user."""
    return Message(role="user", content=content)


def system(content: str) -> Message:
    """A system message; only as the first of a conversation."""
    return Message(role="system", content=content)


def assistant(content: str) -> Message:
    """A turn of the model."""
    return Message(role="assistant", content=content)
