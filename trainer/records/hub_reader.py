"""The child process that reads one split of a dataset repository: `python -m trainer.records.hub_reader
REPOSITORY CONFIG SPLIT ROWS [COLUMN ...]`.

REPOSITORY is OWNER/NAME: below the working directory, or else on the Hugging Face hub. An empty CONFIG means
the default one, 0 ROWS all, no COLUMN all of them. Writes JSON Lines. A refusal ends it with one of the
statuses below and, as the last line on stderr, a JSON object of `field` and `reason`; anything else that goes
wrong ends it in whatever way it does. Bounds its own memory and time first. Only data files of the repository
itself are read: no code, no pickles, nothing that the repository points to elsewhere.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from trainer.records.confinement import confine
from trainer.records.parquet_reader import present

REFUSED_STATUS = 3
NOT_FOUND_STATUS = 4
UNREACHABLE_STATUS = 5

_MEMORY_BYTES = 8 << 30
"""Address space, most of which libraries only reserve."""
_CPU_SECONDS = 900
_READERS = ("arrow", "csv", "json", "parquet", "text")
"""Of the library's readers those that make texts of files and need nothing else."""
_SHOWN_NAMES = 20

_Result = TypeVar("_Result")


class _RefusedError(Exception):
    """What was asked for cannot be read."""

    def __init__(self, status: int, field: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.field = field


def main(arguments: Sequence[str]) -> int:
    """Read what the arguments name; returns the exit status."""
    repository, config, split, rows, *columns = arguments
    confine(memory_bytes=_MEMORY_BYTES, cpu_seconds=_CPU_SECONDS)
    # Looked for by the library, though nothing here needs it, and slow to load.
    os.environ.update(USE_TORCH="0", USE_TF="0", USE_JAX="0", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    try:
        found = _rows(repository, config, split)
        _reached(lambda: _write(islice(found, int(rows) or None), columns))
    except _RefusedError as refusal:
        print("\n" + json.dumps({"field": refusal.field, "reason": str(refusal)}), file=sys.stderr)
        return refusal.status
    return 0


def _rows(repository: str, config: str, split: str) -> Iterable[Mapping[str, object]]:
    """The rows of a split. Raises _RefusedError."""
    import datasets  # noqa: PLC0415 - the bounds come first

    names = _reached(lambda: datasets.get_dataset_config_names(repository))
    default = _reached(lambda: datasets.get_dataset_default_config_name(repository))
    if not config and default is None:
        raise _RefusedError(REFUSED_STATUS, "hub.config", f"must be one of {_listed(names)}")
    if config and config not in names:
        raise _RefusedError(
            NOT_FOUND_STATUS, "hub.config", f"{repository} has no {config!r}, it has {_listed(names)}"
        )
    builder = _reached(lambda: datasets.load_dataset_builder(repository, config or default))
    files = builder.config.data_files or {}
    _check_source(repository, type(builder).__module__, [path for paths in files.values() for path in paths])
    if split not in files:
        splits = _listed(str(name) for name in files)
        raise _RefusedError(NOT_FOUND_STATUS, "hub.split", f"{repository} has no {split!r}, it has {splits}")
    rows: Iterable[Mapping[str, object]] = _reached(
        lambda: builder.as_streaming_dataset(split=split).decode(False)
    )
    return rows


def _check_source(repository: str, module: str, paths: Iterable[str]) -> None:
    """Refuse readers that are more than readers of texts, and files elsewhere, as local ones would be."""
    reader = module.rpartition(".")[2]
    if not module.startswith("datasets.packaged_modules.") or reader not in _READERS:
        reason = f"{repository} holds {reader}; rows are read from {_listed(_READERS)} files"
        raise _RefusedError(REFUSED_STATUS, "hub.repository", reason)
    own = Path(repository).resolve()
    for path in paths:
        is_own = Path(path).resolve().is_relative_to(own) if own.is_dir() else path.startswith("hf://")
        if not is_own:
            reason = f"{repository} names data files that are not its own"
            raise _RefusedError(REFUSED_STATUS, "hub.repository", reason)


def _write(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    for row in rows:
        chosen = {name: row[name] for name in columns if name in row} if columns else row
        sys.stdout.buffer.write(json.dumps(present(dict(chosen)), default=str).encode() + b"\n")
    sys.stdout.buffer.flush()


def _reached(step: Callable[[], _Result]) -> _Result:
    """The step's result; what the library raises, by its kind, as _RefusedError."""
    from datasets.data_files import EmptyDatasetError  # noqa: PLC0415 - the bounds come first
    from datasets.exceptions import (  # noqa: PLC0415 - the bounds come first
        DataFilesNotFoundError,
        DatasetNotFoundError,
        DatasetsError,
    )

    try:
        return step()
    except DatasetNotFoundError as error:
        reason = "no such dataset is on the hub, or it needs a token (HF_TOKEN) that the service has not"
        raise _RefusedError(NOT_FOUND_STATUS, "hub.repository", reason) from error
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        reason = f"has no data files; rows are read from {_listed(_READERS)} files"
        raise _RefusedError(REFUSED_STATUS, "hub.repository", reason) from error
    except BrokenPipeError:
        raise
    except (DatasetsError, ValueError, RuntimeError) as error:
        reason = f"its files cannot be read as rows ({type(error).__name__})"
        raise _RefusedError(REFUSED_STATUS, "hub.repository", reason) from error
    except OSError as error:
        raise _RefusedError(UNREACHABLE_STATUS, "hub.repository", type(error).__name__) from error


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    return ", ".join(known[:_SHOWN_NAMES]) + (", ..." if len(known) > _SHOWN_NAMES else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
