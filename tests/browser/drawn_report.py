"""A report with one of everything, foreign words among it."""

from hotlora.v1.evaluation_service_pb2 import (
    ConfusionRow,
    ConfusionTable,
    EvaluationReport,
    GeneralSkill,
    ReportExample,
    ReportFigure,
)
from hotlora.v1.resources_pb2 import TASK_CLASSIFICATION

REPORT = EvaluationReport(
    summary="accuracy from 0.250 to 0.750 on 4 unseen rows (2 better, 0 worse).",
    task=TASK_CLASSIFICATION,
    rows=4,
    held_out_rows=5,
    seen_rows=1,
    figures=[
        ReportFigure(name="accuracy", base=0.25, adapter=0.75, higher_is_better=True),
        ReportFigure(name="macro_f1", base=0.5, adapter=0.7, higher_is_better=True, constrained=True),
    ],
    confusion_tables=[
        ConfusionTable(
            adapter=True,
            labels=["billing", "delivery"],
            rows=[ConfusionRow(counts=[2, 0, 0]), ConfusionRow(counts=[0, 1, 7])],
        )
    ],
    wins=2,
    ties=2,
    regressions=1,
    examples=[
        ReportExample(
            kind=ReportExample.KIND_WIN,
            line=7,
            prompt="Where is\x1b[31m my parcel?",
            expected="delivery",
            base_answer="",
            adapter_answer="delivery",
            adapter_credit=1.0,
        ),
        ReportExample(kind=ReportExample.KIND_REGRESSION, prompt="2 + 2?", expected="4", base_credit=1.0),
    ],
    general_skill=GeneralSkill(items=32, base_right=20, adapter_right=19, forgotten=1),
)
