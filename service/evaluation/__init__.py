"""Reports: base against adapter, through the served engine, on rows that the adapter never saw."""

from service.evaluation.evaluator import Evaluator, Limits
from service.evaluation.gate import Gate
from service.evaluation.report import Example, Figure, GeneralSkill, Kind, Report, Table

__all__ = [
    "Evaluator",
    "Example",
    "Figure",
    "Gate",
    "GeneralSkill",
    "Kind",
    "Limits",
    "Report",
    "Table",
]
