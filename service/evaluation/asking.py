"""Asks one model everything that an evaluation needs, through the chat that people use.

Answers that are known are not asked for again. Asks few questions at a time, and one at a time while people
are being answered. An engine that is away is waited for, but not for ever.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from service.errors import Exhausted, InvalidRequest, Unavailable
from service.registry.answers import Answers as KeptAnswers
from service.serving import Chat, ChatMessage, ChatTurn, Served
from trainer.records import Turn

ResultT = TypeVar("ResultT")

_LOOK_AGAIN_SECONDS = 0.1
"""How often it is looked whether people are still being answered."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One thing to ask."""

    messages: tuple[Turn, ...] = ()
    max_tokens: int = 1
    choices: tuple[str, ...] = ()
    text: tuple[int, ...] = ()
    """Tokens, in the place of messages: not to be answered, but to be told how probable some of them are."""
    places: tuple[int, ...] = ()
    """Which: `text[place + 1]` after all that is before it. Without any there is nothing to tell."""

    def key(self, rendering: str) -> str:
        """Tells what was asked and how. `rendering` tells how messages become tokens."""
        parts = [
            rendering,
            [[turn.role, turn.content] for turn in self.messages],
            self.max_tokens,
            self.choices,
            self.text,
            self.places,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model, by the name that the engine knows and by the weights that it stands for."""

    model: str
    weights: str
    """Revision of a base, or digest of a version."""
    rendering: str
    """How its prompts are written: the contract of its base's renderer, as JSON."""


class EngineAwayError(Exception):
    """The engine gave no answer for too long."""


class Asking:
    """Belongs to one event loop; one for each evaluator."""

    def __init__(
        self,
        *,
        chat: Chat,
        served: Served,
        kept: KeptAnswers,
        concurrency: int,
        patience_seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._chat = chat
        self._served = served
        self._kept = kept
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._own = 0
        """Answers that are being given to this evaluator."""

    async def ask(self, who: Asked, asks: Sequence[Ask], done: Callable[[], None]) -> tuple[str | None, ...]:
        """The answers in order; None for one that the engine refuses. Calls `done` after each.

        Raises EngineAwayError, NotFound and WrongState (the model is not served any more).
        """
        keys = [ask.key(who.rendering) for ask in asks]
        known = await self._kept.of(who.weights, keys)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(who, ask, key, known.get(key), done))
                    for ask, key in zip(asks, keys, strict=True)
                ]
        except ExceptionGroup as failures:  # the first one ended the others
            raise failures.exceptions[0] from failures
        return tuple(task.result() for task in tasks)

    async def _one(
        self, who: Asked, ask: Ask, key: str, known: str | None, done: Callable[[], None]
    ) -> str | None:
        if known is None:
            async with self._slots:
                known = json.dumps(await self._patiently(lambda: self._answer(who.model, ask)))
            await self._kept.keep(who.weights, key, known)
        done()
        answer: str | None = json.loads(known)
        return answer

    async def _patiently(self, attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Try until there is an answer or patience ends."""
        began = self._clock()
        while True:
            try:
                async with self._after_people():
                    return await attempt()
            except (Unavailable, Exhausted) as error:
                if self._clock() - began >= self._patience_seconds:
                    raise EngineAwayError(error.message) from error
                pause = error.retry_seconds or 1.0
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _after_people(self) -> AsyncIterator[None]:
        # One goes on always, so that a busy service is evaluated too, only slowly.
        while self._own > 0 and self._served.all_answers > self._own:  # noqa: ASYNC110 - ends are not told
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        self._own += 1
        try:
            yield
        finally:
            self._own -= 1

    async def _answer(self, model: str, ask: Ask) -> str | None:
        try:
            if not ask.messages:
                return await self._measure(model, ask)
            turn = ChatTurn(
                model=model,
                messages=tuple(ChatMessage(role=turn.role, content=turn.content) for turn in ask.messages),
                max_tokens=ask.max_tokens,
                choices=ask.choices,
            )
            async with aclosing(self._chat.stream(turn)) as answer:
                return "".join([delta.text async for delta in answer])
        except InvalidRequest:
            return None

    async def _measure(self, model: str, ask: Ask) -> str | None:
        """Sum of the log-probabilities of the places and their number, as JSON."""
        if not ask.places:
            return None
        logprobs = await self._chat.token_logprobs(model, ask.text, ask.places)
        return json.dumps([sum(logprobs), len(logprobs)])
