"""From a request to a forward pass, and from success to a first token: `python -m benchmarks.jobs`.

Warm: jobs sent to a running service. Cold: the same job given to a fresh `python -m trainer`. Both arms run
in turn while the service's engine stands idle beside them. From success to a first token is held against a
first token of the same version later on, when nothing is left to do but to answer: what is above 1 is what
loading and proving cost. A cancel is held against a step of the job that it ends: a trainer that listened
only between steps would need up to 1.
"""

import asyncio
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.rounds import interleaved, median_ratio
from benchmarks.stack import ROOT, RunningStack, settings_for, supervised_stack
from hotlora.v1 import tuning_service_pb2
from hotlora.v1.resources_pb2 import Message
from service.base_model import resolve_base_model
from trainer import events
from trainer.config import Hyperparameters, JobFile, Technique

ROUNDS = 3
LATER_ANSWERS = 5
"""Asked of each version once it is served, for their median: one alone may meet a hiccup of the machine."""
MAX_STEPS = 1
BATCH_SIZE = 2
LEARNING_RATE = 5e-3
"""So high that even one step moves the model far enough to be told from the base."""
EXAMPLES = ROOT / "examples" / "triage" / "train.jsonl"


@dataclass(frozen=True, kw_only=True)
class Started:
    """A job, in seconds; those of serving are 0 where cold, as nothing is served there."""

    first_forward_seconds: float
    """From submit."""
    active_seconds: float = 0.0
    """From SUCCEEDED."""
    first_token_seconds: float = 0.0
    """From ACTIVE."""
    later_token_seconds: float = 0.0
    """From a later question to its first token."""


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """A job that was cancelled while it trained, in seconds."""

    step_seconds: float
    """Of one optimizer step before that."""
    cancel_seconds: float
    """From the cancel until nothing of it was left."""


async def main() -> None:
    """Measure and print."""
    async with supervised_stack() as stack:
        dataset = await stack.client.upload_dataset(EXAMPLES)
        job_file = await _job_file(stack)
        arms = {"warm": lambda: _warm(stack, dataset.name), "cold": lambda: _cold(job_file)}
        await arms["warm"]()
        results = await interleaved(arms, ROUNDS)
        cancelled = [await _cancelled(stack, dataset.name) for _ in range(ROUNDS)]
    print(json.dumps(summary(results["warm"], results["cold"], cancelled)))


def summary(
    warm: Sequence[Started], cold: Sequence[Started], cancelled: Sequence[Cancelled]
) -> dict[str, dict[str, float]]:
    """The ratios, and the seconds that they come from."""
    warm_seconds = [one.first_forward_seconds for one in warm]
    cold_seconds = [one.first_forward_seconds for one in cold]
    served_seconds = [one.active_seconds + one.first_token_seconds for one in warm]
    later_seconds = [one.later_token_seconds for one in warm]
    cancel_seconds = [one.cancel_seconds for one in cancelled]
    step_seconds = [one.step_seconds for one in cancelled]
    return {
        "submit to first forward pass": {
            "cold against warm": median_ratio(cold_seconds, warm_seconds),
            "warm seconds": median(warm_seconds),
            "cold seconds": median(cold_seconds),
        },
        "SUCCEEDED to first token": {
            "against a later first token": median_ratio(served_seconds, later_seconds),
            "median seconds": median(served_seconds),
            "of these until proven and ACTIVE": median(one.active_seconds for one in warm),
            "seconds to a later first token": median(later_seconds),
        },
        "cancel to CANCELLED": {
            "against a step": median_ratio(cancel_seconds, step_seconds),
            "median seconds": median(cancel_seconds),
            "seconds of a step": median(step_seconds),
        },
    }


async def _warm(stack: RunningStack, dataset: str) -> Started:
    """A job for the service, and the first answers of what it trained."""
    client = stack.client
    submitted = time.time()
    settings = tuning_service_pb2.Hyperparameters(
        max_steps=MAX_STEPS, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, validation_fraction=0
    )
    job = await client.create_tuning_job(dataset=dataset, adapter_id="bench", hyperparameters=settings)
    async for _ in client.watch_tuning_job(job.name):
        pass
    job = await client.get_tuning_job(job.name)
    async for version in client.watch_adapter_version(job.adapter_version):
        active_seconds = version.active_time.ToNanoseconds() / 1e9
    first, *later = [await _first_token(stack, version.model, number) for number in range(1 + LATER_ANSWERS)]
    return Started(
        first_forward_seconds=job.first_forward_time.ToNanoseconds() / 1e9 - submitted,
        active_seconds=active_seconds - job.end_time.ToNanoseconds() / 1e9,
        first_token_seconds=first,
        later_token_seconds=median(later),
    )


async def _first_token(stack: RunningStack, model: str, number: int) -> float:
    """Seconds from a question to the first token of its answer."""
    question = [Message(role="user", content=f"Where is parcel {number}?")]
    asked = time.perf_counter()
    answer = stack.client.chat(question, model=model, max_tokens=4)
    async for _ in answer:
        break
    seconds = time.perf_counter() - asked
    await answer.aclose()
    return seconds


async def _cancelled(stack: RunningStack, dataset: str) -> Cancelled:
    """A job that is cancelled after its second step: the first one warms up."""
    client = stack.client
    job = await client.create_tuning_job(dataset=dataset, adapter_id="cancelled")
    stepped: list[float] = []
    async for update in client.watch_tuning_job(job.name):
        if update.event.metrics.step and len(stepped) < 2:
            stepped.append(time.perf_counter())
            if len(stepped) == 2:
                await client.cancel_tuning_job(job.name)
    ended = time.perf_counter()
    return Cancelled(step_seconds=stepped[1] - stepped[0], cancel_seconds=ended - stepped[1])


async def _cold(job: JobFile) -> Started:
    """A job for a fresh trainer, which runs to its end."""
    job.work_path.mkdir(parents=True)
    path = job.work_path / "job.json"
    job.write(path)
    began = time.time()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trainer", str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    seconds = float("nan")
    async for line in process.stdout:
        event = events.decode(line)
        if isinstance(event, events.FirstForward):
            seconds = event.time - began
    await process.wait()
    shutil.rmtree(job.work_path)
    return Started(first_forward_seconds=seconds)


async def _job_file(stack: RunningStack) -> JobFile:
    settings = settings_for(stack.home / "cold")
    settings.make_directories()
    base, _ = await resolve_base_model(settings.base_model, settings.models_dir)
    return JobFile(
        job_id="cold",
        attempt=1,
        adapter_id="bench",
        base_model=base,
        dataset_path=EXAMPLES,
        dataset_sha256=hashlib.sha256(EXAMPLES.read_bytes()).hexdigest(),
        technique=Technique.LORA,
        hyperparameters=Hyperparameters(
            max_steps=MAX_STEPS,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            validation_fraction=0,
        ),
        work_path=settings.work_dir / "cold",
        artifacts_path=settings.artifacts_dir,
    )


if __name__ == "__main__":
    asyncio.run(main())
