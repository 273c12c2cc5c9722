"""What a runner and a trainer write into the registry, done by a test."""

from service.registry.rows import ProgressEvent
from tests.contract.stage import Stage
from trainer import events

HISTORY: tuple[ProgressEvent, ...] = (
    events.Loading(time=1.0, pid=7),
    events.FirstForward(time=2.0),
    events.Metrics(
        time=3.0,
        step=1,
        total_steps=4,
        loss=2.5,
        learning_rate=2e-4,
        grad_norm=0.5,
        tokens_per_second=200.0,
        peak_memory_bytes=1 << 33,
        eta_seconds=9.0,
        epoch=0.25,
        tokens=640,
    ),
    events.FirstStep(time=3.5, step=1),
    events.Evaluation(time=4.0, step=2, eval_loss=2.25, rows=6, best_step=2),
    events.CheckpointSaved(time=5.0, step=2),
    events.Resumed(time=6.0, step=2),
    events.Fit(
        time=6.5,
        verdict=events.Verdict.OVERFITTING,
        step=4,
        since_step=2,
        best_step=2,
        start_loss=2.5,
        train_loss=0.5,
        eval_loss=2.5,
        best_eval_loss=2.25,
        stopped_early=False,
        sentence="Overfitting since step 2.",
    ),
    events.Saving(time=7.0, step=4, best_step=2),
)


PUBLISHED = events.Published(time=8.0, step=4, digest="ab" * 32, size_bytes=1000, rank=16, best_step=2)


async def run_to_success(stage: Stage) -> None:
    """Do to the queued job what a runner and a trainer would."""
    job = await stage.registry.claim_next_job("owner")
    assert job is not None
    for event in HISTORY:
        await stage.registry.append_event(job.id, job.epoch, event)
    await stage.registry.succeed_job(job.id, job.epoch, PUBLISHED)
