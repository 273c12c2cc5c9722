"""What the pickers offer: every served model with its state, and a sensible first choice for each side."""

from collections.abc import Sequence
from dataclasses import dataclass

from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.chat_service_pb2 import Engine, ListModelsResponse, Model

_STATES = {
    AdapterVersion.STATE_PENDING: "waiting to load",
    AdapterVersion.STATE_VERIFYING: "being verified",
    AdapterVersion.STATE_ACTIVE: "active",
    AdapterVersion.STATE_FAILED: "failed",
    AdapterVersion.STATE_RETIRING: "retiring",
    AdapterVersion.STATE_RETIRED: "retired",
}

_SERVING = {
    Model.SERVING_STARTING: "active, starting",
    Model.SERVING_ASLEEP: "active, asleep; starts when asked",
    Model.SERVING_NONE: "its base model is not here",
}
"""Of ACTIVE versions that do not answer at once."""

_ENGINE = {
    Engine.STATE_STARTING: "starting",
    Engine.STATE_READY: "ready",
    Engine.STATE_DOWN: "down",
}


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What can be picked now. Equal offers need no redraw."""

    choices: tuple[tuple[str, str], ...]
    """(label, model id), base models first."""
    base: str
    """Id of the base model to show beside `newest_active`: its own, else the first; empty while nothing is
    known."""
    newest_active: str
    """Id of the version that was published last of those that answer; empty when there is none."""
    engine: str
    """One line on the engine."""


def offer(response: ListModelsResponse) -> Offer:
    """The offer of what the service lists."""
    newest = _newest_active(response.models)
    bases = [model.id for model in response.models if not model.adapter_version]
    return Offer(
        choices=tuple((label(model), model.id) for model in response.models),
        base=newest.base_model if newest else next(iter(bases), ""),
        newest_active=newest.id if newest else "",
        engine=_engine_line(response.engine),
    )


def unreachable(reason: str) -> Offer:
    """The offer while the service does not answer."""
    return Offer(choices=(), base="", newest_active="", engine=f"Service: {reason}")


def label(model: Model) -> str:
    """A model's name with its state, as the picker shows it."""
    if not model.adapter_version:
        return f"{model.id} · base" if model.available else f"{model.id} · base, engine not ready"
    state = _STATES.get(model.state, "unknown")
    if model.state == AdapterVersion.STATE_ACTIVE:
        state = _SERVING.get(model.serving, state)
    return f"{model.id} · {state}"


def _newest_active(models: Sequence[Model]) -> Model | None:
    answering = (model for model in models if model.adapter_version and model.available)
    return max(answering, key=lambda model: model.create_time.ToNanoseconds(), default=None)


def _engine_line(engine: Engine) -> str:
    line = f"Engine {_ENGINE.get(engine.state, 'unknown')}"
    if engine.state != Engine.STATE_READY and engine.message:
        line += f": {engine.message}"
    return line if not engine.restarts else f"{line} · restarted {engine.restarts} times"
