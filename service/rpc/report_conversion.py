"""Evaluations and their reports as messages; other messages are made by `service.rpc.conversion`."""

from hotlora.v1 import evaluation_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from service.evaluation import Example, Figure, Report, Table
from service.registry import EvaluationRow
from service.rpc import conversion


def parent_of(name: str) -> tuple[str, int]:
    """Adapter id and version number in a filter: empty and 0 where it does not say."""
    match name.split("/"):
        case ["adapters", adapter_id, "versions", number]:
            return adapter_id, int(number)
        case ["adapters", adapter_id]:
            return adapter_id, 0
        case _:
            return "", 0


def evaluation_message(row: EvaluationRow, *, whole: bool = True) -> pb.AdapterEvaluation:
    """An evaluation; not `whole`: without tables and examples."""
    return pb.AdapterEvaluation(
        name=conversion.evaluation_name(row.id),
        state=f"STATE_{row.state.value}",
        adapter_version=conversion.version_name(row.adapter_id, row.number),
        tuning_job="" if row.job_id is None else conversion.job_name(row.job_id),
        dataset=conversion.dataset_name(row.dataset_id),
        from_validation_split=row.from_validation_split,
        failure=_failure(row),
        done_answers=row.done_answers,
        total_answers=row.total_answers,
        report=None if row.report is None else _report(Report.decode(row.report), whole=whole),
        create_time=conversion.timestamp(row.create_time),
        start_time=conversion.timestamp(row.start_time),
        end_time=conversion.timestamp(row.end_time),
    )


def _failure(row: EvaluationRow) -> resources_pb.Failure | None:
    if row.failure_reason is None:
        return None
    return resources_pb.Failure(reason=row.failure_reason, message=row.failure_message or "")


def _report(report: Report, *, whole: bool) -> pb.EvaluationReport:
    skill = report.general_skill
    return pb.EvaluationReport(
        summary=report.summary,
        task=f"TASK_{report.task.name}",
        rows=report.rows,
        held_out_rows=report.held_out_rows,
        seen_rows=report.seen_rows,
        refused_rows=report.refused_rows,
        figures=map(_figure, report.figures),
        confusion_tables=map(_table, report.tables if whole else ()),
        wins=report.wins,
        losses=report.losses,
        ties=report.ties,
        regressions=report.regressions,
        examples=map(_example, report.examples if whole else ()),
        general_skill=pb.GeneralSkill(
            items=skill.items,
            base_right=skill.base_right,
            adapter_right=skill.adapter_right,
            forgotten=skill.forgotten,
        ),
    )


def _figure(figure: Figure) -> pb.ReportFigure:
    return pb.ReportFigure(
        name=figure.name,
        base=figure.base,
        adapter=figure.adapter,
        higher_is_better=figure.higher_is_better,
        constrained=figure.constrained,
    )


def _table(table: Table) -> pb.ConfusionTable:
    return pb.ConfusionTable(
        adapter=table.adapter,
        constrained=table.constrained,
        labels=table.labels,
        rows=[pb.ConfusionRow(counts=counts) for counts in table.counts],
    )


def _example(example: Example) -> pb.ReportExample:
    return pb.ReportExample(
        kind=f"KIND_{example.kind.value}",
        line=example.line,
        prompt=example.prompt,
        expected=example.expected,
        base_answer=example.base_answer,
        adapter_answer=example.adapter_answer,
        base_credit=example.base_credit,
        adapter_credit=example.adapter_credit,
    )
