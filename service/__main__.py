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
from pydantic_core import ErrorDetails

from hotlora import home, lifeline
from service import logs, traces
from service.base_model import ResolvedBase, resolve_base_models
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
    Base,
    Bases,
    Chat,
    Disposal,
    Means,
    Outcomes,
    OwnEngines,
    Prover,
    Reconcilers,
    Replicas,
    Routes,
    Served,
    Strays,
)
from service.serving.servable import unservable, unservable_on
from service.settings import Settings, base_of, url_of, without_credentials
from trainer.base_model import linear_module_names
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
        models = await _base_models(settings, stop)
        if models is not None:
            await _serve(settings, models, hold, stop, trainer_command, import_command, merge_command)


async def _serve(
    settings: Settings,
    models: Sequence[ResolvedBase],
    hold: home.Hold,
    stop: asyncio.Event,
    trainer_command: Sequence[str],
    import_command: Sequence[str],
    merge_command: Sequence[str],
) -> None:
    changes = Changes()
    disk = Disk(directory=settings.home, min_free_bytes=settings.min_free_disk_bytes)
    async with Registry.open(
        settings.database_url, changes=changes, max_queued_jobs=settings.max_queued_jobs
    ) as registry:
        served = Served(changes=changes)
        metrics = Metrics()
        bases = Bases(
            [await _base(settings, model, position, served, changes) for position, model in enumerate(models)]
        )
        own_engines = OwnEngines(
            Means(
                registry=registry,
                served=served,
                bases=bases,
                settings=settings,
                changes=changes,
                prover=Prover(),
                metrics=metrics,
            )
        )
        chat = Chat(registry=registry, served=served, bases=bases, own_engines=own_engines, metrics=metrics)
        datasets = DatasetStore(
            directory=settings.datasets_dir,
            registry=registry,
            bases=bases,
            disk=disk,
        )
        await datasets.sweep()
        planner = Planner(
            bases=bases,
            registry=registry,
            probes=Probes(
                directory=settings.calibrations_dir,
                registry=registry,
                changes=changes,
                threads=settings.trainer_threads,
            ),
        )
        await planner.prepare()
        server = Server(
            address=settings.grpc_address,
            registry=registry,
            datasets=datasets,
            chat=chat,
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
                threads=settings.trainer_threads,
                command=import_command,
            ),
            model_maker=ModelMaker(
                bases=bases,
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
            planner=planner,
            metrics=metrics,
            local_files=LocalFiles(settings.dataset_roots),
            hub=Hub(directory=settings.hub_dir) if settings.hub_datasets else None,
        )
        gateway = Gateway(
            address=settings.gateway_address,
            chat=chat,
            bases=bases,
            registry=registry,
            metrics=metrics,
            more=(
                Files(datasets=datasets, registry=registry),
                FineTuning(registry=registry, creation=server.creation, base_models=bases.names),
            ),
        )
        runner = Runner(
            registry=registry,
            changes=changes,
            settings=settings,
            base_models=[base.model for base in bases],
            metrics=metrics,
            command=trainer_command,
        )
        disposal = Disposal(registry=registry, bases=bases, artifacts_dir=settings.artifacts_dir)
        reconcilers = [
            Reconcilers.of(
                base,
                registry=registry,
                served=served,
                disposal=disposal,
                artifacts_dir=settings.artifacts_dir,
                changes=changes,
                metrics=metrics,
            )
            for base in bases
        ]
        evaluator = Evaluator(
            registry=registry,
            changes=changes,
            chat=chat,
            served=served,
            bases=bases,
            datasets_dir=settings.datasets_dir,
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
                    Strays(registry=registry, bases=bases, changes=changes).run(),
                    *(each.run() for each in reconcilers),
                    own_engines.run(),
                    *(base.fleet.run() for base in bases),
                ],
            )
        finally:
            datasets.close()


async def _base(
    settings: Settings, resolved: ResolvedBase, position: int, served: Served, changes: Changes
) -> Base:
    """A base with its engines, which are not started yet."""
    model, length = resolved
    engines = fleet(settings, base=model, changes=changes, position=position)
    routes, outcomes = Routes(base=model), Outcomes(engines)
    return Base(
        model=model,
        renderer=await asyncio.to_thread(Renderer.from_directory, model.path),
        context_length=min(length, settings.engine_max_model_len),
        routes=routes,
        outcomes=outcomes,
        replicas=Replicas(
            fleet=engines, served=served, outcomes=outcomes, routes=routes, base=model, changes=changes
        ),
        linear_modules=await asyncio.to_thread(linear_module_names, model.path),
        unservable=partial(unservable_on, engines, await asyncio.to_thread(unservable, model, settings)),
    )


async def _base_models(settings: Settings, stop: asyncio.Event) -> Sequence[ResolvedBase] | None:
    """The base models; None once `stop` is set, however far the preparation is."""
    preparing = asyncio.create_task(resolve_base_models(settings))
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


def _sentence(problem: ErrorDetails) -> str:
    """What is wrong with a setting, by its variable; what is wrong with several together says which."""
    words = str(problem.get("ctx", {}).get("error", problem["msg"]))
    if not problem["loc"]:
        return words
    name, *index = problem["loc"]
    return f"HOTLORA_{str(name).upper()}{''.join(f'[{place}]' for place in index)}: {words}"


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
            print(_sentence(problem), file=sys.stderr)
        return 2
    engines = [
        f"{base_of(url) or settings.base_model}={without_credentials(url_of(url))}"
        for url in settings.engine_urls
    ]
    _log.info(
        "settings",
        engine_urls=engines,
        **settings.model_dump(mode="json", exclude={"database_url", "engine_api_key", "engine_urls"}),
    )
    exit_code = 0
    try:
        with traces.exported_to(settings.traces_endpoint):
            asyncio.run(_main(settings, trainer_command, import_command, merge_command))
    except* (HotloraError, OSError) as group:
        for missing in group.exceptions:
            print(f"error: {missing}", file=sys.stderr)
        exit_code = 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
