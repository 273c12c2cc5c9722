"""Which versions may answer now on which engine, and how many answers each is giving there.

In memory on purpose: it describes engine processes. After a restart of engine or service nothing is served
until it is proven again, whatever the registry says.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.changes import Changes
from service.engine.client import EngineClient
from service.engine.face import Engine, EngineState
from service.errors import Unavailable


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A version that the engine was proven to serve."""

    engine: Engine
    """On which it was proven: one of the base's, or its own."""
    generation: int
    """Of that engine at that time."""
    loads: int
    """Adapters loaded in its reconciler's life when it was last proven; a later load calls for another
    look."""


class Served:
    """The versions proven on engines as they are now. Belongs to one event loop."""

    def __init__(self, *, changes: Changes) -> None:
        """`changes` hears on `versions` when the last answer of a version that was removed has ended."""
        self._changes = changes
        self._proven: dict[str, dict[Engine, Proven]] = {}
        self._answering: Counter[tuple[Engine, str]] = Counter()
        self._broken_off: dict[Engine, dict[str, tuple[EngineClient, float]]] = {}
        """Models whose answers broke off, by engine, with its client and when that had last seen a token."""
        self._suspects: dict[Engine, dict[str, int]] = {}
        """Models that were answering at each of an engine's last deaths, and at how many of them. One that
        answered well since is none."""

    def add(self, model: str, proven: Proven) -> None:
        """Let `model` answer on the engine that it was proven on."""
        self._proven.setdefault(model, {})[proven.engine] = proven

    def remove(self, model: str) -> None:
        """Let it begin no more answers anywhere; those in flight go on."""
        self._proven.pop(model, None)

    def remove_from(self, engine: Engine, model: str) -> None:
        """The same on one engine."""
        found = self._proven.get(model, {})
        found.pop(engine, None)
        if not found:
            self._proven.pop(model, None)

    def forget(self, engine: Engine) -> None:
        """Nothing was ever proven on `engine`, which is gone for good."""
        for model in list(self._proven):
            self.remove_from(engine, model)
        self._broken_off.pop(engine, None)
        self._suspects.pop(engine, None)

    def engines(self, model: str) -> tuple[Engine, ...]:
        """Where a request for `model` would be taken now."""
        return tuple(
            engine
            for engine, proven in self._proven.get(model, {}).items()
            if engine.state is EngineState.READY and proven.generation == engine.generation
        )

    def holds(self, model: str) -> bool:
        """Whether a request for `model` would be taken now."""
        return bool(self.engines(model))

    def proven(self, engine: Engine) -> dict[str, Proven]:
        """What was proven on the present generation of `engine`."""
        return {
            model: found[engine]
            for model, found in self._proven.items()
            if engine in found and found[engine].generation == engine.generation
        }

    @contextmanager
    def answering(self, engine: Engine, model: str) -> Iterator[None]:
        """Counts an answer while `engine` is giving it. Raises Unavailable where there is none to ask."""
        key, was_proven = (engine, model), self._is_proven(engine, model)  # a base model never is
        client = engine.client
        self._answering[key] += 1
        try:
            yield
        except Unavailable:
            self._broken_off.setdefault(engine, {})[model] = client, client.last_token_time
            raise
        else:
            self.acquit(engine, model)
        finally:
            self._answering[key] -= 1
            if not self._answering[key]:
                del self._answering[key]
                if was_proven and not self._is_proven(engine, model):
                    self._changes.notify("versions")

    def blame(self, engine: Engine) -> str | None:
        """`engine` is a new process: gives the version that the old one died of, which is the only one that
        was answering then and at the deaths before, as far as can be told. Of several, the base model among
        them, none is to blame, until they are told apart by another death or a good answer."""
        broken_off = self._broken_off.pop(engine, {})
        died_with = {
            model
            for model, (client, last_token_time) in broken_off.items()
            if client.last_token_time == last_token_time  # and so it did not live on
        }
        if not died_with:
            return None
        before = self._suspects.get(engine, {})
        again = before.keys() & died_with
        self._suspects[engine] = {model: before.get(model, 0) + 1 for model in again or died_with}
        return next(iter(self.deaths(engine)), None)

    def deaths(self, engine: Engine) -> dict[str, int]:
        """How often `engine` died of the answers of a version, without one that ended well in between."""
        suspects = self._suspects.get(engine, {})
        return {model: count for model, count in suspects.items() if suspects.keys() == {model}}

    def acquit(self, engine: Engine, model: str) -> None:
        """What happened is settled."""
        self._suspects.get(engine, {}).pop(model, None)

    def answers(self, model: str) -> int:
        """Answers that `model` is giving now."""
        return sum(count for (_, name), count in self._answering.items() if name == model)

    def answers_on(self, engine: Engine, model: str | None = None) -> int:
        """Answers that `engine` is giving now, of all models or of one."""
        return sum(
            count
            for (where, name), count in self._answering.items()
            if where is engine and model in {None, name}
        )

    def _is_proven(self, engine: Engine, model: str) -> bool:
        return engine in self._proven.get(model, {})

    @property
    def all_answers(self) -> int:
        """Answers being given now, base models included."""
        return self._answering.total()
