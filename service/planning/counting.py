"""What a dataset is to a plan: its rows in numbers, as they were counted when it was uploaded."""

from service.registry import DatasetRow
from trainer.planning import Data
from trainer.records import Kind

UNKNOWN_SHARE = 0.5
"""Part of the tokens that carry loss, where nobody counted them."""


def data_of(dataset: DatasetRow) -> Data:
    """The numbers of a dataset; its objective is the one that its rows are for."""
    report = dataset.report
    return Data(
        rows=dataset.rows,
        tokens=dataset.tokens,
        longest_row=dataset.longest_row_tokens,
        trained_share=report.trained_tokens / report.tokens if report and report.tokens else UNKNOWN_SHARE,
        is_cut=dataset.kind is Kind.TEXT,
        objective=dataset.objective,
        has_task=dataset.task is not None,
    )
