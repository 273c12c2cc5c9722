"""The messages of an adapter's import, read as they are sent."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from hotlora import calls
from hotlora.v1.adapter_service_pb2 import FileHeader, ImportAdapterVersionRequest, ImportHeader

FILES: Final = ("adapter_config.json", "adapter_model.safetensors")


@contextlib.contextmanager
def departure(
    source: Path | str, adapter_id: str, base_model: str
) -> Iterator[Iterator[ImportAdapterVersionRequest]]:
    """What to send of a directory here (a Path), or of one on the service's machine (a text). Raises OSError
    where a file cannot be opened, before anything is sent."""
    header = ImportHeader(adapter_id=adapter_id, base_model=base_model)
    with contextlib.ExitStack() as opened:
        files: list[tuple[str, BinaryIO]] = []
        if isinstance(source, str):
            header.local_path = source
        else:
            files = [(name, opened.enter_context((source / name).open("rb"))) for name in FILES]
        yield _messages(header, files)


def _messages(
    header: ImportHeader, files: list[tuple[str, BinaryIO]]
) -> Iterator[ImportAdapterVersionRequest]:
    yield ImportAdapterVersionRequest(header=header)
    for name, file in files:
        yield ImportAdapterVersionRequest(file=FileHeader(name=name))
        while chunk := file.read(calls.UPLOAD_CHUNK_BYTES):
            yield ImportAdapterVersionRequest(chunk=chunk)
