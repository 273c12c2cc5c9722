"""What a killed trainer costs a job: `python -m benchmarks.recovery`.

The same job is sent to a running service undisturbed and with its trainer killed by SIGKILL, in turn, while
the service's engine stands idle beside it. The kill comes two steps after a checkpoint, so two steps are done
twice. Losses of both are compared step by step: a resumed job is the same job.
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks.rounds import interleaved, median_ratio
from benchmarks.stack import ROOT, RunningStack, supervised_stack
from hotlora.v1.tuning_service_pb2 import Hyperparameters, Milestone, TuningJob

ROUNDS = 3
SETTINGS = Hyperparameters(
    max_steps=16, checkpoint_every_steps=4, batch_size=4, log_every_steps=1, validation_fraction=0
)
KILLED_AFTER_STEP = 10
EXAMPLES = ROOT / "examples" / "triage" / "train.jsonl"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A job that succeeded."""

    seconds: float
    """From its submission to its end."""
    losses: Mapping[int, float]
    """By step; of a step that was done twice, the second one."""
    resumed_after_seconds: float | None = None
    """From the kill to going on; None where nobody killed it."""


async def main() -> None:
    """Measure and print."""
    async with supervised_stack() as stack:
        dataset = await stack.client.upload_dataset(EXAMPLES)
        arms = {
            "undisturbed": lambda: _run(stack, dataset.name, kill=False),
            "killed": lambda: _run(stack, dataset.name, kill=True),
        }
        results = await interleaved(arms, ROUNDS)
    undisturbed, killed = results["undisturbed"], results["killed"]
    pairs = list(zip(killed, undisturbed, strict=True))
    figures = {
        "killed against undisturbed": median_ratio(
            [one.seconds for one in killed], [one.seconds for one in undisturbed]
        ),
        "seconds lost": median(one.seconds - other.seconds for one, other in pairs),
        "of these from the kill to going on": median(
            one.resumed_after_seconds for one in killed if one.resumed_after_seconds is not None
        ),
        "seconds undisturbed": median(one.seconds for one in undisturbed),
        "steps": SETTINGS.max_steps,
        "steps done twice": KILLED_AFTER_STEP % SETTINGS.checkpoint_every_steps,
        "largest difference of losses": max(
            abs(one.losses[step] - other.losses[step]) for one, other in pairs for step in other.losses
        ),
    }
    print(json.dumps({"a kill and a resume": figures}))


async def _run(stack: RunningStack, dataset: str, *, kill: bool) -> Ran:
    client = stack.client
    job = await client.create_tuning_job(dataset=dataset, adapter_id="recovery", hyperparameters=SETTINGS)
    losses: dict[int, float] = {}
    killed_at = resumed_at = None
    async for update in client.watch_tuning_job(job.name):
        event = update.event
        if event.HasField("metrics"):
            losses[event.metrics.step] = event.metrics.loss
            if kill and killed_at is None and event.metrics.step == KILLED_AFTER_STEP:
                _trainer().kill()
                killed_at = time.time()
        if event.milestone.kind == Milestone.KIND_RESUMED:
            resumed_at = event.time.ToNanoseconds() / 1e9
    job = await client.get_tuning_job(job.name)
    assert job.state == TuningJob.STATE_SUCCEEDED, job.failure
    assert job.attempt == (2 if kill else 1)
    async for _ in client.watch_adapter_version(job.adapter_version):
        pass  # until its proof is over, which would disturb the next run
    return Ran(
        seconds=(job.end_time.ToNanoseconds() - job.create_time.ToNanoseconds()) / 1e9,
        losses=losses,
        resumed_after_seconds=None if killed_at is None or resumed_at is None else resumed_at - killed_at,
    )


def _trainer() -> psutil.Process:
    """The process that trains: what the fork server, a process below this one, has forked."""

    def serves(process: psutil.Process | None) -> bool:
        return process is not None and "trainer.forkserver" in process.cmdline()

    below = psutil.Process(os.getpid()).children(recursive=True)
    return next(process for process in below if serves(process) and serves(process.parent()))


if __name__ == "__main__":
    asyncio.run(main())
