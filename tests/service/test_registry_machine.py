"""Owners, stale owners, and a caller who cancels, pauses and resumes, in any order: the registry keeps its
promises."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.errors import Conflict, WrongState
from service.registry import JOB_TRANSITIONS, JobState, StateChanged
from service.registry.states import JOB_ENDED, JOB_OWNED
from tests.service.registry_stage import metrics, new_job, open_registry, published

Result = TypeVar("Result")
ANY_JOB = st.integers(min_value=0, max_value=3)
ANY_AGE = st.sampled_from([0, 0, 0, 1])
"""Mostly the epoch that the owner has, sometimes the one before."""


class Jobs(RuleBasedStateMachine):
    """The model is the state and epoch of each job."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._home = tempfile.TemporaryDirectory()
        self._registry = self._do(self._stack.enter_async_context(open_registry(Path(self._home.name))))
        self._states: dict[str, JobState] = {}
        self._epochs: dict[str, int] = {}

    def teardown(self) -> None:
        """Close what was opened."""
        self._do(self._stack.aclose())
        self._loop.close()
        self._home.cleanup()

    def _do(self, coroutine: Coroutine[object, object, Result]) -> Result:
        return self._loop.run_until_complete(coroutine)

    def _job(self, number: int) -> str | None:
        return list(self._states)[number] if number < len(self._states) else None

    @rule()
    def create(self) -> None:
        """A caller asks for a job."""
        if len(self._states) < 4:
            job = self._do(self._registry.create_job(new_job()))
            self._states[job.id], self._epochs[job.id] = job.state, job.epoch

    @rule()
    def claim(self) -> None:
        """A runner takes the oldest."""
        job = self._do(self._registry.claim_next_job("me"))
        queued = [job_id for job_id, state in self._states.items() if state == JobState.QUEUED]
        assert (None if job is None else job.id) == (queued[0] if queued else None)
        if job is not None:
            assert job.epoch > self._epochs[job.id]
            self._states[job.id], self._epochs[job.id] = job.state, job.epoch

    @rule(number=ANY_JOB)
    def ask_to_cancel(self, number: int) -> None:
        """A caller asks for an end."""
        job_id = self._job(number)
        if job_id is None:
            return
        try:
            self._states[job_id] = self._do(self._registry.request_cancel(job_id)).state
            assert self._states[job_id] in (JobState.CANCELLING, JobState.CANCELLED)
        except WrongState:
            assert self._states[job_id] in (JobState.SUCCEEDED, JobState.FAILED)

    @rule(number=ANY_JOB)
    def ask_to_pause(self, number: int) -> None:
        """A caller wants the worker for something else."""
        job_id = self._job(number)
        if job_id is None:
            return
        before = self._states[job_id]
        try:
            self._states[job_id] = self._do(self._registry.request_pause(job_id)).state
            waiting = before in (JobState.QUEUED, JobState.PAUSED)
            assert self._states[job_id] == (JobState.PAUSED if waiting else JobState.PAUSING)
        except WrongState:
            assert before in JOB_ENDED or before == JobState.CANCELLING

    @rule(number=ANY_JOB)
    def ask_to_resume(self, number: int) -> None:
        """A caller wants a paused job to go on."""
        job_id = self._job(number)
        if job_id is None:
            return
        before = self._states[job_id]
        try:
            self._states[job_id] = self._do(self._registry.request_resume(job_id)).state
            assert self._states[job_id] == (JobState.QUEUED if before == JobState.PAUSED else before)
            assert before in (JobState.PAUSED, JobState.QUEUED, JobState.RUNNING)
        except WrongState:
            assert before in JOB_ENDED or before in (JobState.CANCELLING, JobState.PAUSING)

    @rule(number=ANY_JOB, age=ANY_AGE, to=st.sampled_from(sorted(JobState)))
    def owner_moves(self, number: int, age: int, to: JobState) -> None:
        """An owner, or one that was replaced, says how it went."""
        job_id = self._job(number)
        if job_id is None or to in (JobState.RUNNING, JobState.CANCELLING, JobState.PAUSING):
            return
        epoch, state = self._epochs[job_id] - age, self._states[job_id]
        move: Coroutine[object, object, object]
        if to == JobState.SUCCEEDED:
            move = self._registry.succeed_job(job_id, epoch, published())
        elif to == JobState.FAILED:
            move = self._registry.fail_job(job_id, epoch, "INTERNAL", "It broke.")
        elif to == JobState.CANCELLED:
            move = self._registry.cancel_job(job_id, epoch)
        elif to == JobState.PAUSED:
            move = self._registry.pause_job(job_id, epoch)
        else:
            move = self._registry.requeue_job(job_id, epoch)
        legal = not age and to in JOB_TRANSITIONS[state] and state in JOB_OWNED
        try:
            self._do(move)
            assert legal
            self._states[job_id] = to
            self._epochs[job_id] += to in (JobState.QUEUED, JobState.PAUSED)
        except (Conflict, WrongState):
            assert not legal

    @rule(number=ANY_JOB, age=ANY_AGE)
    def owner_says(self, number: int, age: int) -> None:
        """An owner, or one that was replaced, tells of progress."""
        job_id = self._job(number)
        if job_id is None:
            return
        try:
            self._do(self._registry.append_event(job_id, self._epochs[job_id] - age, metrics(1)))
            assert self._states[job_id] in JOB_OWNED
            assert not age
        except (Conflict, WrongState):
            assert age or self._states[job_id] not in JOB_OWNED

    @invariant()
    def jobs_are_what_the_model_says(self) -> None:
        """Rows, events and versions agree with one another and with the model."""
        succeeded = 0
        for job_id, state in self._states.items():
            job = self._do(self._registry.get_job(job_id))
            assert (job.state, job.epoch) == (state, self._epochs[job_id])
            assert (job.end_time is not None) == (state in JOB_ENDED)
            rows = self._do(self._registry.events_after(job_id, 0))
            assert [row.sequence for row in rows] == list(range(1, job.last_sequence + 1))
            states = [row.body.state for row in rows if isinstance(row.body, StateChanged)]
            assert states[-1] == state
            assert all(after in JOB_TRANSITIONS[before] for before, after in pairwise(states))
            succeeded += state == JobState.SUCCEEDED
        assert len(self._do(self._registry.registered_digests())) == min(succeeded, 1)
        if self._states:
            assert len(self._do(self._registry.list_versions("support")).rows) == succeeded


Jobs.TestCase.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestJobs = Jobs.TestCase
