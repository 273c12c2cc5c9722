"""What callers notice of a thousand promotions: `python -m benchmarks.promotions`.

Two versions of an adapter are taught different answers in a few steps, and each is asked the questions of all
callers by its exact name, alone. Then an alias is pointed at one and the other in turn, while callers stream
answers from it. Each answer is held twice: the version that it is said to be of, against where the alias
pointed between its request and its first piece; its text, against what that version answered alone.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.stack import RunningStack, supervised_stack
from hotlora.errors import HotloraError
from hotlora.v1.resources_pb2 import Message
from hotlora.v1.tuning_service_pb2 import Hyperparameters

PROMOTIONS = 1_000
PAUSE_SECONDS = 0.02
"""Between two of them, so that answers begin and end among them."""
CALLERS = 8
MAX_TOKENS = 8
ADAPTER, ALIAS = "bench", "adapters/bench/aliases/prod"
TAUGHT = {1: "North of the river, in the old mill.", 2: "Nobody knows, but the captain will ask at sea."}
"""What each version is taught to answer: were both taught the same, their texts could not be told apart."""
SETTINGS = Hyperparameters(max_steps=10, batch_size=4, learning_rate=2e-3, validation_fraction=0)
"""So high a rate that these few steps are enough."""

Texts = Mapping[tuple[str, int], str]
"""What each model answered each caller, by name and number, when it was asked alone."""


@dataclass(frozen=True, kw_only=True)
class Pointed:
    """A promotion."""

    version: int
    asked_at: float
    done_at: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a caller got."""

    caller: int
    asked_at: float
    began_at: float
    models: frozenset[str]
    """Which its pieces are said to be of; more than one is a fault."""
    text: str


@dataclass(kw_only=True)
class Answers:
    """What callers got."""

    given: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


async def main() -> None:
    """Measure and print."""
    async with supervised_stack() as stack:
        for version in TAUGHT:
            await _trained(stack, version)
        alone = {
            (model, caller): (await _answer(stack, model, caller)).text
            for model in map(_model, TAUGHT)
            for caller in range(CALLERS)
        }
        timeline = [await _promoted(stack, 1)]
        answers, stop = Answers(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for caller in range(CALLERS):
                group.create_task(_call(stack, answers, stop, caller))
            for number in range(PROMOTIONS):
                timeline.append(await _promoted(stack, 2 - number % 2))
                await asyncio.sleep(PAUSE_SECONDS)
            stop.set()
    figures = {
        "promotions": len(timeline) - 1,
        "median milliseconds of a promotion": 1000 * median(one.done_at - one.asked_at for one in timeline),
        **faults(answers, timeline, alone),
    }
    print(json.dumps({"promotions while streaming": figures}))


def faults(answers: Answers, timeline: Sequence[Pointed], alone: Texts) -> dict[str, object]:
    """How many answers there were, and how many of them callers could complain about."""
    whole = [answer for answer in answers.given if len(answer.models) == 1]
    other = [answer for answer in whole if _is_of_other(answer, alone)]
    # Weights changed while an answer runs leave such a text, but so does a tie that another batch rounds
    # otherwise: only whoever looks at these can tell, so the first one is shown.
    neither = [answer for answer in whole if answer.text not in _texts(answer.caller, alone)]
    return {
        "answers": len(answers.given),
        "failed answers": len(answers.failures),
        "answers of two versions": len(answers.given) - len(whole),
        "answers of a version that the alias did not point at": sum(
            not _may_be(answer, timeline) for answer in whole
        ),
        "questions": CALLERS,
        "questions that the versions answer differently": sum(
            len(set(_texts(caller, alone))) == len(TAUGHT) for caller in range(CALLERS)
        ),
        "answers with the other version's text": len(other),
        "answers with neither version's text": len(neither),
        "first failure": answers.failures[0] if answers.failures else "",
        "first text of neither": neither[0].text if neither else "",
    }


async def _trained(stack: RunningStack, version: int) -> None:
    """The next version, ACTIVE."""
    client, path = stack.client, stack.home / f"taught-{version}.jsonl"
    answer = {"role": "assistant", "content": TAUGHT[version]}
    rows = [[{"role": "user", "content": _question(caller)}, answer] for caller in range(CALLERS)]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    dataset = await client.upload_dataset(path)
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


async def _call(stack: RunningStack, answers: Answers, stop: asyncio.Event, caller: int) -> None:
    """One answer after the other."""
    while not stop.is_set():
        try:
            answer = await _answer(stack, f"{ADAPTER}@prod", caller)
        except HotloraError as error:
            answers.failures.append(str(error))
            continue
        if answer.models:
            answers.given.append(answer)
        else:
            answers.failures.append("an answer without a piece")


async def _answer(stack: RunningStack, model: str, caller: int) -> Answer:
    """What the model answers the caller's question, always taking the likeliest token."""
    question = [Message(role="user", content=_question(caller))]
    asked_at, began_at, pieces = time.perf_counter(), 0.0, []
    async for piece in stack.client.chat(question, model=model, max_tokens=MAX_TOKENS, temperature=0):
        began_at = began_at or time.perf_counter()
        pieces.append(piece)
    return Answer(
        caller=caller,
        asked_at=asked_at,
        began_at=began_at,
        models=frozenset(piece.model for piece in pieces),
        text="".join(piece.delta for piece in pieces),
    )


def _question(caller: int) -> str:
    return f"Where is parcel {caller}?"


def _may_be(answer: Answer, timeline: Sequence[Pointed]) -> bool:
    """Whether the alias may have pointed at the answer's version at some moment until it began."""
    ends = [*(one.done_at for one in timeline[1:]), float("inf")]
    return any(
        _model(one.version) in answer.models and one.asked_at <= answer.began_at and answer.asked_at <= end
        for one, end in zip(timeline, ends, strict=True)
    )


def _is_of_other(answer: Answer, alone: Texts) -> bool:
    """Whether the text is not that of the version that it is said to be of, but that of the other one."""
    (model,) = answer.models
    return answer.text != alone[model, answer.caller] and answer.text in _texts(answer.caller, alone)


def _texts(caller: int, alone: Texts) -> list[str]:
    """Of each version."""
    return [alone[_model(version), caller] for version in TAUGHT]


def _model(version: int) -> str:
    return f"{ADAPTER}@{version}"


if __name__ == "__main__":
    asyncio.run(main())
