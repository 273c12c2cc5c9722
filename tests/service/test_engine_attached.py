"""An engine of somebody else: looked at, noticed when it restarts, and never believed to be what it is
not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from service.changes import Changes
from service.engine import Abilities, AttachedEngine, EngineState, Fleet
from service.engine.attached import Watch
from service.engine.capacity import Capacity
from service.serving.servable import unservable_on
from service.settings import Settings
from tests.doubles.engine import EngineDouble
from tests.service.registry_stage import until
from trainer.config import BaseModel

BASE = BaseModel(name="base", path=Path("/models/base"), revision="sha256:0")


@asynccontextmanager
async def _attached(
    double: EngineDouble, tmp_path: Path, api_key: str | None = None, base: BaseModel = BASE
) -> AsyncIterator[tuple[AttachedEngine, Callable[[Callable[[], bool]], asyncio.Task[None]]]]:
    changes = Changes()
    settings = Settings.model_validate({"home": tmp_path, "engine_api_key": api_key})
    watch = Watch(interval_seconds=0.02, probe_interval_seconds=0.02, probe_timeout_seconds=0.3)
    engine = AttachedEngine(url=double.url, settings=settings, base=base, changes=changes, watch=watch)

    def reached(condition: Callable[[], bool]) -> asyncio.Task[None]:
        async def look() -> bool:
            return condition()

        return asyncio.create_task(until(changes, "engine", look))

    task = asyncio.create_task(engine.run())
    try:
        yield engine, reached
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_engine_that_serves_the_base_is_ready_with_its_context(tmp_path: Path) -> None:
    async with EngineDouble(max_model_length=777) as double, _attached(double, tmp_path) as (engine, reached):
        await reached(lambda: engine.state is EngineState.READY)

        assert (engine.generation, engine.restarts, engine.max_model_length) == (1, 0, 777)


async def test_what_an_engine_was_not_started_for_is_known_once_it_is_ready(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 2}')
    base = replace(BASE, path=tmp_path)
    async with EngineDouble() as double:
        for without in (False, True):
            double.faults.without_loading = double.faults.without_prompt_embeds = without
            async with _attached(double, tmp_path, base=base) as (engine, reached):
                await reached(lambda: engine.state is EngineState.READY)

                assert engine.abilities == Abilities(adapters=not without, embeddings=not without)
                refused = unservable_on(Fleet([engine]), {})
                assert len(refused) == (3 if without else 0)
                assert all("attached" in reason for reason in refused.values())


async def test_the_slots_of_an_engine_are_those_that_it_tells(tmp_path: Path) -> None:
    async with EngineDouble() as double:
        double.slots = 7
        async with _attached(double, tmp_path) as (engine, reached):
            await reached(lambda: engine.state is EngineState.READY)
            assert engine.capacity == Capacity(slots=7, cached=None)
            for number in range(8):
                name = f"a{number}"
                (tmp_path / name).mkdir()
                (tmp_path / name / "adapter_model.safetensors").touch()
                await engine.client.load_adapter(name=name, path=str(tmp_path / name))
            assert not engine.client.has_in_memory("a0")  # as vLLM does where it was told of slots alone
            assert engine.client.has_in_memory("a1")

        double.faults.bad_gateways = {"/metrics"}
        async with _attached(double, tmp_path) as (engine, reached):
            await reached(lambda: engine.state is EngineState.READY)
            assert engine.capacity == Capacity(slots=None, cached=None)


async def test_an_engine_that_went_and_came_back_is_a_new_generation(tmp_path: Path) -> None:
    async with EngineDouble() as double, _attached(double, tmp_path) as (engine, reached):
        await reached(lambda: engine.state is EngineState.READY)
        double.dead = True
        await reached(lambda: engine.state is EngineState.DOWN)
        double.dead = False
        await reached(lambda: engine.state is EngineState.READY)

        assert (engine.generation, engine.restarts) == (2, 1)


async def test_an_engine_that_forgot_what_we_loaded_is_a_new_generation(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    async with EngineDouble() as double, _attached(double, tmp_path) as (engine, reached):
        await reached(lambda: engine.state is EngineState.READY)
        await engine.client.load_adapter(name="support@1", path=str(tmp_path))
        await engine.client.load_adapter(name="other@1", path=str(tmp_path))
        await engine.client.unload_adapter("other@1")
        double.adapters.clear()

        await reached(lambda: engine.generation == 2)


async def test_an_engine_that_lists_models_but_gives_no_token_is_down(tmp_path: Path) -> None:
    async with EngineDouble() as double, _attached(double, tmp_path) as (engine, reached):
        await reached(lambda: engine.state is EngineState.READY)
        double.stalled_completions = True

        await reached(lambda: engine.state is EngineState.DOWN)


async def test_an_engine_with_another_base_is_down_and_says_which(tmp_path: Path) -> None:
    async with EngineDouble(base_name="other") as double, _attached(double, tmp_path) as (engine, reached):
        await reached(lambda: engine.state is EngineState.DOWN)

        assert "it serves other, not base" in engine.message
        assert engine.generation == 0


@pytest.mark.parametrize(("api_key", "state"), [("right", EngineState.READY), ("wrong", EngineState.DOWN)])
async def test_the_key_of_an_attached_engine_is_sent_and_never_shown(
    tmp_path: Path, api_key: str, state: EngineState
) -> None:
    async with (
        EngineDouble(api_key="right") as double,
        _attached(double, tmp_path, api_key) as (engine, reached),
    ):
        await reached(lambda: engine.state is state)

        assert api_key not in engine.message
