"""What came of each version on each engine of the base, and what follows for the version itself.

Engines of one model may differ: one has too little memory, one was started with a lower rank, one is away.
The registry has one state for a version; this is where the outcomes of all engines become it. In memory on
purpose, as all that describes engine processes. `is_refused` and `is_released` are the rules, and pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from service.engine.face import Engine
from service.engine.fleet import Fleet
from service.registry import Verification, VersionRow, VersionState
from service.serving.onboarding import Rejection


@dataclass(frozen=True, kw_only=True)
class Proof:
    """It was proven, on this generation of the engine or on one before."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """It was rejected."""

    generation: int
    reason: Rejection
    message: str
    verification: Verification | None = None
    """Figures of the proof that failed, if it came to one."""

    def holds_on(self, generation: int) -> bool:
        """Whether it still counts. A new engine gets another chance, unless the old ones died of it."""
        return self.reason is Rejection.QUARANTINED or self.generation == generation


@dataclass(frozen=True, kw_only=True)
class Released:
    """It is to be retired, and this generation of the engine does not have it any more."""

    generation: int


Outcome = Proof | Refusal | Released
ByEngine = Mapping[str, Outcome]
"""The latest outcome of one version by the names of engines; none where there was none yet."""
Generations = Mapping[str, int]
"""The present generations of the engines that are ready, by their names."""


def is_refused(outcomes: ByEngine, ready: Generations) -> bool:
    """Whether a version has FAILED: every ready engine rejected it, and none that is away had it proven when
    it was last seen.

    An engine that is away without having proven it is not waited for: it may never come back, and somebody
    waits for the outcome. One that had it proven is: FAILED is undone by a person only, and such an engine
    mostly comes back by itself and proves it again.
    """
    return (
        bool(ready)
        and not any(isinstance(outcome, Proof) for outcome in outcomes.values())
        and all(
            isinstance(outcome := outcomes.get(name), Refusal) and outcome.holds_on(generation)
            for name, generation in ready.items()
        )
    )


def is_released(outcomes: ByEngine, ready: Generations) -> bool:
    """Whether a version that is to be retired is RETIRED: no ready engine has it. One that is away and comes
    back with it is told to drop it then."""
    return bool(ready) and all(
        isinstance(outcome := outcomes.get(name), Released) and outcome.generation == generation
        for name, generation in ready.items()
    )


class Outcomes:
    """Remembers the outcomes of all engines of a fleet; their reconcilers share it. Belongs to one event
    loop."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._found: dict[str, dict[str, Outcome]] = {}
        self._lives: dict[str, int] = {}
        """The epochs at which versions became PENDING; whatever came of them before does not count."""

    def see(self, row: VersionRow) -> None:
        """Call it with each row that is read: a version that somebody asks for again begins anew."""
        if row.state == VersionState.PENDING and self._lives.get(row.model) != row.epoch:
            self._lives[row.model] = row.epoch
            self._found.pop(row.model, None)

    def add(self, row: VersionRow, engine: Engine, outcome: Outcome) -> None:
        """What came of `row`, as it was when the work began."""
        if row.epoch >= self._lives.get(row.model, 0):
            self._found.setdefault(row.model, {})[engine.name] = outcome

    def forget(self, engine: Engine) -> None:
        """What came of versions on `engine`, which is gone for good, does not count any more."""
        for found in self._found.values():
            found.pop(engine.name, None)

    def refusal(self, model: str, engine: Engine) -> Refusal | None:
        """Why the present generation of `engine` does not serve `model`, if it was rejected there."""
        found = self._found.get(model, {}).get(engine.name)
        return found if isinstance(found, Refusal) and found.holds_on(engine.generation) else None

    def refusals(self, engine: Engine) -> dict[str, Refusal]:
        """All that the present generation of `engine` does not serve, by model."""
        found = ((model, self.refusal(model, engine)) for model in sorted(self._found))
        return {model: refusal for model, refusal in found if refusal is not None}

    def refused(self, model: str) -> bool:
        """Whether it has FAILED."""
        return is_refused(self._found.get(model, {}), self._ready())

    def released(self, model: str, engine: Engine) -> bool:
        """Whether the present generation of `engine` gave it back."""
        found = self._found.get(model, {}).get(engine.name)
        return isinstance(found, Released) and found.generation == engine.generation

    def released_by_all(self, model: str) -> bool:
        """Whether it is RETIRED."""
        return is_released(self._found.get(model, {}), self._ready())

    def _ready(self) -> Generations:
        return {engine.name: engine.generation for engine in self._fleet.ready}
