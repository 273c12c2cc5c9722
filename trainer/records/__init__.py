"""Training rows out of files that strangers wrote: our own bounds come before any library.

`RecordParser` checks a file while it arrives; `iter_file`, `iter_records` and `read_file` check one that is
there.
Standard library only, but for Parquet, which a process of its own reads. Memory is bounded by one row,
whatever the file. It knows nothing of templates or tokens, and it never repairs a row: a row is accepted as
it stands, or refused with line, reason and advice.
"""

from trainer.records.parser import RecordParser, RecordsError, iter_file, iter_records, read_file
from trainer.records.rows import (
    DEFAULT_LIMITS,
    KEPT_LIMITS,
    AnyRecord,
    Format,
    Kind,
    Limits,
    LineProblem,
    PreferenceRecord,
    Reading,
    Record,
    TextRecord,
    Turn,
    kind_of,
)
from trainer.records.shapes import MAPPABLE, canonical_line

__all__ = [
    "DEFAULT_LIMITS",
    "KEPT_LIMITS",
    "MAPPABLE",
    "AnyRecord",
    "Format",
    "Kind",
    "Limits",
    "LineProblem",
    "PreferenceRecord",
    "Reading",
    "Record",
    "RecordParser",
    "RecordsError",
    "TextRecord",
    "Turn",
    "canonical_line",
    "iter_file",
    "iter_records",
    "kind_of",
    "read_file",
]
