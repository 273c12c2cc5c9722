"""A gRPC service in this process: real server, registry, dataset store and chat, on a free loopback port.

The engine's double stands behind the chat, over HTTP. Nothing trains and nothing is loaded: jobs stay queued,
and tests write what trainer and reconciler would into the registry.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from hotlora.v1 import adapter_service_pb2 as adapters_pb
from hotlora.v1 import adapter_service_pb2_grpc as adapters_grpc
from hotlora.v1 import alias_service_pb2_grpc as aliases_grpc
from hotlora.v1 import chat_service_pb2_grpc as chat_grpc
from hotlora.v1 import dataset_service_pb2 as datasets_pb
from hotlora.v1 import dataset_service_pb2_grpc as datasets_grpc
from hotlora.v1 import evaluation_service_pb2_grpc as evaluations_grpc
from hotlora.v1 import planning_service_pb2_grpc as planning_grpc
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from hotlora.v1 import tuning_service_pb2_grpc as tuning_grpc
from service.changes import Changes
from service.datasets import DatasetStore, Hub, LocalFiles, UploadLimits
from service.disk import Disk
from service.engine import AttachedEngine, Engine, EngineState, Fleet
from service.exporting import ModelMaker
from service.importing import Importer
from service.metrics import Metrics
from service.planning import OwnDevice, Planner, Probes
from service.registry import Registry
from service.rpc import Server, ServerLimits
from service.serving import Bases, Chat, Means, OwnEngines, Prover, Served
from service.settings import Settings
from tests.bases import made_base
from tests.doubles.engine import EngineDouble
from tests.registry_file import registry_url
from tests.service.runner_stage import in_background
from tests.tiny_renderer import CHATML, tiny_renderer
from trainer.config import BaseModel, Technique

ResultT = TypeVar("ResultT")
HEARING = CHATML.replace(
    "{{ message.content }}", "{% if message.role == 'user' %}Hear: {% endif %}{{ message.content }}"
)
"""Template of further bases."""
BASE = "tiny-base"
CONTEXT_LENGTH = 512
ENGINE_MAX_RANK = 32
LINEAR_MODULES = ("down_proj", "q_proj", "v_proj")
SHAPE: Mapping[str, object] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "tie_word_embeddings": True,
}
DEVICE = OwnDevice(
    kind="cpu", name="a box", memory_bytes=32 * 10**9, available_bytes=16 * 10**9, number_bytes=4
)
PROBE_COMMAND = (sys.executable, "-m", "tests.doubles.probe")
IMPORT_COMMAND = (sys.executable, "-m", "tests.doubles.importing")
MERGE_COMMAND = (sys.executable, "-m", "tests.doubles.merging")
GOOD_LINE = b'{"prompt": "hello", "completion": "world"}\n'


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.25

    def __call__(self) -> float:
        return self.now


def ids(prefix: str) -> Callable[[], str]:
    """Ids that a test can foresee: prefix-1, prefix-2, ..."""
    numbers = count(1)
    return lambda: f"{prefix}-{next(numbers)}"


@dataclass(kw_only=True)
class Stage:
    """The running service and stubs for it."""

    server: Server
    registry: Registry
    changes: Changes
    store: DatasetStore
    channel: grpc.aio.Channel
    home: Path
    clock: Clock
    engine: EngineDouble
    metrics: Metrics
    tuning: tuning_grpc.TuningServiceStub = field(init=False)
    datasets: datasets_grpc.DatasetServiceStub = field(init=False)
    adapters: adapters_grpc.AdapterServiceStub = field(init=False)
    aliases: aliases_grpc.AliasServiceStub = field(init=False)
    chat: chat_grpc.ChatServiceStub = field(init=False)
    planning: planning_grpc.PlanningServiceStub = field(init=False)
    evaluations: evaluations_grpc.EvaluationServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.tuning = tuning_grpc.TuningServiceStub(self.channel)
        self.datasets = datasets_grpc.DatasetServiceStub(self.channel)
        self.adapters = adapters_grpc.AdapterServiceStub(self.channel)
        self.aliases = aliases_grpc.AliasServiceStub(self.channel)
        self.planning = planning_grpc.PlanningServiceStub(self.channel)
        self.chat = chat_grpc.ChatServiceStub(self.channel)
        self.evaluations = evaluations_grpc.EvaluationServiceStub(self.channel)

    async def upload(
        self, content: bytes, dataset_id: str = "rows", chunk_bytes: int = 65_536
    ) -> datasets_pb.Dataset:
        """Upload a file the ordinary way."""
        return await self.datasets.UploadDataset(parts(content, dataset_id, chunk_bytes))

    async def send(self, messages: Iterator[datasets_pb.UploadDatasetRequest]) -> datasets_pb.Dataset:
        """Upload what may be refused before all is sent."""
        return await self._blocking(
            lambda channel: datasets_grpc.DatasetServiceStub(channel).UploadDataset(messages)
        )

    async def send_adapter(
        self, messages: Iterator[adapters_pb.ImportAdapterVersionRequest]
    ) -> adapters_pb.AdapterVersion:
        """Import what may be refused before all is sent."""
        return await self._blocking(
            lambda channel: adapters_grpc.AdapterServiceStub(channel).ImportAdapterVersion(messages)
        )

    async def _blocking(self, call: Callable[[grpc.Channel], ResultT]) -> ResultT:
        """Call in a thread: gRPC's asyncio client loses the answer when a write finds the call ended
        (grpc.aio 1.85)."""

        def called() -> ResultT:
            with grpc.insecure_channel(f"127.0.0.1:{self.server.port}") as channel:
                return call(channel)

        return await asyncio.to_thread(called)

    async def job(self, **fields: object) -> tuning_pb.TuningJob:
        """Create a job on dataset `rows` for adapter `support`."""
        request = {"dataset": "datasets/rows", "adapter_id": "support", **fields}
        return await self.tuning.CreateTuningJob(tuning_pb.CreateTuningJobRequest(**request))

    def files(self) -> list[str]:
        """What lies in the directory of datasets."""
        return sorted(path.name for path in (self.home / "datasets").iterdir())


def parts(
    content: bytes, dataset_id: str = "rows", chunk_bytes: int = 65_536
) -> Iterator[datasets_pb.UploadDatasetRequest]:
    """The messages of an upload."""
    yield datasets_pb.UploadDatasetRequest(header=datasets_pb.UploadHeader(dataset_id=dataset_id))
    for begin in range(0, len(content), chunk_bytes):
        yield datasets_pb.UploadDatasetRequest(chunk=content[begin : begin + chunk_bytes])


@asynccontextmanager
async def running(
    home: Path,
    *,
    upload_limits: UploadLimits | None = None,
    server_limits: ServerLimits | None = None,
    min_free_disk_bytes: int = 0,
    max_queued_jobs: int = 100,
    context_length: int = CONTEXT_LENGTH,
    local_files: LocalFiles | None = None,
    hub: Hub | None = None,
    adapter_files: LocalFiles | None = None,
    import_command: Sequence[str] = IMPORT_COMMAND,
    llama_cpp_dir: Path | None = None,
    address: str = "127.0.0.1:0",
    probe_command: Sequence[str] = PROBE_COMMAND,
    unservable: Callable[[], Mapping[Technique, str]] = dict,
    device: OwnDevice = DEVICE,
    shape: Mapping[str, object] = SHAPE,
    more_bases: Mapping[str, int] = MappingProxyType({}),
) -> AsyncIterator[Stage]:
    """A service that answers until the block ends. `more_bases` are names of base models beside `BASE`, with
    their context lengths; they have a template of their own, a layer more and the same engine."""
    (home / "datasets").mkdir(parents=True, exist_ok=True)
    changes, clock = Changes(), Clock()
    url = registry_url(home)
    async with (
        Registry.open(
            url, changes=changes, clock=clock, ids=ids("job"), max_queued_jobs=max_queued_jobs
        ) as registry,
        EngineDouble(base_name=BASE, max_model_length=CONTEXT_LENGTH) as double,
    ):
        renderer = tiny_renderer(home / "base")
        disk = Disk(directory=home, min_free_bytes=min_free_disk_bytes)
        (home / "base" / "config.json").write_text(json.dumps(shape))
        base = BaseModel(name=BASE, path=home / "base", revision="sha256:tiny")
        settings = Settings(
            home=home,
            engine_max_rank=ENGINE_MAX_RANK,
            engine_max_model_len=CONTEXT_LENGTH,
        )
        engine = AttachedEngine(url=double.url, settings=settings, base=base, changes=changes)
        served = Served(changes=changes)
        for name in more_bases:
            (home / name).mkdir()
            (home / name / "config.json").write_text(json.dumps({**shape, "num_hidden_layers": 3}))
        bases = Bases(
            [
                made_base(
                    each,
                    Fleet([engine]),
                    renderer=its_renderer,
                    changes=changes,
                    served=served,
                    context_length=length,
                    linear_modules=LINEAR_MODULES,
                    unservable=unservable,
                )
                for each, its_renderer, length in (
                    (base, renderer, context_length),
                    *(
                        (
                            BaseModel(name=name, path=home / name, revision=f"sha256:{name}"),
                            tiny_renderer(home / name, HEARING),
                            length,
                        )
                        for name, length in more_bases.items()
                    ),
                )
            ]
        )
        store = DatasetStore(
            directory=home / "datasets",
            registry=registry,
            bases=bases,
            disk=disk,
            clock=clock,
            new_id=ids("dataset"),
            limits=upload_limits,
        )
        await store.sweep()
        planner = Planner(
            bases=bases,
            registry=registry,
            probes=Probes(
                directory=home / "calibrations",
                registry=registry,
                changes=changes,
                threads=0,
                command=probe_command,
            ),
            look=lambda: device,
        )
        await planner.prepare()
        metrics = Metrics()
        server = Server(
            address=address,
            registry=registry,
            datasets=store,
            chat=_chat(registry, settings, bases, served, changes, metrics),
            bases=bases,
            changes=changes,
            disk=disk,
            artifacts_dir=settings.artifacts_dir,
            importer=Importer(
                registry=registry,
                bases=bases,
                directory=settings.imports_dir,
                artifacts_dir=settings.artifacts_dir,
                disk=disk,
                command=import_command,
            ),
            model_maker=ModelMaker(
                bases=bases,
                artifacts_dir=settings.artifacts_dir,
                directory=settings.exports_dir,
                disk=disk,
                llama_cpp_dir=llama_cpp_dir,
                command=MERGE_COMMAND,
            ),
            adapter_files=adapter_files,
            planner=planner,
            metrics=metrics,
            local_files=local_files,
            hub=hub,
            limits=server_limits or ServerLimits(drain_seconds=5),
            new_error_id=ids("error"),
        )
        await server.start()
        async with (
            in_background(engine.run),
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            await _ready(engine, changes)
            yield Stage(
                server=server,
                registry=registry,
                changes=changes,
                store=store,
                channel=channel,
                home=home,
                clock=clock,
                engine=double,
                metrics=metrics,
            )
        await server.drain()
        store.close()


def _chat(
    registry: Registry, settings: Settings, bases: Bases, served: Served, changes: Changes, metrics: Metrics
) -> Chat:
    """As the service makes one; no engine of a whole model ever starts."""
    means = Means(
        registry=registry,
        served=served,
        bases=bases,
        settings=settings,
        changes=changes,
        prover=Prover(),
        metrics=metrics,
    )
    return Chat(registry=registry, served=served, bases=bases, own_engines=OwnEngines(means), metrics=metrics)


async def _ready(engine: Engine, changes: Changes) -> None:
    while engine.state is not EngineState.READY:
        await changes.wait("engine", changes.seen("engine"), 0.05)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a failed call told its caller."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    violations: dict[str, str]
    """Field to description."""
    retry_seconds: float | None
    trailer_bytes: int


def refusal_of(error: grpc.RpcError) -> Refusal:
    """Unpack the error of a call; every one of ours carries google.rpc.Status with an ErrorInfo."""
    encoded = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(encoded)
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for kind in (info, bad, retry):
            detail.Unpack(kind)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    assert info.domain == "hotlora"
    return Refusal(
        code=error.code(),
        message=status.message,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations={one.field: one.description for one in bad.field_violations},
        retry_seconds=retry.retry_delay.ToTimedelta().total_seconds()
        if retry.HasField("retry_delay")
        else None,
        trailer_bytes=len(encoded),
    )


async def refused(call: Awaitable[object]) -> Refusal:
    """How the call was refused; it must be."""
    try:
        answer = await call
    except grpc.RpcError as error:
        return refusal_of(error)
    raise AssertionError(f"the call was not refused but answered {answer}")


async def create_refused(stage: Stage, **fields: object) -> Refusal:
    """How a job with these fields was refused."""
    return await refused(stage.job(**fields))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task or thread is about to do."""
    while not condition():  # noqa: ASYNC110 - what is waited for is on disk, and sends no event
        await asyncio.sleep(0.005)


def small(limits: UploadLimits | None = None, **records: int) -> UploadLimits:
    """Upload limits with some of the file's bounds replaced."""
    limits = limits or UploadLimits()
    return replace(limits, records=replace(limits.records, **records))
