"""What was found in a file of examples, as HTML. Everything in it that others wrote is escaped."""

from html import escape

from hotlora.v1.dataset_service_pb2 import Dataset, PreviewRow

_SHOWN_PROBLEMS = 5
_SHOWN_LABELS = 20


def findings(dataset: Dataset) -> str:
    """Figures of a file, its first bad rows, and its first row with the trained parts marked."""
    report = dataset.report
    counted = [
        f"{report.rows_kept:,} rows",
        f"{report.tokens:,} tokens, {report.trained_tokens:,} trained",
        f"longest row {report.longest_row_tokens:,} tokens",
    ]
    for number, words in (
        (report.rows_dropped, "bad"),
        (report.rows_cut, "longer than the context"),
        (report.duplicates, "repeated"),
        (report.leaks, "set aside by the default split although trained on"),
        (len(report.labels), "labels"),
    ):
        if number:
            counted.append(f"{number:,} {words}")
    parts = [f"<p>{'; '.join(counted)}</p>"]
    if report.labels:
        balance = ", ".join(f"{each.label} {each.rows:,}" for each in report.labels[:_SHOWN_LABELS])
        more = ", ..." if len(report.labels) > _SHOWN_LABELS else ""
        parts.append(f"<p>Rows by label: {escape(balance)}{more}</p>")
    if report.problems:
        told = "".join(
            f"<li>{escape(f'{each.place}: {each.reason}. {each.advice}')}</li>"
            for each in report.problems[:_SHOWN_PROBLEMS]
        )
        parts.append(f"<ul>{told}</ul>")
    parts.extend(_row(row) for row in report.preview[:1])
    return "".join(parts)


def _row(row: PreviewRow) -> str:
    text = "".join(
        f"<mark>{escape(segment.text)}</mark>" if segment.trained else escape(segment.text)
        for segment in row.segments
    )
    return f'<pre style="white-space: pre-wrap; max-height: 12em; overflow: auto">{text}</pre>'
