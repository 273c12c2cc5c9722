"""A host name that stands for many engines: each of its addresses is a replica, which comes and goes with
it."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from service.changes import Changes
from service.engine import AttachedEngine, EngineState, Fleet, fleet
from service.engine.attached import Watch
from service.engine.discovery import MAX_ADDRESSES, Discovery
from service.errors import Unavailable
from service.registry import VersionState
from service.settings import Settings
from tests.doubles.engine import EngineDouble
from tests.service.registry_stage import until
from tests.service.serving_stage import EMBEDDINGS, MODEL, DoubleEngine, Stage, stage


class Zone:
    """What a resolver of the test knows of one name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Collection[str] = addresses
        self.problem: Exception | None = None
        self.answers = asyncio.Event()
        """Not set while lookups get no answer."""
        self.answers.set()
        self.asked: list[tuple[str, int]] = []
        self.waiting = 0
        """Lookups that were begun and had no answer yet."""

    async def resolve(self, host: str, port: int) -> Collection[str]:
        self.asked.append((host, port))
        self.waiting += 1
        await self.answers.wait()
        self.waiting -= 1
        if self.problem is not None:
            raise self.problem
        return self.addresses


def _named(
    zone: Zone, tmp_path: Path, _: Sequence[DoubleEngine], changes: Changes, *, port: int = 0
) -> Fleet:
    """A fleet of what is behind a name, looked at often."""
    settings = Settings(home=tmp_path)
    watch = Watch(interval_seconds=0.02, probe_interval_seconds=0.02, probe_timeout_seconds=0.3)

    def attach(url: str) -> AttachedEngine:
        return AttachedEngine(url=url, settings=settings, base=MODEL, changes=changes, watch=watch)

    discovery = Discovery(
        url=f"http://me:secret@engines.test:{port}",
        attach=attach,
        changes=changes,
        resolver=zone.resolve,
        period_seconds=0.02,
        limit_seconds=0.05,
    )
    return Fleet([], discoveries=[discovery])


class Engines:
    """Doubles on one port of several loopback addresses."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.port = 0
        self.doubles: dict[str, EngineDouble] = {}

    async def add(self, address: str) -> EngineDouble:
        double = EngineDouble(
            base_name=MODEL.name, base_path=str(MODEL.path), embeddings=EMBEDDINGS, host=address
        )
        await double.start(self.port)
        self._stack.push_async_callback(double.stop)
        self.port = double.port
        self.doubles[address] = double
        return double


def _ready(on: Stage, *addresses: str) -> Callable[[], bool]:
    def condition() -> bool:
        return [engine.name.split("//")[1].split(":")[0] for engine in on.fleet.ready] == list(addresses)

    return condition


async def test_each_address_of_a_name_is_a_replica_that_comes_with_it_and_goes_once_it_is_down(
    tmp_path: Path,
) -> None:
    zone = Zone("127.0.0.1", "127.0.0.2")
    async with AsyncExitStack() as stack:
        engines = Engines(stack)
        first, second = await engines.add("127.0.0.1"), await engines.add("127.0.0.2")
        make = partial(_named, zone, tmp_path, port=engines.port)
        on = await stack.enter_async_context(stage(tmp_path, supervised=False, make_fleet=make))
        row = await on.outcome(await on.publish("support", b"good"))
        await on.soon(lambda: len(on.served.engines(row.model)) == 2)
        assert {replica.name for replica in on.chat.replicas()} == {first.url, second.url}

        third = await engines.add("127.0.0.3")
        zone.addresses = ("127.0.0.2", "127.0.0.3")

        await on.soon(lambda: len(on.served.engines(row.model)) == 3)  # the first one still answers
        assert set(third.adapters) == {row.model}
        gone = on.fleet.engines[0]
        await first.stop()
        await on.soon(_ready(on, "127.0.0.2", "127.0.0.3"))
        await on.soon(lambda: len(on.chat.replicas()) == 2)
        await on.soon(lambda: len(on.served.engines(row.model)) == 2)
        await on.soon(lambda: not on.served.proven(gone))
        assert set(zone.asked) == {("engines.test", engines.port)}

        await first.start(engines.port)
        zone.addresses = ("127.0.0.1", "127.0.0.2", "127.0.0.3")

        await on.soon(lambda: len(on.served.engines(row.model)) == 3)


async def test_a_version_has_failed_when_the_only_replica_that_served_it_is_gone_for_good(
    tmp_path: Path,
) -> None:
    zone = Zone("127.0.0.1", "127.0.0.2")
    async with AsyncExitStack() as stack:
        engines = Engines(stack)
        good, bad = await engines.add("127.0.0.1"), await engines.add("127.0.0.2")
        bad.faults.as_base = {"support@1"}
        make = partial(_named, zone, tmp_path, port=engines.port)
        on = await stack.enter_async_context(stage(tmp_path, supervised=False, make_fleet=make))
        row = await on.outcome(await on.publish("support", b"good"))
        await on.soon(lambda: bad.calls["/v1/unload_lora_adapter"] == 1)
        assert row.state == VersionState.ACTIVE

        zone.addresses = ("127.0.0.2",)
        await good.stop()

        row = await on.outcome(row, {VersionState.FAILED})
        assert row.failure_reason == "NO_EFFECT"


@pytest.mark.parametrize("trouble", ["fails", "is empty", "is no name", "does not end"])
async def test_a_lookup_that_tells_nothing_changes_nothing_and_is_told(tmp_path: Path, trouble: str) -> None:
    zone = Zone("127.0.0.1")
    async with AsyncExitStack() as stack:
        engines = Engines(stack)
        double = await engines.add("127.0.0.1")
        make = partial(_named, zone, tmp_path, port=engines.port)
        on = await stack.enter_async_context(stage(tmp_path, supervised=False, make_fleet=make))
        await on.soon(_ready(on, "127.0.0.1"))
        assert "engines.test" not in on.fleet.message
        match trouble:
            case "fails":
                zone.problem, said = OSError(-2, "Name or service not known"), "not known"
            case "is empty":
                zone.addresses, said = (), "no address"
            case "is no name":
                zone.problem, said = UnicodeError("label too long"), "UnicodeError"
            case _:
                zone.answers.clear()
                said = "within 0.05 s"

        await on.soon(lambda: said in on.fleet.message)
        begun = len(zone.asked)
        looks = double.calls["/v1/models"]
        await on.soon(lambda: double.calls["/v1/models"] > looks + 5)

        assert "http://engines.test" in on.fleet.message
        assert "secret" not in on.fleet.message
        assert _ready(on, "127.0.0.1")()
        assert zone.waiting <= 1
        assert trouble != "does not end" or len(zone.asked) == begun

        zone.problem, zone.addresses = None, ("127.0.0.1",)
        zone.answers.set()

        await on.soon(lambda: "engines.test" not in on.fleet.message)


async def test_before_a_name_has_an_address_the_service_says_so_and_refuses_no_training(
    tmp_path: Path,
) -> None:
    zone = Zone()
    zone.problem = OSError(-3, "Temporary failure in name resolution")
    async with stage(tmp_path, supervised=False, make_fleet=partial(_named, zone, tmp_path, port=1)) as on:
        await on.soon(lambda: "Temporary failure" in on.fleet.message)

        assert (on.fleet.state, on.fleet.engines) == (EngineState.DOWN, ())
        assert on.fleet.abilities.adapters
        assert not on.fleet.supervised
        assert [model.id for model in await on.chat.models()] == [MODEL.name]
        with pytest.raises(Unavailable, match="Temporary failure"):
            on.bases.default.replicas.check(MODEL.name)


async def test_of_a_name_with_too_many_addresses_some_are_taken_and_that_is_told(tmp_path: Path) -> None:
    zone = Zone(*(f"127.0.1.{number}" for number in range(MAX_ADDRESSES + 10)))
    async with stage(tmp_path, supervised=False, make_fleet=partial(_named, zone, tmp_path, port=1)) as on:
        await on.soon(lambda: f"more than {MAX_ADDRESSES}" in on.fleet.message)

        assert len(on.fleet.engines) == MAX_ADDRESSES


async def test_names_and_addresses_of_the_settings_are_one_fleet_with_each_engine_once(
    tmp_path: Path,
) -> None:
    zone, changes = Zone("127.0.0.1", "::1"), Changes()
    settings = Settings(
        home=tmp_path, engine_urls=("dns+http://engines.test:1", "http://127.0.0.1:1", "http://127.0.0.9:1")
    )
    engines = fleet(settings, base=MODEL, changes=changes, resolver=zone.resolve)
    task = asyncio.create_task(engines.run())
    try:

        async def found() -> bool:
            return len(engines.engines) > 2

        await until(changes, "engine", found)
        assert [engine.name for engine in engines.engines] == [
            "http://127.0.0.1:1",
            "http://127.0.0.9:1",
            "http://[::1]:1",
        ]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
