"""What a team does with its versions, while callers ask: none of them notices more than another version."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from service.registry import Share, VersionState, Wish
from service.serving import ChatMessage, ChatTurn
from tests.service.serving_stage import Stage, stage

ADAPTERS = 50
CHANGED = 2
CALLERS = 2
HELLO = (ChatMessage(role="user", content="hello world"),)


async def test_fifty_adapters_on_three_engines_are_rolled_out_split_rolled_back_and_retired_under_load(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, replicas=3) as on:
        names = [f"a{number}" for number in range(ADAPTERS)]
        for row in [await on.publish(name, name.encode()) for name in names]:
            await on.is_served_by(*on.engines, row=row)
        for name in names:
            await on.point(name, "prod", Share(version=1, percent=100))
        for engine in on.engines:  # so that texts tell who answered too
            engine.double.respond = lambda fields: ["I am ", str(fields["model"])]
        async with _asked(on, names) as given:
            for name in names[:CHANGED]:
                held = asyncio.Event()
                for engine in on.engines:
                    engine.double.holds[f"{name}@1"] = held
                begun = on.chat.stream(ChatTurn(model=f"{name}@prod", messages=HELLO))
                async with aclosing(begun) as deltas:
                    first = await anext(deltas)
                    row = await on.publish(name, f"{name}, better".encode())
                    await on.is_served_by(*on.engines, row=row)
                    await on.point(name, "prod", Share(version=2, percent=100))
                    assert await _says(on, name) == {f"{name}@2"}
                    held.set()
                    rest = [delta async for delta in deltas]
                    assert {delta.model for delta in [first, *rest]} == {f"{name}@1"}
                    assert "".join(delta.text for delta in [first, *rest]) == f"I am {name}@1"

                await on.point(name, "prod", Share(version=1, percent=95), Share(version=2, percent=5))
                await on.registry.aliases.roll_back(_wish(name), 1)
                assert await _says(on, name) == {f"{name}@2"}
                await on.registry.aliases.roll_back(_wish(name), 1)
                assert await _says(on, name) == {f"{name}@1"}
                await on.registry.request_unload(name, 2)
                await on.outcome(row, {VersionState.RETIRED})
                assert await _says(on, name) == {f"{name}@1"}
            before = given.copy()
            await on.soon(lambda: all(given[f"{name}@1"] > before[f"{name}@1"] for name in names))


@asynccontextmanager
async def _asked(on: Stage, names: list[str]) -> AsyncIterator[Counter[str]]:
    """Callers ask all the time, of each adapter in turn what its alias `prod` means; the block fails with the
    first request that does, and gives the answers by the version that gave them."""
    given: Counter[str] = Counter()
    turns, ended = itertools.cycle(names), asyncio.Event()

    async def ask() -> None:
        while not ended.is_set():
            name = next(turns)
            (model,) = await _says(on, name)  # one version from its first piece to its last
            assert model in {f"{name}@1", f"{name}@2"}
            given[model] += 1

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(ask())
        try:
            yield given
        finally:
            ended.set()


async def _says(on: Stage, name: str) -> set[str]:
    """The versions that answer one request, by the answer and by its text."""
    deltas = await on.answer(f"{name}@prod")
    text = "".join(delta.text for delta in deltas)
    return {delta.model for delta in deltas} | {text.removeprefix("I am ")}


def _wish(name: str) -> Wish:
    return Wish(adapter_id=name, alias_id="prod")
