"""Adapters take turns at an engine's slots: those that are asked without a pause starve nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.engine.slots import Slots

TURN = 2.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Hall:
    """Slots, and who has one, as a test asks for them."""

    def __init__(self, count: int | None) -> None:
        self.clock = Clock()
        self.slots = Slots(count, turn_seconds=TURN, clock=self.clock)
        self.tasks: list[asyncio.Task[None]] = []
        self.begun: list[str] = []
        """Adapters in the order in which their answers began."""

    async def ask(self, adapter: str) -> "Asked":
        asked = Asked(self, adapter)
        self.tasks.append(asked.task)
        await settled()
        return asked


class Asked:
    """One answer that an adapter is asked for; it lasts until it is told to end."""

    def __init__(self, hall: Hall, adapter: str) -> None:
        self._hall = hall
        self._adapter = adapter
        self._over = asyncio.Event()
        self.begun = False
        self.task = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        async with self._hall.slots.hold(self._adapter):
            self.begun = True
            self._hall.begun.append(self._adapter)
            await self._over.wait()

    async def end(self) -> None:
        self._over.set()
        await settled()


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def hall(count: int | None) -> AsyncIterator[Hall]:
    on = Hall(count)
    try:
        yield on
    finally:
        for task in on.tasks:
            task.cancel()
        await asyncio.gather(*on.tasks, return_exceptions=True)


async def test_as_many_adapters_as_there_are_slots_wait_for_nobody() -> None:
    async with hall(2) as on:
        asked = [await on.ask(adapter) for adapter in ("a", "b", "a", "b")]
        on.clock.now += 10 * TURN
        asked += [await on.ask(adapter) for adapter in ("a", "b")]

        assert all(each.begun for each in asked)


async def test_where_the_slots_are_not_known_nobody_waits() -> None:
    async with hall(None) as on:
        asked = [await on.ask(f"a{number}") for number in range(50)]

        assert all(each.begun for each in asked)


async def test_one_more_adapter_begins_when_a_slot_is_free_and_those_first_that_came_first() -> None:
    async with hall(1) as on:
        first = await on.ask("a")
        waiting = [await on.ask(adapter) for adapter in ("b", "c", "b")]
        assert not any(each.begun for each in waiting)

        await first.end()

        # The second request for b shares the slot that the first one got.
        assert on.begun == ["a", "b", "b"]
        await waiting[0].end()
        assert not waiting[1].begun
        await waiting[2].end()
        assert waiting[1].begun


async def test_an_adapter_that_is_asked_without_a_pause_gives_way_after_its_turn() -> None:
    async with hall(1) as on:
        hot = await on.ask("hot")
        cold = await on.ask("cold")
        on.clock.now += TURN / 2
        second = await on.ask("hot")
        assert second.begun  # its turn is not over
        on.clock.now += TURN

        third = await on.ask("hot")
        await hot.end()
        assert not third.begun
        assert not cold.begun
        await second.end()

        assert cold.begun
        assert not third.begun
        await cold.end()
        assert third.begun


async def test_of_several_hot_adapters_as_many_give_way_as_others_wait_and_the_rest_goes_on() -> None:
    async with hall(3) as on:
        running = {adapter: await on.ask(adapter) for adapter in ("a", "b", "c")}
        on.clock.now += TURN
        cold = await on.ask("cold")

        again = {adapter: await on.ask(adapter) for adapter in ("a", "b", "c")}

        assert {adapter: asked.begun for adapter, asked in again.items()} == {
            "a": False,
            "b": True,
            "c": True,
        }
        await running["a"].end()
        assert cold.begun


async def test_an_answer_without_an_end_does_not_make_the_others_wait_for_it() -> None:
    async with hall(2) as on:
        await on.ask("endless")
        quick = await on.ask("quick")
        on.clock.now += TURN
        cold = await on.ask("cold")
        assert (await on.ask("quick")).begun  # the other one is to give way
        on.clock.now += TURN

        assert not (await on.ask("quick")).begun
        await quick.end()
        assert not cold.begun
        for task in on.tasks[3:4]:
            task.cancel()
        await settled()
        assert cold.begun


async def test_whoever_stops_waiting_takes_no_slot_and_keeps_nobody_from_one() -> None:
    async with hall(1) as on:
        first = await on.ask("a")
        on.clock.now += TURN
        gone, last = await on.ask("b"), await on.ask("c")
        held_back = await on.ask("a")
        assert not held_back.begun

        gone.task.cancel()
        await settled()
        await first.end()

        assert last.begun
        await last.end()
        assert held_back.begun


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_slot_that_was_given_to_somebody_who_goes_that_moment_is_free_again(moment: str) -> None:
    async with hall(1) as on:
        first = await on.ask("a")
        gone, last = await on.ask("b"), await on.ask("c")

        first._over.set()
        await asyncio.sleep(0)  # the slot is given; who it is given to has not gone on yet
        if moment == "after":
            gone.task.cancel()
        else:
            on.tasks[0].cancel()
            gone.task.cancel()
        await settled()

        assert last.begun


async def test_the_last_adapter_waiting_for_one_that_went_lets_the_hot_one_go_on() -> None:
    async with hall(1) as on:
        await on.ask("hot")
        on.clock.now += TURN
        cold = await on.ask("cold")
        held_back = await on.ask("hot")
        assert not held_back.begun

        cold.task.cancel()
        await settled()

        assert held_back.begun
