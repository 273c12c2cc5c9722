"""The registry keeps jobs: one row a request, one owner a job, one ending, events without gaps."""

import asyncio
import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from service.changes import Changes
from service.errors import AlreadyExists, Conflict, Exhausted, InvalidRequest, NotFound, WrongState
from service.registry import JobState, Registry, StateChanged
from tests.service.registry_stage import metrics, new_job, numbered, open_registry, published
from trainer import events


async def test_a_created_job_comes_back_as_it_was_asked_for(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        created = await registry.create_job(new_job(request_id="r-1"))
        assert created == await registry.get_job(created.id)
        assert created.state == JobState.QUEUED
        assert created.request_id == "r-1"
        assert created.hyperparameters == new_job().hyperparameters
        assert (created.attempt, created.epoch, created.last_sequence) == (0, 0, 1)
        assert (await registry.get_adapter("support")).latest_version == 0


async def test_the_same_request_again_gives_the_same_job_and_another_body_is_refused(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        first = await registry.create_job(new_job(request_id="r", digest="one"))
        assert await registry.create_job(new_job(request_id="r", digest="one")) == first
        with pytest.raises(AlreadyExists) as refused:
            await registry.create_job(new_job(request_id="r", digest="two"))
        assert refused.value.reason == "REQUEST_ID_USED"
    async with open_registry(tmp_path) as reopened:
        assert await reopened.create_job(new_job(request_id="r", digest="one")) == first


async def test_the_same_request_from_many_callers_at_once_makes_one_job(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as one, open_registry(tmp_path, ids=numbered("other")) as two:
        request = new_job(request_id="r")
        made = await asyncio.gather(*(registry.create_job(request) for registry in (one, two) * 5))
        assert len({job.id for job in made}) == 1
        assert len((await one.list_jobs()).rows) == 1


async def test_requests_without_an_id_make_a_job_each(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        assert (await registry.create_job(new_job())).id != (await registry.create_job(new_job())).id


async def test_a_full_queue_refuses_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with open_registry(tmp_path, max_queued_jobs=2) as registry:
        first = await registry.create_job(new_job(request_id="r"))
        await registry.create_job(new_job())
        with pytest.raises(Exhausted) as refused:
            await registry.create_job(new_job())
        assert refused.value.reason == "QUEUE_FULL"
        assert refused.value.retry_seconds
        assert (await registry.create_job(new_job(request_id="r"))).id == first.id
        await registry.claim_next_job("me")
        await registry.create_job(new_job())


async def test_a_job_needs_a_dataset_and_a_free_name_on_the_same_base(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        with pytest.raises(NotFound):
            await registry.create_job(new_job(dataset_id="none"))
        await registry.create_job(new_job())
        with pytest.raises(AlreadyExists) as refused:
            await registry.create_job(new_job(base_model="another"))
        assert refused.value.reason == "OTHER_BASE_MODEL"
        with pytest.raises(NotFound):
            await registry.get_adapter("another")


async def test_jobs_are_claimed_oldest_first_and_each_claim_raises_attempt_and_epoch(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        first, second = [await registry.create_job(new_job()) for _ in range(2)]
        claimed = await registry.claim_next_job("me")
        assert claimed is not None
        assert (claimed.id, claimed.state, claimed.owner) == (first.id, JobState.RUNNING, "me")
        assert (claimed.attempt, claimed.epoch) == (1, 1)
        again = await registry.requeue_job(first.id, 1, crash=("TRAINER_CRASHED", "It died."))
        assert (again.state, again.crashes, again.owner) == (JobState.QUEUED, 1, None)
        reclaimed = await registry.claim_next_job("you")
        assert reclaimed is not None
        assert (reclaimed.id, reclaimed.attempt) == (first.id, 2)
        assert reclaimed.epoch > again.epoch > 1
        assert reclaimed.start_time == claimed.start_time
        last = await registry.claim_next_job("me")
        assert last is not None
        assert last.id == second.id
        assert await registry.claim_next_job("me") is None


async def test_two_services_on_one_database_claim_every_job_exactly_once(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as one, open_registry(tmp_path) as two:
        made = [(await one.create_job(new_job())).id for _ in range(40)]
        claimed: Counter[str] = Counter()

        async def work(owner: str) -> None:
            registry = one if owner.startswith("one") else two
            while (job := await registry.claim_next_job(owner)) is not None:
                claimed[job.id] += 1

        await asyncio.gather(*(work(owner) for owner in ("one-a", "one-b", "two-a", "two-b")))
        assert claimed == Counter(made)


async def test_events_are_numbered_from_one_without_gaps_whoever_writes(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
        await registry.claim_next_job("me")
        await asyncio.gather(
            *(registry.append_event(job.id, 1, metrics(step)) for step in range(1, 21)),
            registry.request_cancel(job.id),
        )
        await registry.cancel_job(job.id, 1)
        rows = await registry.events_after(job.id, 0)
        assert [row.sequence for row in rows] == list(range(1, 25))
        assert (await registry.get_job(job.id)).last_sequence == 24
        states = [row.body.state for row in rows if isinstance(row.body, StateChanged)]
        assert states == [JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING, JobState.CANCELLED]
        assert {row.kind for row in rows} == {"state_changed", "metrics"}


async def test_a_cursor_gives_what_came_after_it_and_nothing_twice(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
        await registry.claim_next_job("me")
        for step in range(1, 6):
            await registry.append_event(job.id, 1, metrics(step))
        read, cursor = [], 0
        while page := await registry.events_after(job.id, cursor, limit=2):
            read += page
            cursor = page[-1].sequence
        assert read == await registry.events_after(job.id, 0)
        assert await registry.events_after(job.id, 1_000) == []
        with pytest.raises(NotFound):
            await registry.events_after("none", 0)


async def test_events_fill_in_the_times_and_latest_metrics_of_the_job(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
        await registry.claim_next_job("me")
        for event in (
            events.Loading(time=10.0, pid=1),
            events.FirstForward(time=11.0),
            events.FirstStep(time=12.0, step=1),
            metrics(1),
            metrics(2),
            events.FirstForward(time=99.0),
        ):
            await registry.append_event(job.id, 1, event)
        present = await registry.get_job(job.id)
        assert (present.first_forward_time, present.first_step_time) == (11.0, 12.0)
        assert present.latest_metrics == metrics(2)


def fit(step: int, verdict: events.Verdict) -> events.Fit:
    """A verdict whose best step is 2."""
    return events.Fit(
        time=float(step),
        verdict=verdict,
        step=step,
        since_step=None,
        best_step=2,
        start_loss=2.0,
        train_loss=1.0,
        eval_loss=1.0,
        best_eval_loss=0.9,
        stopped_early=False,
        sentence="It fits.",
    )


async def test_a_job_keeps_its_latest_verdict_and_its_best_step(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
        assert (job.fit, job.best_step) == (None, 0)
        await registry.claim_next_job("me")
        evaluation = events.Evaluation(time=1.0, step=1, eval_loss=1.5, rows=2, best_step=1)
        await registry.append_event(job.id, 1, evaluation)
        assert (await registry.get_job(job.id)).best_step == 1
        for told in (fit(3, events.Verdict.OVERFITTING), fit(4, events.Verdict.GOOD_FIT)):
            await registry.append_event(job.id, 1, told)
        present = await registry.get_job(job.id)
        assert (present.fit, present.best_step) == (fit(4, events.Verdict.GOOD_FIT), 2)
        assert (await registry.events_after(job.id, 4))[0].body == fit(4, events.Verdict.GOOD_FIT)


async def test_a_job_of_the_first_release_is_still_read(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
    database = sqlite3.connect(tmp_path / "registry.db")
    old = json.loads(database.execute("SELECT hyperparameters FROM jobs").fetchone()[0])
    for name in ("early_stopping_patience", "early_stopping_metric"):
        del old[name]
    database.execute("UPDATE jobs SET hyperparameters = ?", (json.dumps(old),))
    database.commit()
    database.close()
    async with open_registry(tmp_path) as registry:
        assert await registry.get_job(job.id) == job


async def test_success_makes_the_next_version_in_the_same_transaction(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        for number in (1, 2):
            job = await registry.create_job(new_job())
            await registry.claim_next_job("me")
            version = await registry.succeed_job(job.id, 1, published(str(number) * 64))
            assert (version.number, version.model) == (number, f"support@{number}")
            ended = await registry.get_job(job.id)
            assert (ended.state, ended.version_number) == (JobState.SUCCEEDED, number)
            assert ended.owner is None
            kinds = [row.kind for row in await registry.events_after(job.id, 2)]
            assert kinds == ["published", "state_changed"]
        assert await registry.registered_digests() == {"1" * 64, "2" * 64}


async def test_an_owner_that_was_replaced_can_write_nothing_more(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
        await registry.claim_next_job("old")
        await registry.requeue_job(job.id, 1)
        new = await registry.claim_next_job("new")
        assert new is not None
        for write in (
            registry.append_event(job.id, 1, metrics(1)),
            registry.heartbeat(job.id, "old", 1),
            registry.succeed_job(job.id, 1, published()),
            registry.fail_job(job.id, 1, "INTERNAL", "no"),
            registry.requeue_job(job.id, 1),
        ):
            with pytest.raises(Conflict):
                await write
        with pytest.raises(WrongState):
            await registry.heartbeat(job.id, "stranger", new.epoch)
        assert await registry.get_job(job.id) == new
        await registry.succeed_job(job.id, new.epoch, published())
        assert len((await registry.list_versions("support")).rows) == 1


async def test_a_heartbeat_is_kept_and_shows_the_owner_a_cancel(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        job = await registry.create_job(new_job())
        claimed = await registry.claim_next_job("me")
        assert claimed is not None
        await registry.request_cancel(job.id)
        seen = await registry.heartbeat(job.id, "me", claimed.epoch)
        assert seen.state == JobState.CANCELLING
        assert (seen.heartbeat_time or 0) > (claimed.heartbeat_time or 0)


async def test_cancel_does_what_each_state_allows(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        queued = await registry.create_job(new_job())
        cancelled = await registry.request_cancel(queued.id)
        assert cancelled.state == JobState.CANCELLED
        assert cancelled.end_time is not None
        assert await registry.request_cancel(queued.id) == cancelled
        assert await registry.claim_next_job("me") is None

        running = await registry.create_job(new_job())
        await registry.claim_next_job("me")
        asked = await registry.request_cancel(running.id)
        assert asked.state == JobState.CANCELLING
        assert await registry.request_cancel(running.id) == asked
        await registry.succeed_job(running.id, 1, published())
        with pytest.raises(WrongState) as refused:
            await registry.request_cancel(running.id)
        assert refused.value.state == JobState.SUCCEEDED
        assert JobState.RUNNING in refused.value.allowed
        assert "SUCCEEDED" in refused.value.message
        assert "RUNNING" in refused.value.message
        with pytest.raises(NotFound):
            await registry.request_cancel("none")


async def cancel(registry: Registry, job_id: str) -> JobState | None:
    """The state after a cancel; None where it was refused."""
    try:
        return (await registry.request_cancel(job_id)).state
    except WrongState:
        return None


async def test_cancel_and_success_at_once_give_one_ending(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as one, open_registry(tmp_path) as two:
        for _ in range(10):
            job = await one.create_job(new_job())
            claimed = await one.claim_next_job("me")
            assert claimed is not None
            _, cancelled = await asyncio.gather(
                one.succeed_job(job.id, claimed.epoch, published()), cancel(two, job.id)
            )
            assert cancelled in (None, JobState.CANCELLING)
            assert (await two.get_job(job.id)).state == JobState.SUCCEEDED
            ends = [row for row in await one.events_after(job.id, 0) if row.kind == "published"]
            assert len(ends) == 1


async def test_lists_are_paged_newest_first_with_filters(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        made = [(await registry.create_job(new_job(adapter_id=f"a{n % 2}"))).id for n in range(7)]
        await registry.request_cancel(made[0])
        pages, cursor = [], ""
        while True:
            page = await registry.list_jobs(limit=3, cursor=cursor)
            pages.append([job.id for job in page.rows])
            cursor = page.next_cursor
            if not cursor:
                break
        assert pages == [made[:3:-1], made[3:0:-1], made[:1]]
        odd = await registry.list_jobs(adapter_id="a1")
        assert [job.id for job in odd.rows] == made[5::-2]
        cancelled = await registry.list_jobs(states=[JobState.CANCELLED])
        assert [job.id for job in cancelled.rows] == [made[0]]
        assert await registry.unfinished_job_ids() == frozenset(made[1:])


@pytest.mark.parametrize("cursor", ["x", "WzEsMl0", "é", "[]", "A" * 256, "bnVsbA", "W1td"])
async def test_a_cursor_that_is_not_ours_is_refused_by_field(tmp_path: Path, cursor: str) -> None:
    async with open_registry(tmp_path) as registry:
        for listing in (
            registry.list_jobs(cursor=cursor),
            registry.list_datasets(cursor=cursor),
            registry.list_adapters(cursor=cursor),
        ):
            with pytest.raises(InvalidRequest) as refused:
                await listing
            assert [each.field for each in refused.value.violations] == ["page_token"]


async def test_a_cursor_of_another_list_or_other_filters_is_refused(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        for _ in range(3):
            await registry.create_job(new_job())
        cursor = (await registry.list_jobs(limit=1)).next_cursor
        assert (await registry.list_jobs(limit=1, cursor=cursor)).rows
        with pytest.raises(InvalidRequest):
            await registry.list_jobs(limit=1, cursor=cursor, states=[JobState.QUEUED])
        with pytest.raises(InvalidRequest):
            await registry.list_datasets(cursor=cursor)


async def test_every_write_wakes_those_who_wait_for_the_job(tmp_path: Path) -> None:
    changes = Changes()
    async with open_registry(tmp_path, changes=changes) as registry:
        seen = changes.seen("jobs")
        job = await registry.create_job(new_job())
        assert await changes.wait("jobs", seen, 0) != seen
        await registry.claim_next_job("me")
        seen = changes.seen(f"job/{job.id}")
        waiting = asyncio.create_task(changes.wait(f"job/{job.id}", seen, 20))
        await registry.append_event(job.id, 1, metrics(1))
        assert await waiting != seen
