"""The labels of a classification set: short answers that are always written in the same way."""

from trainer.records import Record
from trainer.records.rows import RowError, quoted

MAX_LABELS = 1000
MAX_LABEL_CHARACTERS = 200


class Labels:
    """The labels seen so far."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int]] = {}  # by its letters alone: as first written, and where

    def check(self, record: Record) -> None:
        """Raise RowError where what the row's last answer says cannot be a label beside the others."""
        label = record.messages[-1].content
        if len(label) > MAX_LABEL_CHARACTERS or "\n" in label.strip():
            raise RowError(
                f"the answer is no label: it has {len(label)} characters or several lines",
                f"A label is one line of up to {MAX_LABEL_CHARACTERS} characters; "
                "for longer answers name another task.",
            )
        written, line = self._seen.setdefault(" ".join(label.split()).casefold(), (label, record.line))
        if written != label:
            raise RowError(
                f"the label {quoted(label)} is written {quoted(written)} in line {line}",
                "Write each label the same way everywhere: case and spaces count.",
            )
        if len(self._seen) > MAX_LABELS:
            raise RowError(
                f"the file has more than {MAX_LABELS:,} labels",
                "Such answers are no labels; name another task, or none.",
            )
