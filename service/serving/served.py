"""Which versions may answer now, and how many answers each is giving.

In memory on purpose: it describes engine processes. After a restart of engine or service nothing is served
until it is proven again, whatever the registry says.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.changes import Changes
from service.engine.face import Engine, EngineState


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A version that the engine was proven to serve."""

    engine: Engine
    """On which it was proven: the base's, or its own."""
    generation: int
    """Of that engine at that time."""
    loads: int
    """Adapters loaded in the reconciler's life when it was last proven; a later load calls for another
    look."""


class Served:
    """The versions proven on engines as they are now. Belongs to one event loop."""

    def __init__(self, *, engine: Engine, changes: Changes) -> None:
        """`engine` is the base's. `changes` hears on `versions` when the last answer of a version that was
        removed has ended."""
        self._engine = engine
        self._changes = changes
        self._proven: dict[str, Proven] = {}
        self._answering: Counter[str] = Counter()

    def add(self, model: str, proven: Proven) -> None:
        """Let `model` answer."""
        self._proven[model] = proven

    def remove(self, model: str) -> None:
        """Let it begin no more answers; those in flight go on."""
        self._proven.pop(model, None)

    def holds(self, model: str) -> bool:
        """Whether a request for `model` would be taken now."""
        proven = self._proven.get(model)
        return (
            proven is not None
            and proven.engine.state is EngineState.READY
            and proven.generation == proven.engine.generation
        )

    def proven(self) -> dict[str, Proven]:
        """What was proven on the present generation of the base's engine."""
        return {
            name: proven
            for name, proven in self._proven.items()
            if proven.engine is self._engine and proven.generation == self._engine.generation
        }

    @contextmanager
    def answering(self, model: str) -> Iterator[None]:
        """Counts an answer while it is being given."""
        self._answering[model] += 1
        try:
            yield
        finally:
            self._answering[model] -= 1
            if not self._answering[model]:
                del self._answering[model]
                if model not in self._proven:
                    self._changes.notify("versions")

    def answers(self, model: str) -> int:
        """Answers that `model` is giving now."""
        return self._answering[model]

    @property
    def all_answers(self) -> int:
        """Answers being given now, base models included."""
        return self._answering.total()
