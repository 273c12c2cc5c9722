"""The child process that reads one Parquet file: `python -m trainer.records.parquet_reader FD ROWS BYTES KEYS
[COLUMN ...]`.

Writes JSON Lines. Ends with 3 and a reason on stderr when the file is beyond the bounds; anything else that
goes wrong ends it in whatever way it does. Bounds its own memory and time before it touches the file.
"""

import json
import os
import sys
from collections.abc import Sequence

from trainer.records.confinement import confine

_MEMORY_BYTES = 6 << 30
"""Address space, most of which libraries only reserve."""
_CPU_SECONDS = 600
_BATCH_ROWS = 16
_MAX_BATCH_BYTES = 128 << 20
_MAX_GROUP_BYTES = 512 << 20
"""Uncompressed, of one row group."""
_THRIFT_STRING_BYTES = 16 << 20
_THRIFT_ITEMS = 1_000_000


class _RefusedError(Exception):
    """The file is beyond the bounds; the text says which."""


def main(arguments: Sequence[str]) -> int:
    """Read the file of the given descriptor; returns the exit status."""
    descriptor, max_rows, max_bytes, max_keys = map(int, arguments[:4])
    confine(memory_bytes=_MEMORY_BYTES, cpu_seconds=_CPU_SECONDS)
    try:
        _write_rows(descriptor, max_rows, max_bytes, max_keys, arguments[4:])
    except _RefusedError as refusal:
        print(refusal, file=sys.stderr)
        return 3
    return 0


def _write_rows(
    descriptor: int, max_rows: int, max_bytes: int, max_keys: int, columns: Sequence[str]
) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import pyarrow as pa  # noqa: PLC0415 - the bounds come first
    import pyarrow.parquet as pq  # noqa: PLC0415

    pa.set_cpu_count(1)
    with os.fdopen(descriptor, "rb") as file:
        parquet = pq.ParquetFile(
            file,
            thrift_string_size_limit=_THRIFT_STRING_BYTES,
            thrift_container_size_limit=_THRIFT_ITEMS,
            pre_buffer=False,
        )
        _check(parquet.metadata, max_rows, max_bytes, max_keys)
        names = [field.name for field in parquet.schema_arrow]
        missing = [column for column in columns if column not in names]
        if missing:
            found = ", ".join(json.dumps(name[:40]) for name in names[:5])
            raise _RefusedError(f"the file has no column {json.dumps(missing[0])} (found: {found})")
        written = 0
        for batch in parquet.iter_batches(
            batch_size=_BATCH_ROWS, columns=list(columns) or None, use_threads=False
        ):
            if batch.nbytes > _MAX_BATCH_BYTES:
                raise _RefusedError(f"{_BATCH_ROWS} rows unpack to more than {_MAX_BATCH_BYTES:,} bytes")
            for row in batch.to_pylist():
                line = json.dumps(present(row), default=str).encode() + b"\n"
                written += len(line)
                if written > max_bytes:
                    raise _RefusedError(f"the file unpacks to more than {max_bytes:,} bytes")
                sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _check(metadata: object, max_rows: int, max_bytes: int, max_keys: int) -> None:
    """Raise _RefusedError where the file says itself that it is beyond the bounds."""
    from pyarrow.parquet import FileMetaData  # noqa: PLC0415

    assert isinstance(metadata, FileMetaData)
    if metadata.num_rows > max_rows:
        raise _RefusedError(f"the file has more than {max_rows:,} rows")
    if metadata.num_columns > max_keys:
        raise _RefusedError(f"the file has more than {max_keys} columns")
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size for group in groups), default=0)
    if largest > _MAX_GROUP_BYTES:
        raise _RefusedError(f"a row group unpacks to {largest:,} bytes; {_MAX_GROUP_BYTES:,} are accepted")
    total = sum(group.total_byte_size for group in groups)
    if total > max_bytes:
        raise _RefusedError(f"the file unpacks to {total:,} bytes; {max_bytes:,} are accepted")


def present(value: object) -> object:
    """A value without the keys that hold nothing: Parquet knows no absent ones."""
    if isinstance(value, dict):
        return {key: present(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [present(item) for item in value]
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
