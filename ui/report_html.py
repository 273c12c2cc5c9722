"""A report as HTML: base against adapter, confusion, examples. Every foreign word is escaped."""

from collections.abc import Iterable
from html import escape

from hotlora.v1.evaluation_service_pb2 import (
    AdapterEvaluation,
    ConfusionTable,
    EvaluationReport,
    ReportExample,
    ReportFigure,
)

NO_REPORTS = '<p class="empty">No reports yet. Each adapter that becomes active gets one.</p>'

_KINDS = {
    ReportExample.KIND_WIN: ("win", "Better"),
    ReportExample.KIND_LOSS: ("loss", "Worse"),
    ReportExample.KIND_REGRESSION: ("regression", "Regression"),
}
_STATES = {
    AdapterEvaluation.STATE_QUEUED: "queued",
    AdapterEvaluation.STATE_RUNNING: "running",
    AdapterEvaluation.STATE_SUCCEEDED: "finished",
    AdapterEvaluation.STATE_FAILED: "failed",
}


def title(evaluation: AdapterEvaluation) -> str:
    """What a picker calls it."""
    number = evaluation.name.removeprefix("evaluations/")
    return f"{number} · {_STATES.get(evaluation.state, 'unknown')}"


def report_html(evaluation: AdapterEvaluation) -> str:
    """The whole report, or how far it is."""
    if evaluation.state == AdapterEvaluation.STATE_FAILED:
        return f'<p class="empty">{escape(evaluation.failure.message)}</p>'
    if not evaluation.HasField("report"):
        done, total = evaluation.done_answers, evaluation.total_answers
        progress = f"{done} of {total} answers" if total else "waiting for its turn"
        return f'<p class="empty">Base and adapter are being compared: {progress}.</p>'
    report = evaluation.report
    parts = [f'<p class="summary">{escape(report.summary)}</p>']
    for constrained, heading in ((False, "Answered freely"), (True, "Only labels allowed")):
        figures = [figure for figure in report.figures if figure.constrained == constrained]
        if figures:
            parts.append(f"<h4>{heading}</h4>{_figures(figures)}")
        tables = [table for table in report.confusion_tables if table.constrained == constrained]
        if tables:
            parts.append(f'<div class="tables">{"".join(map(_confusion, tables))}</div>')
    return f'<div class="report">{"".join(parts)}{_skill(report)}{_examples(report)}</div>'


def _figures(figures: Iterable[ReportFigure]) -> str:
    rows = "".join(
        f"<tr><th>{escape(figure.name.replace('_', ' '))}</th><td>{figure.base:.3f}</td>"
        f'<td class="{_direction(figure)}">{figure.adapter:.3f}</td></tr>'
        for figure in figures
    )
    return f'<table class="figures-table"><tr><th></th><th>base</th><th>adapter</th></tr>{rows}</table>'


def _direction(figure: ReportFigure) -> str:
    if figure.adapter == figure.base:
        return "same"
    return "better" if (figure.adapter > figure.base) == figure.higher_is_better else "worse"


def _confusion(table: ConfusionTable) -> str:
    who = "adapter" if table.adapter else "base"
    heads = "".join(f"<th>{escape(label)}</th>" for label in (*table.labels, "no label"))
    rows = "".join(
        f"<tr><th>{escape(label)}</th>{_cells(counts.counts, right)}</tr>"
        for right, (label, counts) in enumerate(zip(table.labels, table.rows, strict=True))
    )
    return f'<table class="confusion"><caption>{who}</caption><tr><th></th>{heads}</tr>{rows}</table>'


def _cells(counts: Iterable[int], right: int) -> str:
    return "".join(
        f'<td class="{"right" if column == right else "wrong"}">{number}</td>' if number else "<td>·</td>"
        for column, number in enumerate(counts)
    )


def _skill(report: EvaluationReport) -> str:
    skill = report.general_skill
    return (
        f'<p class="muted">General skill: base {skill.base_right}, adapter {skill.adapter_right} of '
        f"{skill.items} right, {skill.forgotten} forgotten. Rows: {report.wins} better, "
        f"{report.losses} worse, {report.ties} equal; {report.seen_rows} left out as seen in training.</p>"
    )


def _examples(report: EvaluationReport) -> str:
    if not report.examples:
        return ""
    rows = "".join(
        f'<tr><td class="{_KINDS[one.kind][0]}">{_KINDS[one.kind][1]}</td>'
        + "".join(
            f"<td>{escape(text)}</td>"
            for text in (one.prompt, one.expected, one.base_answer, one.adapter_answer)
        )
        + "</tr>"
        for one in report.examples
    )
    heads = "<tr><th></th><th>asked</th><th>right</th><th>base</th><th>adapter</th></tr>"
    return f'<h4>Examples</h4><table class="examples">{heads}{rows}</table>'
