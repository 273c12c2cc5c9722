"""`evaluations`, `evaluate`: did a tuning help?"""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from hotlora.client import Client
from hotlora.command import names, output, training
from hotlora.command.calling import connected
from hotlora.command.failing import ExitCode
from hotlora.v1.evaluation_service_pb2 import (
    AdapterEvaluation,
    ConfusionTable,
    EvaluationReport,
    ListEvaluationsResponse,
    ReportExample,
    ReportFigure,
)

_TASKS = ("", "classification", "entities", "question answering", "generation", "instruction")
_KINDS = {
    ReportExample.KIND_WIN: ("WIN", "green"),
    ReportExample.KIND_LOSS: ("LOSS", "yellow"),
    ReportExample.KIND_REGRESSION: ("REGRESSION", "red"),
}
_SHOWN_CHARACTERS = 160
"""Of an example's texts: a report is read, not studied; --json has the whole."""
_EXAMPLES_OF_A_KIND = 3


def list_evaluations(address: str | None, *, adapter: str | None, limit: int, as_json: bool) -> None:
    """Prints evaluations, newest first."""
    parent = "" if adapter is None else _parent(adapter)
    with connected(address) as client:
        found = output.newest(
            lambda page_size, token: client.list_evaluations(
                page_size=page_size, page_token=token, parent=parent
            ),
            lambda page: page.evaluations,
            limit=limit,
        )
    if as_json:
        output.print_json(ListEvaluationsResponse(evaluations=found))
        return
    rows = [
        (
            names.short(one.name),
            names.short(one.adapter_version),
            output.state(AdapterEvaluation.State.Name(one.state)),
            names.short(one.dataset),
            *_headline(one),
            output.when(one.create_time),
        )
        for one in found
    ]
    columns = ("EVALUATION", "VERSION", "STATE", "DATASET", "FIGURE", "BASE", "ADAPTER", "CREATED")
    output.table(columns, rows, empty="There are no evaluations. Each version that becomes ACTIVE gets one.")


def show(address: str | None, name: str, *, as_json: bool) -> None:
    """Prints one evaluation with its report."""
    with connected(address) as client:
        evaluation = client.get_evaluation(names.evaluation(name))
    if as_json:
        output.print_json(evaluation)
    else:
        print_evaluation(evaluation)


def evaluate(address: str | None, version: str, *, on: str, follow: bool, as_json: bool) -> ExitCode:
    """Queues an evaluation of a version and follows it to its report."""
    console = output.console()
    with connected(address) as client:
        dataset = training.dataset_of(client, on, None if as_json else console)
        evaluation = client.create_evaluation(names.version(version), dataset=dataset)
        if follow:
            evaluation = _follow(client, evaluation.name, console, quiet=as_json)
    if as_json:
        output.print_json(evaluation)
    elif follow:
        print_evaluation(evaluation)
    else:
        short = names.short(evaluation.name)
        console.print(f"{short} is queued; `hotlora evaluations {short}` shows it.")
    return ExitCode.FAILED if evaluation.state == AdapterEvaluation.STATE_FAILED else ExitCode.OK


def print_evaluation(evaluation: AdapterEvaluation) -> None:
    """Prints what there is of it: figures, tables, wins and losses."""
    source = "rows that training set aside" if evaluation.from_validation_split else "a dataset of its own"
    output.details(
        [
            ("evaluation", names.short(evaluation.name)),
            ("version", names.short(evaluation.adapter_version)),
            ("state", output.state(AdapterEvaluation.State.Name(evaluation.state))),
            ("failure", _failure(evaluation)),
            ("answers", _progress(evaluation)),
            ("dataset", f"{names.short(evaluation.dataset)} ({source})"),
            *_report_fields(evaluation),
        ]
    )
    if evaluation.HasField("report"):
        _print_report(evaluation.report)


def _report_fields(evaluation: AdapterEvaluation) -> Iterable[tuple[str, str]]:
    if not evaluation.HasField("report"):
        return
    report = evaluation.report
    yield "task", _TASKS[report.task]
    left_out = [
        f"{number} {why}"
        for number, why in ((report.seen_rows, "seen in training"), (report.refused_rows, "refused"))
        if number
    ]
    yield "rows", ", ".join([f"{report.rows} of {report.held_out_rows}", *left_out])
    yield "result", report.summary


def _print_report(report: EvaluationReport) -> None:
    console = output.console()
    for constrained, title in ((False, "Answered freely"), (True, "Only labels allowed")):
        figures = [figure for figure in report.figures if figure.constrained == constrained]
        if figures:
            console.print(f"\n{title}" if report.confusion_tables else "")
            output.table(("FIGURE", "BASE", "ADAPTER", "CHANGE"), map(_figure_row, figures), empty="")
        for table in report.confusion_tables:
            if table.constrained == constrained:
                _print_confusion(table)
    skill = report.general_skill
    console.print(
        f"\nGeneral skill: base {skill.base_right}, adapter {skill.adapter_right} of {skill.items} right;"
        f" {skill.forgotten} forgotten"
    )
    console.print(
        f"Rows: {report.wins} better, {report.losses} worse, {report.ties} equal;"
        f" {report.regressions} regressions, general skill included"
    )
    for kind in _KINDS:
        for example in [one for one in report.examples if one.kind == kind][:_EXAMPLES_OF_A_KIND]:
            _print_example(example)


def _figure_row(figure: ReportFigure) -> Sequence[str | Text]:
    change = figure.adapter - figure.base
    better = change > 0 if figure.higher_is_better else change < 0
    style = "dim" if change == 0 else "green" if better else "red"
    return (
        figure.name.replace("_", " "),
        f"{figure.base:.3f}",
        f"{figure.adapter:.3f}",
        Text(f"{change:+.3f}", style=style),
    )


def _print_confusion(table: ConfusionTable) -> None:
    who = "Adapter" if table.adapter else "Base"
    columns = (f"{who}: RIGHT \\ ANSWERED", *table.labels, "no label")
    rows: list[list[str | Text]] = [
        [label, *(_count(number, right=row == column) for column, number in enumerate(counts.counts))]
        for row, (label, counts) in enumerate(zip(table.labels, table.rows, strict=True))
    ]
    output.console().print("")
    output.table(map(output.plain, columns), rows, empty="")


def _count(number: int, *, right: bool) -> Text:
    if not number:
        return Text("·", style="dim")
    return Text(str(number), style="green" if right else "red")


def _print_example(example: ReportExample) -> None:
    word, style = _KINDS[example.kind]
    where = f"line {example.line}" if example.line else "general skill"
    console = output.console()
    console.print(Text(f"\n{word} ({where})", style=style))
    output.details(
        [
            ("  asked", _shortened(example.prompt)),
            ("  right", _shortened(example.expected)),
            (f"  base {example.base_credit:.2f}", _shortened(example.base_answer) or "(nothing)"),
            (f"  adapter {example.adapter_credit:.2f}", _shortened(example.adapter_answer) or "(nothing)"),
        ]
    )


def _follow(client: Client, name: str, console: Console, *, quiet: bool) -> AdapterEvaluation:
    evaluation = AdapterEvaluation()
    with Progress(console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("asking base and adapter", total=None)
        for evaluation in client.watch_evaluation(name):
            progress.update(task, total=evaluation.total_answers or None, completed=evaluation.done_answers)
    return evaluation


def _headline(evaluation: AdapterEvaluation) -> tuple[str, str, str]:
    figures = evaluation.report.figures
    if not figures:
        return evaluation.failure.reason, "", ""
    return figures[0].name.replace("_", " "), f"{figures[0].base:.3f}", f"{figures[0].adapter:.3f}"


def _failure(evaluation: AdapterEvaluation) -> str:
    failure = evaluation.failure
    return f"{failure.reason}: {failure.message}" if evaluation.HasField("failure") else ""


def _progress(evaluation: AdapterEvaluation) -> str:
    return f"{evaluation.done_answers} of {evaluation.total_answers}" if evaluation.total_answers else ""


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def _parent(text: str) -> str:
    return names.version(text) if names.is_version(text) else names.adapter(text)
