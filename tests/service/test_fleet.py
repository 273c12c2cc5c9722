"""All engines of a base as one, as callers see them who do not choose."""

from dataclasses import replace
from pathlib import Path

from service.changes import Changes
from service.engine import AttachedEngine, EngineState, Supervisor, fleet
from service.settings import Settings
from tests.service.serving_stage import MODEL, stage


async def test_each_base_has_the_engines_that_are_named_with_it_and_else_our_own(tmp_path: Path) -> None:
    urls = ("http://127.0.0.1:1", f"{MODEL.name}=http://127.0.0.1:2", "second=http://127.0.0.1:3")
    settings = Settings(
        home=tmp_path, engine_urls=urls, more_base_models=("second", "third"), engine_replicas=2
    )
    names = [
        [
            engine.name
            for engine in fleet(
                settings, base=replace(MODEL, name=name), changes=Changes(), position=position
            ).engines
        ]
        for position, name in enumerate((MODEL.name, "second", "third"))
    ]
    assert names == [
        ["http://127.0.0.1:1", "http://127.0.0.1:2"],
        ["http://127.0.0.1:3"],
        ["engine-5", "engine-6"],
    ]


async def test_several_engines_are_ready_when_one_is_and_tell_of_those_that_are_not(tmp_path: Path) -> None:
    async with stage(tmp_path, replicas=2) as on:
        first, second = on.engines
        assert (on.fleet.state, on.fleet.message) == (EngineState.READY, "2 of 2 engines are ready")
        second.max_rank, second.max_model_length, second.restarts = 8, 1000, 3

        first.state = EngineState.STARTING
        assert on.fleet.state is EngineState.READY
        assert on.fleet.message == "1 of 2 engines are ready; double-1: a double"
        assert on.fleet.any_ready is second
        second.state = EngineState.DOWN
        assert on.fleet.state is EngineState.STARTING
        assert (on.fleet.max_rank, on.fleet.max_model_length, on.fleet.restarts) == (8, 1000, 3)


async def test_engines_are_those_of_the_settings_with_names_that_differ(tmp_path: Path) -> None:
    urls = ("http://me:secret@127.0.0.1:8001/", "http://127.0.0.1:8002")
    attached = fleet(Settings(home=tmp_path, engine_urls=urls), base=MODEL, changes=Changes())
    own = fleet(Settings(home=tmp_path, engine_replicas=2), base=MODEL, changes=Changes())

    assert [engine.name for engine in attached.engines] == ["http://127.0.0.1:8001", "http://127.0.0.1:8002"]
    assert "secret" not in attached.message
    assert [engine.name for engine in own.engines] == ["engine-1", "engine-2"]
    assert all(isinstance(engine, AttachedEngine) for engine in attached.engines)
    assert all(isinstance(engine, Supervisor) for engine in own.engines)
    assert (attached.supervised, own.supervised) == (False, True)
