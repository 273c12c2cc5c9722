"""From a request to a forward pass, and from success to a first token: `python -m benchmarks.jobs`.

Warm: jobs sent to a running service. Cold: the same job given to a fresh `python -m trainer`. Both arms run
in turn while the service's engine stands idle beside them.
"""

import asyncio
import hashlib
import json
import shutil
import sys
import time
from statistics import median

from benchmarks.rounds import interleaved, median_ratio
from benchmarks.stack import ROOT, RunningStack, settings_for, supervised_stack
from hotlora.v1 import tuning_service_pb2
from hotlora.v1.resources_pb2 import Message
from service.base_model import resolve_base_model
from trainer import events
from trainer.config import Hyperparameters, JobFile, Technique

ROUNDS = 3
MAX_STEPS = 1
BATCH_SIZE = 2
LEARNING_RATE = 5e-3
"""So high that even one step moves the model far enough to be told from the base."""
EXAMPLES = ROOT / "examples" / "triage" / "train.jsonl"


async def main() -> None:
    """Measure and print."""
    async with supervised_stack() as stack:
        dataset = await stack.client.upload_dataset(EXAMPLES)
        job_file = await _job_file(stack)
        arms = {"warm": lambda: _warm(stack, dataset.name), "cold": lambda: _cold(job_file)}
        await arms["warm"]()
        results = await interleaved(arms, ROUNDS)
        cancelled = [await _cancelled(stack, dataset.name) for _ in range(ROUNDS)]
    warm, cold = results["warm"], results["cold"]
    print(
        json.dumps(
            {
                "submit to first forward pass": {
                    "cold against warm": median_ratio([c[0] for c in cold], [w[0] for w in warm]),
                    "warm seconds": median(w[0] for w in warm),
                    "cold seconds": median(c[0] for c in cold),
                },
                "SUCCEEDED to first token": {
                    "median seconds": median(w[1] + w[2] for w in warm),
                    "of these until proven and ACTIVE": median(w[1] for w in warm),
                },
                "cancel to CANCELLED": {"median seconds": median(cancelled)},
            }
        )
    )


async def _warm(stack: RunningStack, dataset: str) -> tuple[float, float, float]:
    """Seconds from submit to first forward, SUCCEEDED to ACTIVE, ACTIVE to first token."""
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
    asked = time.perf_counter()
    question = [Message(role="user", content="Where is my parcel?")]
    answer = client.chat(question, model=version.model, max_tokens=4)
    async for _ in answer:
        break
    first_token_seconds = time.perf_counter() - asked
    await answer.aclose()
    first_forward = job.first_forward_time.ToNanoseconds() / 1e9
    return first_forward - submitted, active_seconds - job.end_time.ToNanoseconds() / 1e9, first_token_seconds


async def _cancelled(stack: RunningStack, dataset: str) -> float:
    """Seconds from the cancel of a job that trains until nothing of it is left."""
    client = stack.client
    job = await client.create_tuning_job(dataset=dataset, adapter_id="cancelled")
    asked: float | None = None
    async for update in client.watch_tuning_job(job.name):
        if asked is None and update.event.metrics.step:
            asked = time.perf_counter()
            await client.cancel_tuning_job(job.name)
    assert asked is not None
    return time.perf_counter() - asked


async def _cold(job: JobFile) -> tuple[float, float, float]:
    """Seconds from the start of a fresh trainer to its first forward pass."""
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
    return seconds, 0.0, 0.0


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
