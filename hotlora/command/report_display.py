"""Shows what was found in a file of training rows, and its rows with the trained parts marked."""

from collections.abc import Iterable

from rich.text import Text

from hotlora.command import output
from hotlora.v1.dataset_service_pb2 import (
    Dataset,
    DatasetReport,
    PreviewRow,
    RenderedSegment,
    RepeatedRow,
)

_SHOWN_LABELS = 20


def show(dataset: Dataset) -> None:
    """Prints the report of a dataset, where it has one."""
    if not dataset.HasField("report"):
        return
    report = dataset.report
    output.details(
        [
            ("rows kept", f"{report.rows_kept:,}"),
            ("rows dropped", f"{report.rows_dropped:,}" if report.rows_dropped else ""),
            ("rows cut", f"{report.rows_cut:,} texts are longer than the context" if report.rows_cut else ""),
            ("tokens", _tokens(report)),
            ("of a row", ", ".join(f"p{each.percent} {each.tokens:,}" for each in report.token_percentiles)),
            ("duplicates", _repeats(report.duplicates, report.duplicate_rows)),
            ("leaks", _repeats(report.leaks, report.leaked_rows, " by the default split")),
            ("labels", _labels(report)),
        ]
    )
    console = output.console()
    for problem in report.problems:
        words = f"{problem.place}: {problem.reason}. {problem.advice}"
        console.print(Text(output.plain(words), style="yellow"))
    if report.rows_dropped > len(report.problems):
        for reason in report.reasons:
            console.print(output.plain(f"{reason.rows:,} rows: {reason.reason}"))
    show_rows(report.preview)


def show_rows(rows: Iterable[PreviewRow]) -> None:
    """Prints rows as the base model will see them."""
    console = output.console()
    for row in rows:
        console.print(
            Text(f"line {row.line}: {row.tokens} tokens, {row.trained_tokens} of them trained", style="bold")
        )
        console.print(_marked(row.segments), end="\n\n")
        if row.rejected_segments:
            console.print(Text("and the answer that is not wanted:", style="bold"))
            console.print(_marked(row.rejected_segments), end="\n\n")


def _marked(segments: Iterable[RenderedSegment]) -> Text:
    # Marks for where colours do not reach: a pipe, a log.
    before, after = ("", "") if output.console().is_terminal else ("«", "»")
    text = Text()
    for segment in segments:
        content = output.plain(segment.text)
        if segment.trained:
            text.append(f"{before}{content}{after}", style="green")
        else:
            text.append(content, style="dim")
    return text


def _tokens(report: DatasetReport) -> str:
    if not report.tokens:
        return ""
    return (
        f"{report.tokens:,}, {report.trained_tokens:,} of them trained; the longest row "
        f"{report.longest_row_tokens:,} (line {report.longest_row_line})"
    )


def _repeats(count: int, rows: Iterable[RepeatedRow], how: str = "") -> str:
    shown = ", ".join(f"{row.line} as {row.first_line}" for row in rows)
    return f"{count:,}{how} (lines {shown}{', ...' if count > 20 else ''})" if count else ""


def _labels(report: DatasetReport) -> str:
    shown = ", ".join(f"{each.label} {each.rows:,}" for each in report.labels[:_SHOWN_LABELS])
    return shown + (", ..." if len(report.labels) > _SHOWN_LABELS else "")
