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
        or NOT_COMPARABLE where no rows were asked of both."""
        names = f"{adapter_id}@{new}", f"{adapter_id}@{present}"
        ours, theirs = [await self._succeeded(adapter_id, number) for number in (new, present)]
        for mine in ours:
            for other in theirs:
                if await self._are_alike(mine, other):
                    _compare(names, _report(mine), _report(other))
                    return
        raise WrongState(
            f"{names[0]} and {names[1]} were not evaluated on the same rows, so the gate cannot tell which "
            "is better; evaluate both on one dataset, or force it",
            state="not compared",
            reason="NOT_COMPARABLE",
        )

    async def _succeeded(self, adapter_id: str, number: int) -> list[EvaluationRow]:
        """Newest first."""
        await self._registry.get_version(adapter_id, number)
        page = await self._registry.evaluations.listing(
            limit=_LOOKED_AT, adapter_id=adapter_id, number=number
        )
        return [row for row in page.rows if row.state is EvaluationState.SUCCEEDED]

    async def _are_alike(self, one: EvaluationRow, other: EvaluationRow) -> bool:
        """Whether both asked the same rows."""
        if (one.dataset_id, one.from_validation_split) != (other.dataset_id, other.from_validation_split):
            return False
        if not one.from_validation_split:
            return True
        return await self._split(one) == await self._split(other)

    async def _split(self, row: EvaluationRow) -> tuple[int, float]:
        """What decides which rows of its dataset were set aside."""
        assert row.job_id is not None, "only jobs set rows aside"
        settings = (await self._registry.get_job(row.job_id)).hyperparameters
        return settings.seed, settings.validation_fraction


def _report(row: EvaluationRow) -> Report:
    assert row.report is not None, "an evaluation that succeeded has a report"
    return Report.decode(row.report)


def _compare(names: tuple[str, str], new: Report, present: Report) -> None:
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
            return


def _is_worse(new: Figure, present: Figure) -> bool:
    if new.higher_is_better:
        return new.adapter < present.adapter
    return new.adapter > present.adapter
