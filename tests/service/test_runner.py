"""The runner brings every job to one ending, whatever its trainer does."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import aiosqlite
import pytest
from structlog.testing import capture_logs

from service.errors import WrongState
from service.machine import memory_kills
from service.registry import JobRow, JobState, StateChanged, VersionState
from service.runner.forkserver import ForkServer
from service.runner.processes import ProcessMark
from tests.service.registry_stage import new_job, until
from tests.service.runner_stage import LIMITS, Stage, staged
from trainer.config import JobFile, StartVersion

Q, R, C = JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A home with nothing in it yet."""
    async with staged(tmp_path) as made:
        yield made


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return ProcessMark.of(pid) is not None


async def test_a_job_is_trained_and_becomes_a_pending_version(stage: Stage) -> None:
    async with stage.running():
        job = await stage.run(max_steps=3)
        await stage.check_gone()
    assert (job.state, job.attempt, job.version_number) == (JobState.SUCCEEDED, 1, 1)
    await stage.check_ended_once(job, JobState.SUCCEEDED)
    version = await stage.registry.get_version("support", 1)
    assert (version.state, version.rank, version.job_id) == (VersionState.PENDING, 4, job.id)
    artifact = stage.settings.artifacts_dir / version.digest
    assert version.size_bytes == sum(file.stat().st_size for file in artifact.iterdir())
    kinds = [row.kind for row in await stage.events(job)]
    assert kinds[:4] == ["state_changed", "state_changed", "loading", "first_forward"]
    assert kinds[-3:] == ["saving", "published", "state_changed"]
    assert job.first_forward_time is not None
    assert job.latest_metrics is not None
    assert job.latest_metrics.step == 3


async def test_a_crashed_trainer_is_followed_by_one_that_resumes(stage: Stage) -> None:
    stage.plan(crash_at_step=3, crash_attempts=1)
    async with stage.running():
        job = await stage.run(max_steps=4)
    assert (job.state, job.attempt, job.crashes) == (JobState.SUCCEEDED, 2, 1)
    await stage.check_ended_once(job, JobState.SUCCEEDED)
    rows = await stage.events(job)
    assert [row.body.step for row in rows if row.kind == "resumed"] == [2]  # type: ignore[union-attr]
    changes = [row.body for row in rows if isinstance(row.body, StateChanged)]
    assert [change.state for change in changes] == [Q, R, Q, R, JobState.SUCCEEDED]
    assert changes[2].reason == "TRAINER_CRASHED"
    assert "signal 9" in (changes[2].message or "")


async def test_the_log_names_each_job_that_ends_and_the_version_that_it_made(stage: Stage) -> None:
    stage.plan("poison", fail_at_step=1)
    with capture_logs() as said:
        async with stage.running():
            jobs = [await stage.run("good"), await stage.run("poison")]
    told = {entry["job"]: entry for entry in said if entry["event"] in {"job succeeded", "job failed"}}
    assert [told[job.id]["event"] for job in jobs] == ["job succeeded", "job failed"]
    assert told[jobs[0].id]["model"] == "good@1"


async def test_a_job_may_be_killed_any_number_of_times_as_long_as_it_gets_on(stage: Stage) -> None:
    stage.plan(crash_after_saving=True)
    async with stage.running():
        job = await stage.run(max_steps=10)
    assert (job.state, job.attempt, job.crashes) == (JobState.SUCCEEDED, 4, 1)
    rows = await stage.events(job)
    assert [row.body.step for row in rows if row.kind == "resumed"] == [3, 6, 9]  # type: ignore[union-attr]
    await stage.check_ended_once(job, JobState.SUCCEEDED)


@pytest.mark.parametrize(
    "fault",
    [
        {"crash_at_step": 1},
        {"crash_before_connecting": True},
        {"nonsense_at_step": 2},
        {"endless_line_at_step": 2},
        {"stop_at_step": 2},
        {"lie": True},
    ],
    ids=lambda fault: next(iter(fault)),
)
async def test_a_job_that_always_breaks_its_trainer_fails_and_the_queue_moves_on(
    stage: Stage, fault: dict[str, object]
) -> None:
    stage.plan("poison", **fault)
    async with stage.running():
        poison, good = await stage.submit("poison"), await stage.submit("good")
        poison, good = await stage.ended(poison), await stage.ended(good)
    assert (poison.state, poison.failure_reason) == (JobState.FAILED, "TRAINER_CRASHED")
    assert (poison.attempt, good.attempt) == (3, 1)
    assert poison.failure_message
    await stage.check_ended_once(poison, JobState.FAILED)
    await stage.check_ended_once(good, JobState.SUCCEEDED)


async def test_a_trainer_that_says_nothing_for_long_is_killed_and_the_job_fails_as_hung(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path, limits=replace(LIMITS, silence_seconds=0.3)) as stage:
        stage.plan(hang_at_step=2)
        async with stage.running():
            job = await stage.run()
            pid = await stage.trainer_pid(job)
            assert not alive(pid)
        assert (job.state, job.failure_reason, job.attempt) == (JobState.FAILED, "TRAINER_HUNG", 3)
        await stage.check_ended_once(job, JobState.FAILED)


async def test_a_fork_server_that_still_loads_a_base_is_waited_for(tmp_path: Path) -> None:
    lines = [{"loading": True}, {"loading": True}, {"ready": True}]
    said = "\n".join(map(json.dumps, lines))
    script = f"import sys; print({said!r}, flush=True); sys.stdin.read()"
    server = ForkServer(command=(sys.executable, "-c", script), log_path=tmp_path / "log", limits=LIMITS)
    async with asyncio.TaskGroup() as tasks:
        life = tasks.create_task(server.run())
        await server.ready()
        life.cancel()


async def test_a_trainer_that_the_kernel_kills_for_memory_is_not_tried_again(stage: Stage) -> None:
    stage.plan(crash_at_step=2)
    stage.memory_kills = count().__next__
    async with stage.running():
        job = await stage.run()
    assert (job.state, job.failure_reason, job.attempt) == (JobState.FAILED, "OUT_OF_MEMORY", 1)
    assert "of which step 1 took 0.0 GiB" in (job.failure_message or "")
    await stage.check_ended_once(job, JobState.FAILED)


def test_the_kernels_count_of_what_it_killed_for_memory_is_read_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\nhigh 3\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n")
    (tmp_path / "vmstat").write_text("oom_kill 7\n")
    group, machine = tmp_path / "memory.events", tmp_path / "vmstat"
    assert memory_kills([group, machine]) == 1
    assert memory_kills([tmp_path / "absent", machine]) == 7
    assert memory_kills([tmp_path / "absent"]) == 0


async def test_a_failure_that_the_trainer_explains_is_final(stage: Stage) -> None:
    stage.plan(fail_at_step=2)
    async with stage.running():
        job = await stage.run()
    assert (job.state, job.failure_reason, job.attempt) == (JobState.FAILED, "NAN_LOSS", 1)
    assert job.failure_message == "The loss is not a number."
    await stage.check_ended_once(job, JobState.FAILED)


async def test_a_queued_job_that_is_cancelled_never_begins(stage: Stage) -> None:
    stage.plan("first", gate=str(stage.gate))
    async with stage.running():
        first = await stage.submit("first")
        await stage.at_step(first, 1)
        second = await stage.submit("second")
        await stage.registry.request_cancel(second.id)
        stage.gate.touch()
        third = await stage.run("third")
    assert third.state == JobState.SUCCEEDED
    assert await stage.states(second) == [Q, JobState.CANCELLED]
    await stage.check_ended_once(second, JobState.CANCELLED)


async def test_a_running_job_that_is_cancelled_leaves_nothing_behind(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate))
    async with stage.running():
        job = await stage.submit()
        await stage.at_step(job, 1)
        pid = await stage.trainer_pid(job)
        asked = await stage.registry.request_cancel(job.id)
        assert asked.state == C
        job = await stage.ended(job)
        assert not alive(pid)
    assert await stage.states(job) == [Q, R, C, JobState.CANCELLED]
    await stage.check_ended_once(job, JobState.CANCELLED)
    assert (stage.work(), stage.artifacts()) == ([], [])


@pytest.mark.parametrize("stubborn", ["deaf", "stopped"])
async def test_a_trainer_that_does_not_obey_a_cancel_is_killed(stage: Stage, stubborn: str) -> None:
    stage.plan(gate=str(stage.gate), ignore_cancel=stubborn == "deaf")
    async with stage.running():
        job = await stage.submit()
        await stage.at_step(job, 1)
        pid = await stage.trainer_pid(job)
        if stubborn == "stopped":
            os.kill(pid, signal.SIGSTOP)
        await stage.registry.request_cancel(job.id)
        job = await stage.ended(job)
        assert not alive(pid)
    await stage.check_ended_once(job, JobState.CANCELLED)
    assert (stage.work(), stage.artifacts()) == ([], [])


async def test_a_cancel_that_comes_too_late_reports_the_success(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), publish_when_cancelled=True)
    async with stage.running():
        job = await stage.submit()
        await stage.at_step(job, 1)
        await stage.registry.request_cancel(job.id)
        job = await stage.ended(job)
    assert await stage.states(job) == [Q, R, C, JobState.SUCCEEDED]
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_what_a_cancelled_job_published_in_the_race_is_removed(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), publish_when_cancelled=True, die_after_publishing=True)
    async with stage.running():
        job = await stage.submit()
        await stage.at_step(job, 1)
        await stage.registry.request_cancel(job.id)
        job = await stage.ended(job)
    await stage.check_ended_once(job, JobState.CANCELLED)
    assert (stage.work(), stage.artifacts()) == ([], [])


async def test_a_cancel_at_any_event_gives_one_ending_with_the_files_that_fit(stage: Stage) -> None:
    async with stage.running():
        whole = await stage.run("whole", max_steps=2)
        ends = set()
        for sequence in range(2, whole.last_sequence + 1):
            job = await stage.submit(max_steps=2)
            await stage.until(job, lambda row, at=sequence: row.last_sequence >= at)  # type: ignore[misc]
            try:
                await stage.registry.request_cancel(job.id)
            except Exception as refused:
                assert getattr(refused, "state", "") == JobState.SUCCEEDED
            job = await stage.ended(job)
            await stage.check_gone()
            ends.add(job.state)
            await stage.check_ended_once(job, job.state)
        assert JobState.FAILED not in ends
        assert JobState.SUCCEEDED in ends
    assert len(stage.artifacts()) == len(await stage.registry.registered_digests())


async def test_a_trainer_that_dies_between_publishing_and_saying_so_has_succeeded(stage: Stage) -> None:
    stage.plan(die_after_publishing=True)
    async with stage.running():
        job = await stage.run()
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_damaged_artifact_that_nobody_announced_is_not_adopted_but_replaced(stage: Stage) -> None:
    job = await stage.submit()
    left = stage.leave_artifact(job)
    weights = left / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    async with stage.running():
        job = await stage.ended(job)
        await stage.check_gone()
    assert stage.artifacts() == [(await stage.registry.get_version("support", 1)).digest]
    assert not left.exists()
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_whole_artifact_that_nobody_announced_is_adopted_without_training_again(stage: Stage) -> None:
    stage.plan(crash_at_step=1)
    job = await stage.submit()
    left = stage.leave_artifact(job)
    async with stage.running():
        job = await stage.ended(job)
    assert (job.state, job.crashes) == (JobState.SUCCEEDED, 0)
    assert "loading" not in {row.kind for row in await stage.events(job)}
    version = await stage.registry.get_version("support", 1)
    assert version.digest == left.name
    assert version.size_bytes == sum(file.stat().st_size for file in left.iterdir())
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_killed_fork_server_is_replaced_and_the_running_job_goes_on(stage: Stage) -> None:
    stage.plan("first", gate=str(stage.gate))
    async with stage.running() as runner:
        first = await stage.submit("first")
        await stage.at_step(first, 1)
        old = runner.trainer_pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        stage.gate.touch()
        first = await stage.ended(first)
        second = await stage.run("second")
        assert runner.trainer_pid not in (None, old)
    assert (first.attempt, second.attempt) == (1, 1)
    await stage.check_ended_once(first, JobState.SUCCEEDED)
    await stage.check_ended_once(second, JobState.SUCCEEDED)


async def test_a_job_of_a_base_that_is_not_there_waits_and_holds_up_nobody(stage: Stage) -> None:
    waiting = await stage.registry.create_job(new_job(adapter_id="waiting", base_model="another"))
    async with stage.running():
        assert (await stage.run()).state == JobState.SUCCEEDED
    assert (await stage.registry.get_job(waiting.id)).state == JobState.QUEUED


async def test_a_trainer_is_told_which_base_its_job_is_for(stage: Stage) -> None:
    for adapter, base in (("support", stage.base_model), ("second", stage.other_base)):
        stage.plan(adapter, gate=str(stage.gate))
        async with stage.running():
            job = await stage.registry.create_job(new_job(adapter_id=adapter, base_model=base.name))
            await stage.at_step(job, 1)
            (path,) = (stage.settings.work_dir / job.id).glob("job-*.json")
            told = JobFile.read(path).base_model
            stage.gate.touch()
            await stage.ended(job)
        stage.gate.unlink()
        assert told == base


async def test_two_jobs_run_at_once_where_two_are_allowed(tmp_path: Path) -> None:
    async with staged(tmp_path, max_running_jobs=2) as stage:
        stage.plan(gate=str(stage.gate))
        async with stage.running():
            one, two = await stage.submit(), await stage.submit()
            await stage.at_step(one, 1)
            await stage.at_step(two, 1)
            stage.gate.touch()
            await stage.ended(one)
            await stage.ended(two)
        assert [row.number for row in (await stage.registry.list_versions("support")).rows] == [2, 1]


async def test_nothing_begins_while_the_disk_is_nearly_full(tmp_path: Path) -> None:
    async with staged(tmp_path, min_free_disk_bytes=1 << 60) as stage:
        job = await stage.submit()
        with capture_logs() as said:
            async with stage.running():
                await stage.until(job, lambda _: "nearly full" in str(said))
                assert (await stage.registry.get_job(job.id)).state == Q
        async with staged(tmp_path) as roomy, roomy.running():
            assert (await roomy.ended(job)).state == JobState.SUCCEEDED


async def test_the_trainer_is_not_told_the_settings_of_the_service(stage: Stage) -> None:
    os.environ["HOTLORA_ENGINE_API_KEY"] = "secret"
    try:
        async with stage.running() as runner:
            await runner.ready()
            environment = Path(f"/proc/{runner.trainer_pid}/environ").read_bytes()
    finally:
        del os.environ["HOTLORA_ENGINE_API_KEY"]
    assert b"HOTLORA" not in environment
    assert b"PATH=" in environment


def test_a_process_is_known_by_its_start_and_no_other_is_killed(tmp_path: Path) -> None:
    mine = ProcessMark.of(os.getpid())
    assert mine is not None
    assert mine.alive()
    mine.write(tmp_path / "mark")
    assert ProcessMark.read(tmp_path / "mark") == mine
    reused = replace(mine, start_ticks=mine.start_ticks - 1)
    assert not reused.alive()
    reused.kill_group()
    (tmp_path / "mark").write_text(json.dumps({"pid": 1}))
    assert ProcessMark.read(tmp_path / "mark") is None
    assert ProcessMark.read(tmp_path / "none") is None


P, PAUSING = JobState.PAUSED, JobState.PAUSING


async def paused(stage: Stage, job: JobRow) -> JobRow:
    """Wait until a job is paused."""
    return await stage.until(job, lambda row: row.state == P)


async def test_a_paused_job_frees_its_worker_and_goes_on_where_it_stood(stage: Stage) -> None:
    stage.plan("first", gate=str(stage.gate), gate_step=3)
    async with stage.running():
        first = await stage.submit("first", max_steps=5)
        await stage.at_step(first, 2)
        pid = await stage.trainer_pid(first)
        assert (await stage.registry.request_pause(first.id)).state == PAUSING
        first = await paused(stage, first)
        assert (first.owner, first.crashes, first.end_time) == (None, 0, None)
        assert not alive(pid)
        assert stage.work() == [first.id]
        second = await stage.run("second")
        assert second.state == JobState.SUCCEEDED
        assert (await stage.registry.get_job(first.id)).state == P
        stage.gate.touch()
        assert (await stage.registry.request_resume(first.id)).state == Q
        first = await stage.ended(first)
        await stage.check_gone()
    assert await stage.states(first) == [Q, R, PAUSING, P, Q, R, JobState.SUCCEEDED]
    rows = await stage.events(first)
    assert [row.body.step for row in rows if row.kind == "resumed"] == [2]  # type: ignore[union-attr]
    assert [row.body.step for row in rows if row.kind == "metrics"] == [1, 2, 3, 4, 5]  # type: ignore[union-attr]
    await stage.check_ended_once(first, JobState.SUCCEEDED)


async def test_a_queued_job_that_is_paused_does_not_begin_until_it_is_resumed(stage: Stage) -> None:
    job = await stage.submit()
    assert (await stage.registry.request_pause(job.id)).state == P
    async with stage.running():
        await stage.run("other")
        assert (await stage.registry.get_job(job.id)).attempt == 0
        await stage.registry.request_resume(job.id)
        job = await stage.ended(job)
    assert await stage.states(job) == [Q, P, Q, R, JobState.SUCCEEDED]


async def test_a_trainer_that_dies_while_pausing_leaves_a_paused_job(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), gate_step=3, crash_when_paused=True)
    async with stage.running():
        job = await stage.submit(max_steps=4)
        await stage.at_step(job, 2)
        await stage.registry.request_pause(job.id)
        job = await paused(stage, job)
        assert (job.crashes, job.attempt) == (0, 1)
        stage.gate.touch()
        await stage.registry.request_resume(job.id)
        job = await stage.ended(job)
    assert await stage.states(job) == [Q, R, PAUSING, P, Q, R, JobState.SUCCEEDED]
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_pause_that_comes_too_late_reports_the_success(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), ignore_pause=True)
    async with stage.running():
        job = await stage.submit()
        await stage.at_step(job, 1)
        await stage.registry.request_pause(job.id)
        stage.gate.touch()
        job = await stage.ended(job)
    assert await stage.states(job) == [Q, R, PAUSING, JobState.SUCCEEDED]
    await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_pausing_job_can_still_be_cancelled(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate), ignore_pause=True)
    async with stage.running():
        job = await stage.submit()
        await stage.at_step(job, 1)
        await stage.registry.request_pause(job.id)
        assert (await stage.registry.request_cancel(job.id)).state == C
        job = await stage.ended(job)
    assert await stage.states(job) == [Q, R, PAUSING, C, JobState.CANCELLED]
    await stage.check_ended_once(job, JobState.CANCELLED)


async def test_a_paused_job_that_is_cancelled_leaves_nothing_behind(stage: Stage) -> None:
    stage.plan(gate=str(stage.gate))
    async with stage.running():
        job = await stage.submit()
        await stage.at_step(job, 1)
        await stage.registry.request_pause(job.id)
        await paused(stage, job)
        assert (await stage.registry.request_cancel(job.id)).state == JobState.CANCELLED
        await stage.check_gone()
    await stage.check_ended_once(job, JobState.CANCELLED)
    assert (stage.work(), stage.artifacts()) == ([], [])


async def test_a_pause_at_any_event_and_a_resume_give_one_good_ending(stage: Stage) -> None:
    async with stage.running():
        whole = await stage.run("whole", max_steps=2)
        for sequence in range(1, whole.last_sequence):
            job = await stage.submit(max_steps=2)
            await stage.until(job, lambda row, at=sequence: row.last_sequence >= at)  # type: ignore[misc]
            try:
                await stage.registry.request_pause(job.id)
            except WrongState as refused:
                assert refused.state == JobState.SUCCEEDED
            job = await stage.until(job, lambda row: row.state == P or row.end_time is not None)
            if job.state == P:
                await stage.registry.request_resume(job.id)
            job = await stage.ended(job)
            await stage.check_gone()
            await stage.check_ended_once(job, JobState.SUCCEEDED)


async def test_a_trainer_is_told_where_the_version_lies_that_its_job_starts_from(stage: Stage) -> None:
    stage.plan("second", gate=str(stage.gate))
    async with stage.running():
        await stage.run()
        version = await stage.registry.get_version("support", 1)
        new = replace(new_job(adapter_id="second"), start_version=("support", 1))
        job = await stage.registry.create_job(new)
        await stage.at_step(job, 1)
        (path,) = (stage.settings.work_dir / job.id).glob("job-*.json")
        start = JobFile.read(path).start_version
        stage.gate.touch()
        assert (await stage.ended(job)).state == JobState.SUCCEEDED
    expected = StartVersion(name="support@1", path=stage.settings.artifacts_dir / version.digest)
    assert start == expected


async def test_a_registry_that_breaks_for_a_while_ends_no_loop_and_later_wishes_are_heard(
    stage: Stage,
) -> None:
    stage.plan(gate=str(stage.gate))
    async with stage.running():
        job = await stage.submit()
        # Its checkpoint is the last that a trainer says before the gate.
        await stage.until(job, lambda row: row.last_sequence >= 7)

        async def is_noticed() -> bool:
            return "no rescue this time" in str(said) and "cannot be looked at" in str(said)

        with capture_logs() as said:
            # In a thread of its own: whoever waits for a lock on this loop holds up the writer that has it.
            async with aiosqlite.connect(stage.home / "registry.db", timeout=60) as database:
                await database.executescript("BEGIN IMMEDIATE; ALTER TABLE jobs RENAME TO gone; COMMIT")
                await until(stage.changes, "polled", is_noticed)
                await database.executescript("BEGIN IMMEDIATE; ALTER TABLE gone RENAME TO jobs; COMMIT")
        await stage.registry.request_cancel(job.id)
        job = await stage.ended(job)
        assert (await stage.run("other")).state == JobState.SUCCEEDED
    await stage.check_ended_once(job, JobState.CANCELLED)
