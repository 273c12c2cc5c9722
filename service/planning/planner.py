"""The planner: gathers numbers (shape, rows, device, probes) and hands them to the formula.

It decides nothing: what follows from the numbers is `trainer.planning`.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from service.errors import WrongState
from service.planning.counting import UNKNOWN_SHARE, data_of
from service.planning.devices import OwnDevice, own_device
from service.planning.probes import Kept, Probes
from service.registry import Registry
from service.serving import Base, Bases
from trainer.config import Hyperparameters, Technique
from trainer.planning import (
    RUNTIME_BYTES,
    Data,
    Device,
    Example,
    Footing,
    ModelShape,
    Plan,
    ShapeError,
    TechniquePlan,
    TextbookLine,
    plan,
    shape_of_directory,
    textbook,
)

DEFAULT_DATA = Data(rows=1_000, tokens=128_000, longest_row=256, trained_share=UNKNOWN_SHARE)
_DESCRIBED_NUMBER_BYTES = {"cpu": 4, "cuda": 2}
DESCRIBED_CONTEXT = 131_072
"""Tokens of context of a model that is only described: it sets no bound of its own."""


@dataclass(frozen=True, kw_only=True)
class DescribedDevice:
    """A device in numbers."""

    kind: str
    memory_bytes: int
    operations_per_second: float


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be planned. None means the service's own."""

    base_model: str
    """One that the service has; empty: the default one. Without effect where a model is described."""
    dataset_id: str | None
    data: Data | None
    device: DescribedDevice | None
    shape: ModelShape | None
    example: Example | None
    given: Mapping[str, object]
    """Settings that are chosen already."""
    probe: Technique | None
    """What to measure first."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A plan and what it is about."""

    base_model: str
    """Empty where it was described."""
    shape: ModelShape
    data: Data
    device: Device
    is_own_device: bool
    plan: Plan
    probe_times: Mapping[Technique, float]
    textbook: Mapping[Technique, tuple[TextbookLine, ...]]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run needs, technique by technique, and where it would be."""

    device: Device
    techniques: Mapping[Technique, TechniquePlan]


class Planner:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        *,
        bases: Bases,
        registry: Registry,
        probes: Probes,
        look: Callable[[], OwnDevice] = own_device,
    ) -> None:
        """`look` may block for a second."""
        self._bases = bases
        self._registry = registry
        self._probes = probes
        self._look = look
        self._shapes: dict[str, ModelShape] = {}
        """Of bases, by their names. Read once: a base's files stay as they are while it is served."""
        self._seen: OwnDevice | None = None
        """The device when it was last looked at."""

    async def prepare(self) -> None:
        """Look at device and bases once, so that no job has to wait for that."""
        await self._device()
        for base in self._bases:
            with suppress(ShapeError):
                await self._shape_of_base(base)

    def parameters(self, base: Base) -> int:
        """Of a base, once it was looked at; 0 where its files do not tell."""
        shape = self._shapes.get(base.name)
        return 0 if shape is None else shape.parameters

    async def needs(self, base: Base, data: Data, settings: Hyperparameters) -> Needs | None:
        """What a run with these settings would need here with each technique; None where the base's files do
        not tell its shape. Takes milliseconds: a GPU, whose tool may take a second, is as it was last seen.
        """
        try:
            shape = await self._shape_of_base(base)
        except ShapeError:
            return None
        own = self._seen
        if own is None or own.kind == "cpu":
            own = await self._device()
        measured = await self._probes.known(base.model, own)
        device = _as_it_is(own, measured)
        planned = _plan(base, shape, data, device, measured, asdict(settings), is_own_base=True)
        return Needs(device=device, techniques={one.technique: one for one in planned.techniques})

    async def answer(self, question: Question) -> Answer:
        """Plan. Raises what the store, the registry and a probe raise, and WrongState (SHAPE_UNKNOWN)."""
        base = self._bases.meant(question.base_model)
        own = await self._device()
        if question.probe is not None and question.probe not in await self._probes.known(base.model, own):
            await self._probes.measure(base.model, question.probe, own)
        is_own_base = question.shape is None and question.example is None
        shape = await self._shape(question, base)
        data = await self._data(question)
        measured: dict[Technique, Kept] = {}
        if question.device is None:
            if is_own_base:
                measured = await self._probes.known(base.model, own)
            device = _as_it_is(own, measured)
        else:
            device = _as_described(question.device)
        return Answer(
            base_model=base.name if is_own_base else "",
            shape=shape,
            data=data,
            device=device,
            is_own_device=question.device is None,
            plan=_plan(base, shape, data, device, measured, question.given, is_own_base=is_own_base),
            probe_times={technique: kept.time for technique, kept in measured.items()},
            textbook={technique: textbook(shape, technique, question.example) for technique in Technique},
        )

    async def _shape(self, question: Question, base: Base) -> ModelShape:
        if question.example is not None:
            return question.example.shape
        if question.shape is not None:
            return question.shape
        try:
            return await self._shape_of_base(base)
        except ShapeError as error:
            raise WrongState(
                f"the base model's files do not tell its shape ({error.args[0]}); describe it in model",
                state="SHAPE_UNKNOWN",
                reason="SHAPE_UNKNOWN",
            ) from error

    async def _shape_of_base(self, base: Base) -> ModelShape:
        """Raises ShapeError."""
        if base.name not in self._shapes:
            self._shapes[base.name] = await asyncio.to_thread(shape_of_directory, base.model.path)
        return self._shapes[base.name]

    async def _device(self) -> OwnDevice:
        self._seen = await asyncio.to_thread(self._look)
        return self._seen

    async def _data(self, question: Question) -> Data:
        if question.dataset_id is None:
            return question.data or DEFAULT_DATA
        return data_of(await self._registry.get_dataset(question.dataset_id))


def _plan(
    base: Base,
    shape: ModelShape,
    data: Data,
    device: Device,
    measured: Mapping[Technique, Kept],
    given: Mapping[str, object],
    *,
    is_own_base: bool,
) -> Plan:
    """Where the model is `base`, with the bounds of what is served."""
    return plan(
        shape,
        data,
        device,
        context_length=base.context_length if is_own_base else DESCRIBED_CONTEXT,
        max_rank=base.fleet.max_rank,
        calibrations={technique: kept.calibration for technique, kept in measured.items()},
        given=given,
        unservable=base.unservable() if is_own_base else None,
    )


def _as_it_is(own: OwnDevice, measured: Mapping[Technique, Kept]) -> Device:
    footings = [kept.calibration.footing for kept in measured.values()]
    guess = Footing(
        device=own.kind,
        number_bytes=own.number_bytes,
        runtime_bytes=RUNTIME_BYTES[own.kind],
    )
    return Device(
        footing=footings[0] if footings else guess,
        memory_bytes=own.memory_bytes,
        available_bytes=own.available_bytes,
    )


def _as_described(device: DescribedDevice) -> Device:
    return Device(
        footing=Footing(
            device=device.kind,
            number_bytes=_DESCRIBED_NUMBER_BYTES[device.kind],
            runtime_bytes=RUNTIME_BYTES[device.kind],
        ),
        memory_bytes=device.memory_bytes,
        available_bytes=device.memory_bytes,
        operations_per_second=device.operations_per_second,
    )
