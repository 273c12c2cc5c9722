"""Services that stop, die, hang or share a home: every job still ends once."""

import asyncio
import os
import resource
import signal
import sqlite3
import sys
from asyncio.subprocess import Process as ServiceProcess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from psutil import Process

from service.registry import JobState
from service.runner.owners import Owner, Owners
from service.runner.processes import ProcessMark
from tests.service.registry_stage import WAIT_SECONDS, until
from tests.service.runner_stage import Stage, staged

Q, R, C = JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A home with nothing in it yet."""
    async with staged(tmp_path) as made:
        yield made


@asynccontextmanager
async def service(home: Path) -> AsyncIterator[ServiceProcess]:
    """A whole runner in another process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.service.runner_service", str(home)
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def gone(pid: int) -> bool:
    """Whether a process ends within the time of a test."""
    mark = ProcessMark.of(pid)
    return mark is None or await mark.gone(WAIT_SECONDS)


async def pause(process: ServiceProcess, stage: Stage) -> None:
    """Stop a service between two transactions: within one it would hold up every other writer."""
    with closing(sqlite3.connect(stage.home / "registry.db", timeout=0.5)) as database:
        while True:
            process.send_signal(signal.SIGSTOP)
            try:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
                return
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)


async def test_a_service_that_stops_puts_its_job_back_and_the_next_one_resumes_it(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), gate_step=3)
    async with stage.running() as runner:
        job = await stage.submit(max_steps=4)
        await stage.at_step(job, 2)
        pids = [await stage.trainer_pid(job), runner.trainer_pid]
    assert [await gone(pid) for pid in pids if pid is not None] == [True, True]
    stopped = await stage.registry.get_job(job.id)
    assert (stopped.state, stopped.owner, stopped.crashes) == (Q, None, 0)
    assert stage.work() == [job.id]
    assert list((stage.home / "owners").iterdir()) == []
    stage.gate.touch()
    async with stage.running():
        job = await stage.ended(job)
        await stage.check_gone()
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert "resumed" in {row.kind for row in await stage.events(job)}
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_service_that_stops_while_a_job_is_cancelling_ends_the_cancel(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), ignore_cancel=True)
    async with stage.running():
        job = await stage.submit()
        await stage.at_step(job, 1)
        await stage.registry.request_cancel(job.id)
    await stage.check_ended_once(job, JobState.CANCELLED)
    assert (stage.work(), stage.artifacts()) == ([], [])


@pytest.mark.parametrize("step", [1, 3])
async def test_a_service_killed_in_the_middle_leaves_no_trainer_and_the_job_ends_once(
    stage: Stage, step: int
) -> None:
    stage.plan(gate=str(stage.gate), gate_step=step)
    job = await stage.submit(max_steps=3)
    async with service(stage.home) as process:
        await stage.until(job, lambda row: row.state == R and row.last_sequence >= 3)
        if step > 1:
            await stage.at_step(job, step - 1)
        pid = await stage.trainer_pid(job)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await gone(pid)
    left = await stage.registry.get_job(job.id)
    assert left.state == R
    stage.gate.touch()
    async with stage.running():
        job = await stage.ended(job)
        await stage.check_gone()
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert job.epoch > left.epoch
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_service_killed_again_and_again_still_ends_every_job_once(stage: Stage) -> None:
    jobs = [await stage.submit(max_steps=30) for _ in range(2)]

    async def events() -> int:
        return sum(row.last_sequence for row in (await stage.registry.list_jobs()).rows)

    for _ in range(2):
        enough = await events() + 7
        async with service(stage.home):

            async def is_enough(enough: int = enough) -> bool:
                unfinished = await stage.registry.unfinished_job_ids()
                return not unfinished or await events() >= enough

            await until(stage.changes, "jobs", is_enough)
    async with stage.running():
        for job in jobs:
            assert (await stage.ended(job)).state == JobState.SUCCEEDED
        await stage.check_gone()
    for job in jobs:
        await stage.check_ended_once(job, JobState.SUCCEEDED)
    assert len(stage.artifacts()) == len(jobs)


async def test_a_service_killed_while_a_job_is_cancelling_leaves_it_to_the_next_to_end(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), ignore_cancel=True)
    job = await stage.submit()
    async with service(stage.home) as process:
        await stage.at_step(job, 1)
        pid = await stage.trainer_pid(job)
        await stage.registry.request_cancel(job.id)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await gone(pid)
    async with stage.running():
        job = await stage.ended(job)
    await stage.check_ended_once(job, JobState.CANCELLED)
    assert (stage.work(), stage.artifacts()) == ([], [])


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_service_that_ends_while_a_job_is_pausing_leaves_it_paused(stage: Stage, how: str) -> None:
    stage.plan(gate=str(stage.gate), gate_step=3, ignore_pause=True)
    job = await stage.submit(max_steps=4)
    if how == "stopped":
        async with stage.running():
            await stage.at_step(job, 2)
            await stage.registry.request_pause(job.id)
    else:
        async with service(stage.home) as process:
            await stage.at_step(job, 2)
            await stage.registry.request_pause(job.id)
            process.send_signal(signal.SIGKILL)
            await process.wait()
    stage.gate.touch()
    async with stage.running():
        job = await stage.until(job, lambda row: row.state == JobState.PAUSED)
        assert (job.owner, job.attempt) == (None, 1)
        await stage.registry.request_resume(job.id)
        job = await stage.ended(job)
        await stage.check_gone()
    assert [row.body.step for row in await stage.events(job) if row.kind == "resumed"] == [2]  # type: ignore[union-attr]
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_paused_job_outlasts_a_service_and_its_files_are_not_swept(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), gate_step=3)
    async with stage.running():
        job = await stage.submit(max_steps=4)
        await stage.at_step(job, 2)
        await stage.registry.request_pause(job.id)
        await stage.until(job, lambda row: row.state == JobState.PAUSED)
    stage.gate.touch()
    async with stage.running():
        await stage.run("other")
        assert (await stage.registry.get_job(job.id)).state == JobState.PAUSED
        assert job.id in stage.work()
        await stage.registry.request_resume(job.id)
        job = await stage.ended(job)
    assert [row.body.step for row in await stage.events(job) if row.kind == "resumed"] == [2]  # type: ignore[union-attr]
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_stopped_trainer_of_a_dead_service_is_killed_before_the_job_runs_again(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate))
    job = await stage.submit()
    async with service(stage.home) as process:
        await stage.at_step(job, 1)
        pid = await stage.trainer_pid(job)
        os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGSTOP)
        os.kill(Process(pid).ppid(), signal.SIGKILL)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert ProcessMark.of(pid) is not None
    stage.gate.touch()
    async with stage.running():
        job = await stage.ended(job)
        await stage.check_gone()
    assert await gone(pid)
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_paused_service_keeps_its_job_however_long_it_sleeps(stage: Stage) -> None:
    stage.plan("first", gate=str(stage.gate))
    async with service(stage.home) as process:
        first = await stage.submit("first")
        await stage.at_step(first, 1)
        await pause(process, stage)
        async with stage.running():
            second = await stage.run("second")
            assert (await stage.registry.get_job(first.id)).attempt == 1
            process.send_signal(signal.SIGCONT)
            stage.gate.touch()
            first = await stage.ended(first)
            await stage.check_gone()
    assert (first.attempt, second.attempt) == (1, 1)
    await stage.check_ended_once(first, JobState.SUCCEEDED)


async def test_an_owner_that_lost_its_job_kills_its_trainer_and_publishes_nothing(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate))
    async with stage.running():
        job = await stage.submit()
        running = await stage.at_step(job, 1)
        pid = await stage.trainer_pid(job)
        await stage.registry.requeue_job(job.id, running.epoch)
        assert await gone(pid)
        stage.gate.touch()
        job = await stage.ended(job)
        await stage.check_gone()
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_two_services_in_one_home_run_each_job_once(stage: Stage) -> None:
    jobs = [await stage.submit() for _ in range(12)]
    async with stage.running(), stage.running(), service(stage.home):
        for job in jobs:
            assert (await stage.ended(job)).attempt == 1
        await stage.check_gone()
    for job in jobs:
        await stage.check_ended_once(job, JobState.SUCCEEDED)
    numbers = [row.number for row in (await stage.registry.list_versions("support")).rows]
    assert numbers == list(range(12, 0, -1))


async def test_a_job_that_every_service_dies_with_before_a_checkpoint_is_given_up(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), gate_step=1)
    job = await stage.submit()
    for attempt in (1, 2, 3):
        async with service(stage.home) as process:
            await stage.until(job, lambda row, at=attempt: row.state == R and row.attempt == at)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            await process.wait()
    async with stage.running():
        job = await stage.ended(job)
    assert (job.state, job.failure_reason, job.attempt) == (JobState.FAILED, "SERVICE_DIED", 3)
    await stage.check_ended_once(job, JobState.FAILED)


async def test_a_service_that_may_open_no_file_for_a_while_lives_on_and_blames_no_job(stage: Stage) -> None:
    async with service(stage.home) as process:
        await stage.run("first")
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        job = await stage.submit()
        # Claimed without a trainer, found so by a rescue, and claimed again: every loop went on.
        await stage.until(job, lambda row: row.attempt >= 2)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        job = await stage.ended(job)
        await stage.check_gone()
    assert job.crashes == 0
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_an_owner_without_a_lock_here_is_gone_when_its_heartbeat_stands_still(stage: Stage) -> None:
    job = await stage.submit()
    await stage.registry.claim_next_job("elsewhere")
    async with stage.running():
        job = await stage.ended(job)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)


async def test_what_nobody_needs_is_swept_at_the_start_and_nothing_else(stage: Stage) -> None:
    async with stage.running():
        kept = await stage.run()
        await stage.check_gone()
    cancelled = await stage.submit("other")
    orphan = stage.leave_artifact(cancelled)
    await stage.registry.request_cancel(cancelled.id)
    (stage.settings.artifacts_dir / "half").mkdir()
    (stage.settings.artifacts_dir / "half" / "adapter_model.safetensors").touch()
    (stage.settings.work_dir / "unknown").mkdir()
    (stage.home / "owners" / "dead.lock").touch()
    assert stage.work() == [cancelled.id, "unknown"]
    async with stage.running() as runner:
        await runner.ready()
        await stage.run("third")
        await stage.check_gone()
        assert [path.name for path in (stage.home / "owners").iterdir()] != ["dead.lock"]
    assert not orphan.exists()
    digests = {(await stage.registry.get_version(name, 1)).digest for name in (kept.adapter_id, "third")}
    assert (stage.work(), set(stage.artifacts())) == ([], digests)


async def test_an_owner_is_gone_as_soon_as_its_lock_is(stage: Stage, tmp_path: Path) -> None:
    directory = tmp_path / "owners"
    await stage.submit()
    job = await stage.registry.claim_next_job("me")
    assert job is not None
    owners = Owners(directory, gone_seconds=1_000)
    scratch = tmp_path / "hotlora-scratch"
    scratch.mkdir()
    owner = Owner(directory, "me", scratch)
    with pytest.raises(BlockingIOError):
        Owner(directory, "me", scratch)
    assert not owners.gone(job)
    owners.forget(set())
    assert scratch.is_dir()
    lock = (directory / "me.lock").read_bytes()
    owner.release()
    assert not scratch.exists()
    scratch.mkdir()
    (directory / "me.lock").write_bytes(lock)
    assert owners.gone(job)
    owners.forget({"me"})
    assert owners.gone(job)
    owners.forget(set())
    assert list(directory.iterdir()) == []
    assert not scratch.exists()
