"""What callers notice of a thousand promotions: `python -m benchmarks.promotions`.

Two versions of an adapter are trained by a step each. Then an alias is pointed at one and the other in turn,
while callers stream answers from it. Each answer is held against where the alias pointed between its request
and its first piece.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.stack import ROOT, RunningStack, supervised_stack
from hotlora.errors import HotloraError
from hotlora.v1.resources_pb2 import Message
from hotlora.v1.tuning_service_pb2 import Hyperparameters

PROMOTIONS = 1_000
PAUSE_SECONDS = 0.02
"""Between two of them, so that answers begin and end among them."""
CALLERS = 8
MAX_TOKENS = 8
ADAPTER, ALIAS = "bench", "adapters/bench/aliases/prod"
EXAMPLES = ROOT / "examples" / "triage" / "train.jsonl"
SETTINGS = Hyperparameters(max_steps=1, batch_size=2, learning_rate=5e-3, validation_fraction=0)
"""So high a rate that even one step moves the model far enough to be told from the base."""


@dataclass(frozen=True, kw_only=True)
class Pointed:
    """A promotion."""

    version: int
    asked_at: float
    done_at: float


@dataclass(kw_only=True)
class Answers:
    """What callers got."""

    given: list[tuple[float, float, str]] = field(default_factory=list)
    """When each was asked for, when it began, and by which model."""
    mixed: int = 0
    failures: list[str] = field(default_factory=list)


async def main() -> None:
    """Measure and print."""
    async with supervised_stack() as stack:
        for _ in range(2):
            await _trained(stack)
        timeline = [await _promoted(stack, 1)]
        answers, stop = Answers(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(_call(stack, answers, stop, number))
            for number in range(PROMOTIONS):
                timeline.append(await _promoted(stack, 2 - number % 2))
                await asyncio.sleep(PAUSE_SECONDS)
            stop.set()
    wrong = sum(not _may_be(model, asked, began, timeline) for asked, began, model in answers.given)
    figures = {
        "promotions": len(timeline) - 1,
        "answers": len(answers.given),
        "failed answers": len(answers.failures),
        "answers of two versions": answers.mixed,
        "answers of a version that the alias did not point at": wrong,
        "median milliseconds of a promotion": 1000 * median(one.done_at - one.asked_at for one in timeline),
        "first failure": answers.failures[0] if answers.failures else "",
    }
    print(json.dumps({"promotions while streaming": figures}))


async def _trained(stack: RunningStack) -> None:
    """The next version, ACTIVE."""
    client = stack.client
    dataset = await client.upload_dataset(EXAMPLES)
    job = await client.create_tuning_job(dataset=dataset.name, adapter_id=ADAPTER, hyperparameters=SETTINGS)
    async for _ in client.watch_tuning_job(job.name):
        pass
    job = await client.get_tuning_job(job.name)
    async for _ in client.watch_adapter_version(job.adapter_version):
        pass


async def _promoted(stack: RunningStack, version: int) -> Pointed:
    asked_at = time.perf_counter()
    await stack.client.promote_version(ALIAS, version)
    return Pointed(version=version, asked_at=asked_at, done_at=time.perf_counter())


async def _call(stack: RunningStack, answers: Answers, stop: asyncio.Event, number: int) -> None:
    """One answer after the other."""
    question = [Message(role="user", content=f"Where is parcel {number}?")]
    while not stop.is_set():
        asked, began, models = time.perf_counter(), 0.0, []
        try:
            async for piece in stack.client.chat(question, model=f"{ADAPTER}@prod", max_tokens=MAX_TOKENS):
                began = began or time.perf_counter()
                models.append(piece.model)
        except HotloraError as error:
            answers.failures.append(str(error))
            continue
        answers.mixed += len(set(models)) > 1
        answers.given.append((asked, began, models[0]))


def _may_be(model: str, asked: float, began: float, timeline: Sequence[Pointed]) -> bool:
    """Whether the alias may have pointed at the model's version at some moment from `asked` to `began`."""
    ends = [*(one.done_at for one in timeline[1:]), float("inf")]
    return any(
        model == f"{ADAPTER}@{one.version}" and one.asked_at <= began and asked <= end
        for one, end in zip(timeline, ends, strict=True)
    )


if __name__ == "__main__":
    asyncio.run(main())
