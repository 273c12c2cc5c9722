"""Waiting for changes: no wake-up is lost, none is needed to time out."""

import asyncio

from service.changes import Changes


async def test_a_change_between_look_and_wait_is_not_lost() -> None:
    changes = Changes()
    seen = changes.seen("jobs")
    changes.notify("jobs")
    async with asyncio.timeout(10):
        assert await changes.wait("jobs", seen, 60) != seen


async def test_all_who_wait_for_a_topic_wake_and_the_others_sleep() -> None:
    changes = Changes()
    waiting = [asyncio.create_task(changes.wait("a", 0, 20)) for _ in range(3)]
    other = asyncio.create_task(changes.wait("b", 0, 20))
    await asyncio.sleep(0)
    changes.notify("a")
    assert len(set(await asyncio.gather(*waiting))) == 1
    assert not other.done()
    changes.notify("b")
    await other


async def test_a_wait_ends_by_itself_with_what_was_seen() -> None:
    changes = Changes()
    changes.notify("a")
    seen = changes.seen("a")
    assert await changes.wait("a", seen, 0.01) == seen


async def test_forgotten_topics_wake_rather_than_sleep() -> None:
    changes = Changes()
    seen = changes.seen("job/old")
    changes.notify("job/old")
    for number in range(10_000):
        changes.notify(f"job/{number}")
    async with asyncio.timeout(10):
        assert await changes.wait("job/old", seen, 60) != seen
