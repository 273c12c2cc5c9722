"""The planner: gathers numbers (shape, rows, device, probes) and hands them to the formula.

It decides nothing: what follows from the numbers is `trainer.planning`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from service.errors import WrongState
from service.planning.counting import UNKNOWN_SHARE, data_of
from service.planning.devices import OwnDevice, own_device
from service.planning.probes import Kept, Probes
from service.registry import Registry
from trainer.config import BaseModel, Hyperparameters, Technique
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
        base: BaseModel,
        context_length: int,
        max_rank: Callable[[], int],
        registry: Registry,
        probes: Probes,
        unservable: Callable[[], Mapping[Technique, str]] = dict,
        look: Callable[[], OwnDevice] = own_device,
    ) -> None:
        """`context_length` is what is served, in tokens. `unservable` says of techniques why what they make
        could not be served now. `look` may block for a second."""
        self._base = base
        self._context_length = context_length
        self._max_rank = max_rank
        self._registry = registry
        self._probes = probes
        self._unservable = unservable
        self._look = look
        self._own_shape: ModelShape | None = None
        self._seen: OwnDevice | None = None
        """The device when it was last looked at."""

    async def prepare(self) -> int:
        """Look at device and base once, so that no job has to wait for that; gives the base's parameters, 0
        where its files do not tell."""
        await self._device()
        try:
            return (await self._shape_of_base()).parameters
        except ShapeError:
            return 0

    async def needs(self, data: Data, settings: Hyperparameters) -> Needs | None:
        """What a run with these settings would need here with each technique; None where the base's files do
        not tell its shape. Takes milliseconds: a GPU, whose tool may take a second, is as it was last seen.
        """
        try:
            shape = await self._shape_of_base()
        except ShapeError:
            return None
        own = self._seen
        if own is None or own.kind == "cpu":
            own = await self._device()
        measured = await self._probes.known(own)
        device = _as_it_is(own, measured)
        planned = self._plan(shape, data, device, measured, asdict(settings), is_own_base=True)
        return Needs(device=device, techniques={one.technique: one for one in planned.techniques})

    async def answer(self, question: Question) -> Answer:
        """Plan. Raises what the store, the registry and a probe raise, and WrongState (SHAPE_UNKNOWN)."""
        own = await self._device()
        if question.probe is not None and question.probe not in await self._probes.known(own):
            await self._probes.measure(question.probe, own)
        is_own_base = question.shape is None and question.example is None
        shape = await self._shape(question)
        data = await self._data(question)
        measured: dict[Technique, Kept] = {}
        if question.device is None:
            if is_own_base:
                measured = await self._probes.known(own)
            device = _as_it_is(own, measured)
        else:
            device = _as_described(question.device)
        return Answer(
            base_model=self._base.name if is_own_base else "",
            shape=shape,
            data=data,
            device=device,
            is_own_device=question.device is None,
            plan=self._plan(shape, data, device, measured, question.given, is_own_base=is_own_base),
            probe_times={technique: kept.time for technique, kept in measured.items()},
            textbook={technique: textbook(shape, technique, question.example) for technique in Technique},
        )

    def _plan(
        self,
        shape: ModelShape,
        data: Data,
        device: Device,
        measured: Mapping[Technique, Kept],
        given: Mapping[str, object],
        *,
        is_own_base: bool,
    ) -> Plan:
        """Where the base is the service's own, with the bounds of what is served."""
        return plan(
            shape,
            data,
            device,
            context_length=self._context_length if is_own_base else DESCRIBED_CONTEXT,
            max_rank=self._max_rank(),
            calibrations={technique: kept.calibration for technique, kept in measured.items()},
            given=given,
            unservable=self._unservable() if is_own_base else None,
        )

    async def _shape(self, question: Question) -> ModelShape:
        if question.example is not None:
            return question.example.shape
        if question.shape is not None:
            return question.shape
        try:
            return await self._shape_of_base()
        except ShapeError as error:
            raise WrongState(
                f"the base model's files do not tell its shape ({error.args[0]}); describe it in model",
                state="SHAPE_UNKNOWN",
                reason="SHAPE_UNKNOWN",
            ) from error

    async def _shape_of_base(self) -> ModelShape:
        """Read once: a base's files stay as they are while it is served. Raises ShapeError."""
        if self._own_shape is None:
            self._own_shape = await asyncio.to_thread(shape_of_directory, self._base.path)
        return self._own_shape

    async def _device(self) -> OwnDevice:
        self._seen = await asyncio.to_thread(self._look)
        return self._seen

    async def _data(self, question: Question) -> Data:
        if question.dataset_id is None:
            return question.data or DEFAULT_DATA
        return data_of(await self._registry.get_dataset(question.dataset_id))


def _as_it_is(own: OwnDevice, measured: Mapping[Technique, Kept]) -> Device:
    footings = [kept.calibration.footing for kept in measured.values()]
    guess = Footing(
        device=own.kind,
        number_bytes=own.number_bytes,
        runtime_bytes=RUNTIME_BYTES if own.kind == "cpu" else 0,
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
            runtime_bytes=RUNTIME_BYTES if device.kind == "cpu" else 0,
        ),
        memory_bytes=device.memory_bytes,
        available_bytes=device.memory_bytes,
        operations_per_second=device.operations_per_second,
    )
