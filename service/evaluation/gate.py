"""Whether a version may take over traffic: its evaluation against that of the version that has it.

Compares what was measured on the same rows, by the figure that tells most; changes nothing.
"""

from service.errors import WrongState
from service.evaluation.report import Figure, Report
from service.registry import EvaluationRow, EvaluationState, Registry

_LOOKED_AT = 50
"""Latest evaluations of each version."""


class Gate:
    """See the module."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def refuse_worse(self, adapter_id: str, *, new: int, present: int) -> None:
        """Raise WrongState unless version `new` was evaluated at least as well as `present`: EVALUATED_WORSE,
        or NOT_COMPARABLE where no figure of the same rows is known of both."""
        names = f"{adapter_id}@{new}", f"{adapter_id}@{present}"
        ours, theirs = [await self._reports(adapter_id, number) for number in (new, present)]
        for mine in ours:
            for other in theirs:
                asked_same = mine.rows_digest == other.rows_digest != ""
                if asked_same and _compared(names, mine, other):
                    return
        raise WrongState(
            f"{names[0]} and {names[1]} were not evaluated on the same rows, so the gate cannot tell which "
            "is better; evaluate both on one dataset, or force it",
            state="not compared",
            reason="NOT_COMPARABLE",
        )

    async def _reports(self, adapter_id: str, number: int) -> list[Report]:
        """Newest first."""
        await self._registry.get_version(adapter_id, number)
        page = await self._registry.evaluations.listing(
            limit=_LOOKED_AT, adapter_id=adapter_id, number=number
        )
        return [_report(row) for row in page.rows if row.state is EvaluationState.SUCCEEDED]


def _report(row: EvaluationRow) -> Report:
    assert row.report is not None, "an evaluation that succeeded has a report"
    return Report.decode(row.report)


def _compared(names: tuple[str, str], new: Report, present: Report) -> bool:
    """Whether they have a figure in common, which is no worse in `new`. Raises WrongState."""
    theirs = {(figure.name, figure.constrained): figure for figure in present.figures}
    for mine in new.figures:
        other = theirs.get((mine.name, mine.constrained))
        if other is not None:
            if _is_worse(mine, other):
                raise WrongState(
                    f"{names[0]} has {mine.name} {mine.adapter:.3g} where {names[1]}, which has the traffic, "
                    f"has {other.adapter:.3g}, on the same {new.rows} rows; force it, to promote it still",
                    state="evaluated worse",
                    reason="EVALUATED_WORSE",
                )
            return True
    return False


def _is_worse(new: Figure, present: Figure) -> bool:
    if new.higher_is_better:
        return new.adapter < present.adapter
    return new.adapter > present.adapter
