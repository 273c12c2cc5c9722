"""What is wished of a file of training rows and what was found in it, as messages, and looking offline.

The one part of this package that stands on `trainer`, for the service and for `hotlora data check`; nothing
else here may import it. It needs what the service needs (tokenizers, jinja2), never torch.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hotlora.v1 import dataset_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from trainer.base_model import context_of
from trainer.config import Task
from trainer.inspection import BadRows, Draft, PreviewRow, Repeat, Report, Wish
from trainer.records import Format, Kind, Limits, Reading
from trainer.rendering import Renderer, Segment

_READ_BYTES = 64 * 1024
_MAX_PROBLEMS = 20

_TASKS: Mapping[int, Task | None] = {
    resources_pb.TASK_UNSPECIFIED: None,
    resources_pb.TASK_CLASSIFICATION: Task.CLASSIFICATION,
    resources_pb.TASK_ENTITIES: Task.ENTITIES,
    resources_pb.TASK_QUESTION_ANSWERING: Task.QUESTION_ANSWERING,
    resources_pb.TASK_GENERATION: Task.GENERATION,
    resources_pb.TASK_INSTRUCTION: Task.INSTRUCTION,
}
_FORMATS: Mapping[int, Format | None] = {
    pb.FORMAT_UNSPECIFIED: None,
    pb.FORMAT_CHAT: Format.CHAT,
    pb.FORMAT_PROMPT_COMPLETION: Format.PROMPT_COMPLETION,
    pb.FORMAT_ALPACA: Format.ALPACA,
    pb.FORMAT_SHAREGPT: Format.SHAREGPT,
    pb.FORMAT_TEXT: Format.TEXT,
    pb.FORMAT_PREFERENCES: Format.PREFERENCES,
}
_BAD_ROWS: Mapping[int, BadRows] = {
    pb.BAD_ROWS_UNSPECIFIED: BadRows.REFUSE,
    pb.BAD_ROWS_REFUSE: BadRows.REFUSE,
    pb.BAD_ROWS_DROP: BadRows.DROP,
}
KINDS = {
    Kind.CONVERSATIONS: pb.Dataset.KIND_CONVERSATIONS,
    Kind.TEXT: pb.Dataset.KIND_TEXT,
    Kind.PREFERENCES: pb.Dataset.KIND_PREFERENCES,
}
"""What the rows of a file are, on the wire."""


def check(path: Path, header: pb.UploadHeader, base_model: Path | None, *, engine_length: int) -> pb.Dataset:
    """What an upload of this file would find. Without a base model's directory no tokens are counted.

    `engine_length` is what the engine serves, in tokens, whatever the base model was made for.
    Raises OSError, and RenderingError for a directory that is no base model.
    """
    renderer = Renderer.from_directory(base_model) if base_model is not None else None
    wish = wish_of(header)
    with tempfile.TemporaryDirectory() as folder, path.open("rb") as file:
        draft = Draft(
            path=Path(folder) / "rows.part",
            renderer=renderer,
            context_length=min(_context_length(base_model), engine_length),
            wish=Wish(reading=wish.reading, bad_rows=BadRows.DROP, task=wish.task),
            limits=Limits(max_problems=_MAX_PROBLEMS),
        )
        try:
            while not draft.stopped and (piece := file.read(_READ_BYTES)):
                draft.receive(piece)
            draft.finish()
            while not draft.work(seconds=1):
                pass
            return looked_at_message(header, draft.report(), draft.kind, draft.preview)
        finally:
            draft.discard()


def wish_of(header: pb.UploadHeader) -> Wish:
    """What an uploader asks of a file."""
    return Wish(
        reading=Reading(format=_FORMATS[header.format], mapping=dict(header.mapping)),
        bad_rows=_BAD_ROWS[header.bad_rows],
        task=_TASKS[header.task],
    )


def looked_at_message(
    header: pb.UploadHeader,
    report: Report,
    kind: Kind | None,
    preview: Sequence[PreviewRow],
    *,
    base_model: str = "",
) -> pb.Dataset:
    """A file that was only looked at, by a service's `base_model`."""
    message = report_message(report)
    message.preview.extend(map(preview_row_message, preview))
    return pb.Dataset(
        display_name=header.display_name,
        rows=report.rows_kept,
        tokens=report.tokens,
        longest_row_tokens=report.longest_row_tokens,
        kind=KINDS[kind] if kind is not None else pb.Dataset.KIND_UNSPECIFIED,
        task=header.task,
        report=message,
        labels=sorted(report.labels),
        base_model=base_model,
    )


def report_message(report: Report) -> pb.DatasetReport:
    """What was found in a file."""
    return pb.DatasetReport(
        rows_kept=report.rows_kept,
        rows_dropped=report.rows_dropped,
        rows_cut=report.rows_cut,
        problems=[
            pb.RowProblem(place=problem.place, reason=problem.reason, advice=problem.advice)
            for problem in report.problems
        ],
        reasons=[pb.ReasonCount(reason=reason, rows=rows) for reason, rows in report.reasons.items()],
        duplicates=report.duplicates,
        duplicate_rows=map(_repeat_message, report.duplicate_rows),
        leaks=report.leaks,
        leaked_rows=map(_repeat_message, report.leaked_rows),
        tokens=report.tokens,
        trained_tokens=report.trained_tokens,
        token_percentiles=[
            pb.TokenPercentile(percent=percent, tokens=tokens)
            for percent, tokens in report.token_percentiles.items()
        ],
        longest_row_tokens=report.longest_row_tokens,
        longest_row_line=report.longest_row_line,
        labels=[pb.LabelCount(label=label, rows=rows) for label, rows in report.labels.items()],
    )


def _repeat_message(repeat: Repeat) -> pb.RepeatedRow:
    return pb.RepeatedRow(line=repeat.line, first_line=repeat.first_line)


def preview_row_message(row: PreviewRow) -> pb.PreviewRow:
    """A row as the base model will see it."""
    return pb.PreviewRow(
        line=row.line,
        messages=[resources_pb.Message(role=turn.role, content=turn.content) for turn in row.messages],
        segments=map(_segment_message, row.segments),
        rejected_segments=map(_segment_message, row.rejected_segments),
        tokens=row.tokens,
        trained_tokens=row.trained_tokens,
    )


def _segment_message(segment: Segment) -> pb.RenderedSegment:
    return pb.RenderedSegment(text=segment.text, trained=segment.trained)


def _context_length(base_model: Path | None) -> int:
    try:
        config = json.loads((base_model / "config.json").read_bytes()) if base_model is not None else {}
    except (OSError, ValueError):
        config = {}
    return context_of(config)
