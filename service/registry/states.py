"""States of jobs and adapter versions, and which moves between them are legal.

The tables are data: guards in this package use them, tests walk them, documents are checked against them.
"""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """Where a tuning job stands."""

    QUEUED = "QUEUED"
    """Entered by creation, or again when a trainer died, the service stopped, its owner vanished, or a paused
    job is resumed. A runner claims it; nothing needs repair after a crash."""
    RUNNING = "RUNNING"
    """Entered by a claim, with an owner, an epoch and a heartbeat. Its owner moves it on. If the owner is
    gone, any runner puts it back to QUEUED with the next epoch."""
    CANCELLING = "CANCELLING"
    """Entered on request while RUNNING or PAUSING. Its owner ends it. If the owner is gone, any runner makes
    it CANCELLED."""
    PAUSING = "PAUSING"
    """Entered on request while RUNNING. Its owner ends it once the trainer has saved where it stands. If the
    owner is gone, any runner makes it PAUSED: what was saved before that still counts."""
    PAUSED = "PAUSED"
    """Entered on request while QUEUED, or by its owner. Has no owner and holds no worker; its checkpoints
    stay. A caller makes it QUEUED again, or cancels it; nothing needs repair after a crash."""
    SUCCEEDED = "SUCCEEDED"
    """Entered by its owner, in the transaction that makes the adapter version."""
    FAILED = "FAILED"
    """Entered by its owner, with a reason."""
    CANCELLED = "CANCELLED"
    """Entered on request; nothing was published."""


class VersionState(StrEnum):
    """Where an adapter version stands."""

    PENDING = "PENDING"
    """Entered when a job succeeds, on a load request, or when the engine went away during a proof.
    The reconciler loads it."""
    VERIFYING = "VERIFYING"
    """Entered when the engine has loaded it. The reconciler proves it; after a crash it begins again."""
    ACTIVE = "ACTIVE"
    """Entered with a proof. Leaves on request, or when a later proof fails."""
    FAILED = "FAILED"
    """Entered with a reason. A load request makes it PENDING."""
    RETIRING = "RETIRING"
    """Entered on request. The reconciler drains and unloads it; after a crash it does so again."""
    RETIRED = "RETIRED"
    """Entered when no engine has it. A load request makes it PENDING."""


class EvaluationState(StrEnum):
    """Where an evaluation stands."""

    QUEUED = "QUEUED"
    """Entered when a version becomes ACTIVE, on request, or again when the service that ran it stopped. An
    evaluator claims it; nothing needs repair after a crash."""
    RUNNING = "RUNNING"
    """Entered by a claim, with an owner, an epoch and a heartbeat. Its owner ends it. If the owner falls
    silent, any evaluator puts it back to QUEUED with the next epoch."""
    SUCCEEDED = "SUCCEEDED"
    """Entered by its owner, with the report."""
    FAILED = "FAILED"
    """Entered by its owner, with a reason."""


JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.PAUSED}),
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING, JobState.PAUSING, JobState.QUEUED}
    ),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.PAUSING: frozenset({JobState.PAUSED, JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

VERSION_TRANSITIONS: Mapping[VersionState, frozenset[VersionState]] = {
    VersionState.PENDING: frozenset({VersionState.VERIFYING, VersionState.FAILED, VersionState.RETIRING}),
    VersionState.VERIFYING: frozenset(
        {VersionState.ACTIVE, VersionState.FAILED, VersionState.PENDING, VersionState.RETIRING}
    ),
    VersionState.ACTIVE: frozenset(
        {VersionState.RETIRING, VersionState.FAILED, VersionState.PENDING, VersionState.VERIFYING}
    ),
    VersionState.FAILED: frozenset({VersionState.PENDING}),
    VersionState.RETIRING: frozenset({VersionState.RETIRED}),
    VersionState.RETIRED: frozenset({VersionState.PENDING}),
}

EVALUATION_TRANSITIONS: Mapping[EvaluationState, frozenset[EvaluationState]] = {
    EvaluationState.QUEUED: frozenset({EvaluationState.RUNNING}),
    EvaluationState.RUNNING: frozenset(
        {EvaluationState.SUCCEEDED, EvaluationState.FAILED, EvaluationState.QUEUED}
    ),
    EvaluationState.SUCCEEDED: frozenset(),
    EvaluationState.FAILED: frozenset(),
}

JOB_ENDED = frozenset(state for state, following in JOB_TRANSITIONS.items() if not following)
"""States that a job never leaves."""
EVALUATION_ENDED = frozenset(state for state, following in EVALUATION_TRANSITIONS.items() if not following)
"""States that an evaluation never leaves."""
JOB_OWNED = frozenset({JobState.RUNNING, JobState.CANCELLING, JobState.PAUSING})
"""States in which a job has an owner."""


def before(to: JobState) -> frozenset[JobState]:
    """States from which a job may move to `to`."""
    return frozenset(state for state, following in JOB_TRANSITIONS.items() if to in following)


def versions_before(to: VersionState) -> frozenset[VersionState]:
    """States from which a version may move to `to`."""
    return frozenset(state for state, following in VERSION_TRANSITIONS.items() if to in following)


def evaluations_before(to: EvaluationState) -> frozenset[EvaluationState]:
    """States from which an evaluation may move to `to`."""
    return frozenset(state for state, following in EVALUATION_TRANSITIONS.items() if to in following)
