"""Which whole models get an engine of their own, and which lose it: a pure function from what is to what
should be.

There are fewer engines than models. A request and a proof start one, idleness and somebody else's need stop
it. Applying a plan twice is harmless. No I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.registry import VersionRow, VersionState
from service.serving.plan import WANTED

YIELD_SECONDS = 15.0
"""An engine that idles for so long gives its place to a model that is waited for; two models that are asked
in turn must not start engines instead of answering."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Give it an engine, and prove it there."""

    row: VersionRow


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Take its engine away."""

    model: str


@dataclass(frozen=True, kw_only=True)
class Retire:
    """It has no engine any more: say so."""

    row: VersionRow


Action = Start | Stop | Retire


@dataclass(frozen=True, kw_only=True)
class Housed:
    """A model that has an engine, ready or not."""

    proven: bool
    answering: bool
    idle_seconds: float
    """Since its last answer, or since it was proven."""
    stuck: bool = False
    """Not proven, and nothing to compare it with: its base does not answer."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What is, as far as the plan needs it."""

    housed: Mapping[str, Housed]
    asked: Sequence[str] = ()
    """Sleeping models that somebody asked something of, first come first."""
    resting: frozenset[str] = field(default_factory=frozenset)
    """Models that wait a while after an attempt without an outcome; not started."""
    places: int
    """Engines at the same time."""
    idle_limit_seconds: float


def plan(desired: Sequence[VersionRow], observed: Observed) -> tuple[Action, ...]:
    """Actions that may all be applied at once. `desired` are the whole models that are WANTED or RETIRING."""
    wanted = {row.model: row for row in desired if row.state in WANTED}
    waiting = _waiting(wanted, observed)
    free = max(0, observed.places - len(observed.housed))
    stopped = [model for model in observed.housed if _is_over(model, wanted, observed)]
    if len(waiting) > free + len(stopped):
        stopped.extend(_idlest(observed, besides=stopped))
    return (
        *(Stop(model=model) for model in stopped),
        *(Start(row=row) for row in waiting[:free]),
        *(
            Retire(row=row)
            for row in desired
            if row.state == VersionState.RETIRING and row.model not in observed.housed
        ),
    )


def _waiting(wanted: Mapping[str, VersionRow], observed: Observed) -> list[VersionRow]:
    """Models to start, people before proofs."""
    asked = [wanted[model] for model in observed.asked if model in wanted]
    unproven = [row for row in wanted.values() if row.state != VersionState.ACTIVE and row not in asked]
    return [
        row
        for row in (*asked, *unproven)
        if row.model not in observed.housed and row.model not in observed.resting
    ]


def _is_over(model: str, wanted: Mapping[str, VersionRow], observed: Observed) -> bool:
    housed = observed.housed[model]
    if housed.answering:
        return False
    return model not in wanted or (housed.proven and housed.idle_seconds >= observed.idle_limit_seconds)


def _idlest(observed: Observed, besides: Sequence[str]) -> list[str]:
    """One that is stuck, else the one that has idled longest, if long enough."""
    stuck = [model for model, housed in observed.housed.items() if housed.stuck and model not in besides]
    if stuck:
        return stuck[:1]
    idle = {
        model: housed.idle_seconds
        for model, housed in observed.housed.items()
        if housed.proven
        and not housed.answering
        and housed.idle_seconds >= YIELD_SECONDS
        and model not in besides
    }
    return [max(idle, key=lambda model: idle[model])] if idle else []
