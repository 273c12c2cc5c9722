"""The gRPC server: our services, health and reflection behind one boundary, and a graceful end.

What a method does is its servicer's; what every call passes is `service.rpc.boundary`.
"""

import asyncio
import errno
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hotlora.v1 import (
    adapter_service_pb2,
    adapter_service_pb2_grpc,
    alias_service_pb2,
    alias_service_pb2_grpc,
    chat_service_pb2,
    chat_service_pb2_grpc,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
    planning_service_pb2,
    planning_service_pb2_grpc,
    tuning_service_pb2,
    tuning_service_pb2_grpc,
)
from service.changes import Changes
from service.datasets import DatasetStore, Hub, LocalFiles
from service.disk import Disk
from service.exporting import Exporter, ModelMaker
from service.importing import Importer
from service.metrics import Metrics
from service.planning import Planner
from service.registry import Registry
from service.rpc.adapters import AdapterServicer
from service.rpc.aliases import AliasServicer
from service.rpc.boundary import Boundary, Drain
from service.rpc.chat import Answering, ChatServicer
from service.rpc.creation import Creation
from service.rpc.datasets import DatasetServicer
from service.rpc.evaluations import EvaluationServicer
from service.rpc.following import Following
from service.rpc.intake import Intake
from service.rpc.planning import PlanningServicer
from service.rpc.tuning import TuningServicer
from service.serving import Bases

_END_SECONDS = 0.5
"""What is left for health watchers, which never end by themselves, to hear NOT_SERVING."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What callers may take."""

    concurrent_calls: int = 512
    """Calls at the same time, watches included; one more gets RESOURCE_EXHAUSTED (TOO_MANY_CALLS)."""
    message_bytes: int = 4 * 1024 * 1024
    """Largest request; a larger one gets RESOURCE_EXHAUSTED from gRPC itself, without details."""
    drain_seconds: float = 10.0
    """What running calls get to end by themselves."""


class Server:
    """See the module. Made and used on one event loop."""

    def __init__(
        self,
        *,
        address: str,
        registry: Registry,
        datasets: DatasetStore,
        chat: Answering,
        bases: Bases,
        changes: Changes,
        disk: Disk,
        artifacts_dir: Path,
        importer: Importer,
        model_maker: ModelMaker,
        planner: Planner,
        metrics: Metrics,
        local_files: LocalFiles | None = None,
        hub: Hub | None = None,
        adapter_files: LocalFiles | None = None,
        limits: ServerLimits | None = None,
        new_error_id: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        """Without `local_files` and `hub`, datasets come by upload alone; so do adapters without
        `adapter_files`."""
        self._address = address
        self._limits = limits or ServerLimits()
        self._drain = Drain()
        self._health = health.aio.HealthServicer()
        self._port = 0
        self._stopped = asyncio.Event()
        following = Following(changes=changes, drain=self._drain)
        intake = Intake(registry=registry, artifacts_dir=artifacts_dir, bases=bases, planner=planner)
        bringing_in = DatasetServicer(
            registry=registry, store=datasets, local_files=local_files or LocalFiles(()), hub=hub
        )
        evaluations = EvaluationServicer(registry=registry, following=following)
        aliases = AliasServicer(registry=registry)
        planning = PlanningServicer(planner=planner, registry=registry, bases=bases)
        self._server = grpc.aio.server(
            interceptors=[
                Boundary(
                    drain=self._drain,
                    new_id=new_error_id,
                    most_calls=self._limits.concurrent_calls,
                    metrics=metrics,
                    further_checks={
                        "/hotlora.v1.TuningService/CreateTuningJob": intake.problems,
                        "/hotlora.v1.DatasetService/ImportDataset": bringing_in.problems,
                        "/hotlora.v1.PlanningService/Plan": planning.problems,
                        "/hotlora.v1.EvaluationService/CreateEvaluation": evaluations.problems,
                        "/hotlora.v1.AliasService/SplitTraffic": aliases.split_problems,
                    },
                )
            ],
            # Room to refuse with details, and for health; beyond it gRPC refuses by itself, without any.
            maximum_concurrent_rpcs=2 * self._limits.concurrent_calls,
            options=[
                ("grpc.max_receive_message_length", self._limits.message_bytes),
                ("grpc.so_reuseport", 0),  # two services on one port would each get half of the calls
                ("grpc.keepalive_time_ms", 60_000),  # finds callers that vanished without a word
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        self.creation = Creation(registry=registry, intake=intake, disk=disk)
        """Makes jobs for other doors too."""
        tuning = TuningServicer(registry=registry, following=following, creation=self.creation)
        self._names: list[str] = []
        """Of the services, for health and reflection."""
        self._add(tuning_service_pb2_grpc.add_TuningServiceServicer_to_server, tuning, tuning_service_pb2)
        self._add(
            dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server,
            bringing_in,
            dataset_service_pb2,
        )
        self._add(
            adapter_service_pb2_grpc.add_AdapterServiceServicer_to_server,
            AdapterServicer(
                registry=registry,
                following=following,
                exporter=Exporter(registry=registry, artifacts_dir=artifacts_dir, maker=model_maker),
                importer=importer,
                local_files=adapter_files
                or LocalFiles((), setting="HOTLORA_ADAPTER_ROOTS", field="header.local_path"),
            ),
            adapter_service_pb2,
        )
        self._add(alias_service_pb2_grpc.add_AliasServiceServicer_to_server, aliases, alias_service_pb2)
        self._add(
            evaluation_service_pb2_grpc.add_EvaluationServiceServicer_to_server,
            evaluations,
            evaluation_service_pb2,
        )
        self._add(
            chat_service_pb2_grpc.add_ChatServiceServicer_to_server,
            ChatServicer(chat=chat, bases=bases),
            chat_service_pb2,
        )
        self._add(
            planning_service_pb2_grpc.add_PlanningServiceServicer_to_server,
            planning,
            planning_service_pb2,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        own = (health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection([*self._names, *own], self._server)

    @property
    def port(self) -> int:
        """The bound port; 0 before `start`."""
        return self._port

    @property
    def address(self) -> str:
        """HOST:PORT with the bound port."""
        return f"{self._address.rpartition(':')[0]}:{self._port}"

    async def start(self) -> None:
        """Bind and begin to answer. Raises OSError when the address is taken."""
        try:
            self._port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(
                errno.EADDRINUSE,
                f"cannot listen at {self._address} for gRPC: is another service running there?",
            ) from error
        await self._server.start()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        _log.info("gRPC server listens", address=self._address, port=self._port)

    async def run(self) -> None:
        """Start unless that was done, answer until cancelled, then drain."""
        if not self._port:
            await self.start()
        try:
            await self._stopped.wait()  # cancelling grpc's own wait would break its stop
        finally:
            await self.drain()

    async def drain(self) -> None:
        """Refuse new calls, end watches, let the other calls end, then stop. Harmless when done twice."""
        self._drain.begin()
        await self._health.enter_graceful_shutdown()
        try:
            async with asyncio.timeout(self._limits.drain_seconds):
                await self._drain.idle()
        except TimeoutError:
            _log.warning("calls did not end in time and are cut", seconds=self._limits.drain_seconds)
        await self._server.stop(_END_SECONDS)
        self._stopped.set()

    def _add(
        self, add: Callable[[object, grpc.aio.Server], None], servicer: object, module: ModuleType
    ) -> None:
        """Add a servicer, and its names to those that health and reflection know."""
        add(servicer, self._server)
        self._names.extend(service.full_name for service in module.DESCRIPTOR.services_by_name.values())
