"""The service: `python -m service`. One page of wiring: what exists, what owns what, in which order it ends.

Settings come from `HOTLORA_*` variables (`service.settings`). Logs go to standard error, one JSON object
a line.
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Coroutine, Sequence
from functools import partial

import structlog
from pydantic import ValidationError

from hotlora import home, lifeline
from service import logs
from service.base_model import resolve_base_model
from service.changes import Changes
from service.datasets import DatasetStore, Hub, LocalFiles
from service.disk import Disk
from service.engine import fleet
from service.errors import HotloraError
from service.evaluation import Evaluator
from service.evaluation import Limits as EvaluationLimits
from service.exporting import COMMAND as MERGE_COMMAND
from service.exporting import ModelMaker
from service.gateway import Files, FineTuning, Gateway
from service.importing import COMMAND as IMPORT_COMMAND
from service.importing import Importer
from service.metrics import Metrics
from service.planning import Planner, Probes
from service.registry import Registry
from service.rpc import Server
from service.runner import COMMAND as TRAINER_COMMAND
from service.runner import Runner
from service.serving import (
    Chat,
    Disposal,
    Means,
    Outcomes,
    OwnEngines,
    Prover,
    Reconciler,
    Reconcilers,
    Replicas,
    Routes,
    Served,
)
from service.serving.servable import unservable, unservable_on
from service.settings import Settings, without_credentials
from trainer.base_model import linear_module_names
from trainer.config import BaseModel
from trainer.rendering import Renderer

_log = structlog.get_logger(__name__)


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    *,
    trainer_command: Sequence[str] = TRAINER_COMMAND,
    import_command: Sequence[str] = IMPORT_COMMAND,
    merge_command: Sequence[str] = MERGE_COMMAND,
) -> None:
    """Run the service until `stop` is set; `trainer_command` starts a fork server, `import_command` makes an
    artifact of an adapter that was trained elsewhere, `merge_command` a whole model of base and adapter. All
    get arguments added.

    Raises HomeInUseError where another service has the home, HotloraError when the base model cannot be had.
    """
    settings.make_directories()
    with home.Hold(settings.home) as hold:
        prepared = await _base_model(settings, stop)
        if prepared is not None:
            await _serve(settings, *prepared, hold, stop, trainer_command, import_command, merge_command)


async def _serve(
    settings: Settings,
    base: BaseModel,
    base_length: int,
    hold: home.Hold,
    stop: asyncio.Event,
    trainer_command: Sequence[str],
    import_command: Sequence[str],
    merge_command: Sequence[str],
) -> None:
    context_length = min(base_length, settings.engine_max_model_len)
    renderer = await asyncio.to_thread(Renderer.from_directory, base.path)
    changes = Changes()
    disk = Disk(directory=settings.home, min_free_bytes=settings.min_free_disk_bytes)
    async with Registry.open(
        settings.database_url, changes=changes, max_queued_jobs=settings.max_queued_jobs
    ) as registry:
        engines = fleet(settings, base=base, changes=changes)
        served = Served(changes=changes)
        metrics = Metrics()
        routes = Routes(base=base)
        own_engines = OwnEngines(
            Means(
                registry=registry,
                served=served,
                routes=routes,
                base=base,
                rendering=renderer.contract(),
                settings=settings,
                changes=changes,
                fleet=engines,
                prover=Prover(),
                metrics=metrics,
            )
        )
        chat = Chat(
            registry=registry,
            served=served,
            replicas=Replicas(fleet=engines, served=served, routes=routes, base=base, changes=changes),
            own_engines=own_engines,
            renderer=renderer,
            base=base,
            metrics=metrics,
        )
        datasets = DatasetStore(
            directory=settings.datasets_dir,
            registry=registry,
            renderer=renderer,
            context_length=context_length,
            disk=disk,
        )
        await datasets.sweep()
        probes = Probes(
            directory=settings.calibrations_dir,
            registry=registry,
            changes=changes,
            base=base,
            threads=settings.trainer_threads,
        )
        refused = partial(unservable_on, engines, await asyncio.to_thread(unservable, base, settings))
        planner = Planner(
            base=base,
            context_length=context_length,
            max_rank=lambda: engines.max_rank,
            registry=registry,
            probes=probes,
            unservable=refused,
        )
        importer = Importer(
            registry=registry,
            base=base,
            directory=settings.imports_dir,
            artifacts_dir=settings.artifacts_dir,
            disk=disk,
            max_rank=lambda: engines.max_rank,
            threads=settings.trainer_threads,
            command=import_command,
        )
        server = Server(
            address=settings.grpc_address,
            registry=registry,
            datasets=datasets,
            chat=chat,
            fleet=engines,
            changes=changes,
            disk=disk,
            artifacts_dir=settings.artifacts_dir,
            importer=importer,
            model_maker=ModelMaker(
                base=base,
                artifacts_dir=settings.artifacts_dir,
                directory=settings.exports_dir,
                disk=disk,
                llama_cpp_dir=settings.llama_cpp_dir,
                threads=settings.trainer_threads,
                command=merge_command,
            ),
            adapter_files=LocalFiles(
                settings.adapter_roots, setting="HOTLORA_ADAPTER_ROOTS", field="header.local_path"
            ),
            base_model=base.name,
            linear_modules=await asyncio.to_thread(linear_module_names, base.path),
            unservable=refused,
            planner=planner,
            token_count=renderer.token_count,
            local_files=LocalFiles(settings.dataset_roots),
            hub=Hub(directory=settings.hub_dir) if settings.hub_datasets else None,
            parameters=await planner.prepare(),
        )
        gateway = Gateway(
            address=settings.gateway_address,
            chat=chat,
            fleet=engines,
            registry=registry,
            metrics=metrics,
            more=(
                Files(datasets=datasets, registry=registry),
                FineTuning(registry=registry, creation=server.creation, base_model=base.name),
            ),
        )
        runner = Runner(
            registry=registry,
            changes=changes,
            settings=settings,
            base_model=base,
            metrics=metrics,
            command=trainer_command,
        )
        outcomes = Outcomes(engines)
        disposal = Disposal(registry=registry, fleet=engines, artifacts_dir=settings.artifacts_dir)
        reconcilers = Reconcilers(
            fleet=engines,
            served=served,
            outcomes=outcomes,
            routes=routes,
            changes=changes,
            reconciler=lambda engine: Reconciler(
                registry=registry,
                engine=engine,
                served=served,
                outcomes=outcomes,
                disposal=disposal,
                routes=routes,
                artifacts_dir=settings.artifacts_dir,
                base=base,
                rendering=renderer.contract(),
                changes=changes,
                metrics=metrics,
            ),
        )
        evaluator = Evaluator(
            registry=registry,
            changes=changes,
            chat=chat,
            served=served,
            renderer=renderer,
            base=base,
            datasets_dir=settings.datasets_dir,
            context_length=context_length,
            limits=EvaluationLimits(
                rows=settings.evaluation_rows, concurrency=settings.evaluation_concurrency
            ),
        )
        try:
            await server.start()
            hold.listens(server.address)
            # In the order in which they end: first nobody is let in, then answers end, then work stops.
            await _run_until(
                stop,
                [
                    server.run(),
                    gateway.run(),
                    evaluator.run(),
                    runner.run(),
                    reconcilers.run(),
                    own_engines.run(),
                    engines.run(),
                ],
            )
        finally:
            datasets.close()


async def _base_model(settings: Settings, stop: asyncio.Event) -> tuple[BaseModel, int] | None:
    """The base model and its context; None once `stop` is set, however far the preparation is."""
    preparing = asyncio.create_task(resolve_base_model(settings.base_model, settings.models_dir))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({preparing, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not preparing.done():
        preparing.cancel()
        await asyncio.wait({preparing})
    return None if preparing.cancelled() else preparing.result()


async def _run_until(stop: asyncio.Event, parts: list[Coroutine[object, object, None]]) -> None:
    """Run all parts until `stop` is set or one of them fails; then end them one by one, in order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts]
        await stop.wait()
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _allow_open_files() -> None:
    """As many as may be had: the usual 1,024 are soon used up by watchers, answers and the database."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _main(
    settings: Settings,
    trainer_command: Sequence[str],
    import_command: Sequence[str],
    merge_command: Sequence[str],
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lifeline.hold(partial(os.kill, os.getpid(), signal.SIGTERM))
    await serve(
        settings,
        stop,
        trainer_command=trainer_command,
        import_command=import_command,
        merge_command=merge_command,
    )


def main(
    trainer_command: Sequence[str] = TRAINER_COMMAND,
    import_command: Sequence[str] = IMPORT_COMMAND,
    merge_command: Sequence[str] = MERGE_COMMAND,
) -> int:
    """0 after a wished end, 1 when something is missing, 2 for a setting that is wrong."""
    logs.configure(sys.stderr)
    _allow_open_files()
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            field = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"HOTLORA_{field}: {problem['msg']}", file=sys.stderr)
        return 2
    engines = [without_credentials(url) for url in settings.engine_urls]
    _log.info(
        "settings",
        engine_urls=engines,
        **settings.model_dump(mode="json", exclude={"database_url", "engine_api_key", "engine_urls"}),
    )
    exit_code = 0
    try:
        asyncio.run(_main(settings, trainer_command, import_command, merge_command))
    except* (HotloraError, OSError) as group:
        for missing in group.exceptions:
            print(f"error: {missing}", file=sys.stderr)
        exit_code = 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
