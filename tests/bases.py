"""Base models as the service puts them together, with engines that the tests have."""

from collections.abc import Callable, Mapping, Sequence

from service.changes import Changes
from service.engine import Fleet
from service.serving import Base, Outcomes, Replicas, Routes, Served
from trainer.config import BaseModel, Technique
from trainer.rendering import Renderer


def made_base(
    model: BaseModel,
    fleet: Fleet,
    *,
    renderer: Renderer,
    changes: Changes | None = None,
    served: Served | None = None,
    context_length: int = 2048,
    linear_modules: Sequence[str] = (),
    unservable: Callable[[], Mapping[Technique, str]] = dict,
) -> Base:
    """A base; with `changes` and `served` of its own where nothing is asked of it."""
    changes = changes or Changes()
    routes, outcomes = Routes(base=model), Outcomes(fleet)
    served = served or Served(changes=changes)
    return Base(
        model=model,
        renderer=renderer,
        context_length=context_length,
        routes=routes,
        outcomes=outcomes,
        replicas=Replicas(
            fleet=fleet, served=served, outcomes=outcomes, routes=routes, base=model, changes=changes
        ),
        linear_modules=linear_modules,
        unservable=unservable,
    )
