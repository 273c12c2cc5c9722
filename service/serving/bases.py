"""The base models that are trained and served here, each with what is its own.

Versions belong to one base for ever. Those of a base that this service does not have are left as they are: it
may have it again the next time it is started.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.engine.fleet import Fleet
from service.errors import AlreadyExists, FieldViolation, WrongState
from service.serving.outcomes import Outcomes
from service.serving.replicas import Replicas
from service.serving.routes import Routes
from trainer.config import BaseModel, Technique
from trainer.rendering import Renderer


@dataclass(frozen=True, kw_only=True)
class Base:
    """One of them."""

    model: BaseModel
    renderer: Renderer
    """Writes its prompts, for training and for serving."""
    context_length: int
    """Tokens of the longest row that can be trained on and served."""
    routes: Routes
    outcomes: Outcomes
    replicas: Replicas
    linear_modules: Sequence[str] = ()
    """Names of its linear layers; empty: only the trainer checks target modules."""
    unservable: Callable[[], Mapping[Technique, str]] = dict
    """Techniques whose versions could not be served now, and why."""

    @property
    def name(self) -> str:
        """By which it is asked."""
        return self.model.name

    @property
    def fleet(self) -> Fleet:
        """Its engines."""
        return self.replicas.fleet


class Bases:
    """All of them; the first one is meant where none is named."""

    def __init__(self, bases: Sequence[Base]) -> None:
        self._by_name = {base.name: base for base in bases}
        self.default = bases[0]

    def __iter__(self) -> Iterator[Base]:
        return iter(self._by_name.values())

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the settings."""
        return tuple(self._by_name)

    def find(self, name: str) -> Base | None:
        """The base called `name`, the default one for an empty name; None where there is none."""
        return self._by_name.get(name) if name else self.default

    def meant(self, name: str) -> Base:
        """The base called `name`, the default one where there is none."""
        return self.find(name) or self.default

    def of(self, base_model: str) -> Base:
        """The base that something which is there belongs to. Raises WrongState (BASE_NOT_SERVED)."""
        base = self._by_name.get(base_model)
        if base is None:
            raise WrongState(
                self.absent(base_model, field="")[0].description,
                state="another base",
                reason="BASE_NOT_SERVED",
            )
        return base

    def absent(self, base_model: str, *, field: str) -> list[FieldViolation]:
        """What is wrong with something that belongs to a base which is not there."""
        names = ", ".join(self.names)
        what = (
            f"belongs to base model {base_model!r}, which this service was not started with; it has {names}"
        )
        return [FieldViolation(field=field, description=what)]

    def unknown(self, name: str, *, field: str = "base_model", advice: str = "") -> list[FieldViolation]:
        """What is wrong with `name` where a caller chooses a base; nothing where there is such a base."""
        if self.find(name) is not None:
            return []
        description = f"there is no base model {name[:60]!r} here; there is {' and '.join(self.names)}"
        return [FieldViolation(field=field, description=description + advice)]

    def counts(self, base: Base, counter: str) -> bool:
        """Whether lengths that the base called `counter` counted are in tokens of `base`. Empty: nobody wrote
        down which one it was, and the default one is taken for it."""
        return (counter or self.default.name) == base.name

    def refuse_name(self, adapter_id: str) -> None:
        """Raise AlreadyExists (NAME_OF_BASE_MODEL) where an adapter would hide a base."""
        if adapter_id in self._by_name:
            raise AlreadyExists(
                "NAME_OF_BASE_MODEL", f"{adapter_id!r} is the name of a base model; choose another adapter_id"
            )
