"""Answers: a model's name resolved, messages rendered as in training, the engine's stream passed on with
figures.

Serves gRPC and the gateway alike. Writes nothing; what may answer is read from the registry (states) and from
`Served` (what was proven, and where).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from itertools import groupby
from time import monotonic

from service.engine.face import EngineState
from service.engine.wire import EngineRefused, Sampling, unavailable
from service.errors import FieldViolation, InvalidRequest, Unavailable
from service.metrics import EngineStanding, Metrics, Tally
from service.registry import AliasRow, Registry, VersionRow, VersionState
from service.serving.bases import Base, Bases
from service.serving.own_engines import OwnEngines
from service.serving.placing import place_of
from service.serving.replicas import Replica, Replicas
from service.serving.room import Hold, Room
from service.serving.routes import Route
from service.serving.served import Served
from service.serving.tool_calls import refuse_tools, tool_characters, with_calls
from service.serving.turn import (
    DEFAULT_MAX_TOKENS,
    ChatDelta,
    ChatMessage,
    ChatTurn,
    FinishReason,
    ServedModel,
    Serving,
    check_order,
)
from trainer.config import Technique
from trainer.records import Turn
from trainer.rendering import RenderingError, Tool, ToolTurn

_LISTED = frozenset({VersionState.PENDING, VersionState.VERIFYING, VersionState.ACTIVE, VersionState.FAILED})
_MAX_CHARACTERS_PER_TOKEN = 128
"""No vocabulary has longer tokens than its runs of spaces; what is longer cannot fit and is not tokenized."""
_INLINE_CHARACTERS = 20_000
"""Rendered on the event loop within some 5 ms; a longer conversation goes to a thread."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Something to answer, and what is to answer it."""

    base: Base
    model: str
    """Its exact name."""
    token_ids: list[int]
    sampling: Sampling
    tools: tuple[Tool, ...]
    field: str
    """Of the request; to blame where the engine refuses."""
    arrived: float
    """On the clock of the chat."""

    def seeded(self, index: int) -> "Prepared":
        """For the answer of this index: a seed is counted up, or all answers would be the same."""
        seed = self.sampling.seed
        if seed is None or index == 0:
            return self
        return replace(self, sampling=replace(self.sampling, seed=(seed + index) % 2**31))


class Chat:
    """Gives answers. Belongs to one event loop."""

    def __init__(
        self,
        *,
        registry: Registry,
        served: Served,
        bases: Bases,
        own_engines: OwnEngines,
        metrics: Metrics,
        max_answers: int = 256,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """More than `max_answers` at the same time are refused."""
        self._registry = registry
        self._served = served
        self._bases = bases
        self._own_engines = own_engines
        self._metrics = metrics
        self._room = Room(max_answers)
        self._clock = clock

    async def models(self) -> list[ServedModel]:
        """The base models, then versions by adapter, newest first. Asks the registry only, never an
        engine."""
        gone = {row.model for row in await self._registry.deleted_versions()}
        rows = await self._registry.all_versions(_LISTED)
        return [
            *map(_base_model, self._bases),
            *(
                self._version(row)
                for _, of_adapter in groupby(rows, key=lambda row: row.adapter_id)
                for row in sorted(of_adapter, key=lambda row: -row.number)
                if row.model not in gone
            ),
        ]

    def replicas(self) -> list[Replica]:
        """The engines of the bases, as they stand."""
        return [replica for base in self._bases for replica in base.replicas.status()]

    def standings(self) -> list[EngineStanding]:
        """How the same engines stand, and those of whole models that run."""
        of_bases = [
            EngineStanding(
                name=replica.name,
                base_model=replica.base_model,
                is_ready=replica.state is EngineState.READY,
                restarts=replica.restarts,
                adapters=replica.adapters,
            )
            for replica in self.replicas()
        ]
        return of_bases + self._own_engines.standings()

    async def aliases(self) -> list[AliasRow]:
        """Names of adapters that point at versions, by adapter and id."""
        return await self._registry.aliases.all()

    def _version(self, row: VersionRow) -> ServedModel:
        base = self._bases.find(row.base_model)
        return ServedModel(
            id=row.model,
            base_model=row.base_model,
            version=row,
            serving=Serving.NONE if base is None else self._serving(row),
            max_model_length=0 if base is None else base.replicas.max_model_length(row.model),
        )

    def _serving(self, row: VersionRow) -> Serving:
        if row.technique is Technique.FULL:
            return self._own_engines.serving(row)
        if row.state == VersionState.ACTIVE and self._served.holds(row.model):
            return Serving.READY
        return Serving.NONE if row.state == VersionState.FAILED else Serving.STARTING

    def hold(self, answers: int) -> Hold:
        """Room for so many answers to one request; see `answer`."""
        return self._room.hold(answers)

    async def stream(self, turn: ChatTurn) -> AsyncGenerator[ChatDelta, None]:
        """Answer in pieces; the last one, and only that, has a finish_reason. Close it to free the engine.

        Raises as `prepare` and `answer`.
        """
        with self.hold(1) as hold:
            async with aclosing(self.answer(await self.prepare(turn), hold)) as deltas:
                async for delta in deltas:
                    yield delta

    async def prepare(self, turn: ChatTurn) -> Prepared:
        """What is asked and of which version, checked and rendered: good for any number of answers that
        begin at once.

        Raises InvalidRequest (order of messages, too long, tools where the base's template has none),
        NotFound (no such model), WrongState (not ACTIVE, of a base that is not served), Unavailable (engine
        starting, version being proven again, a whole model that does not start in time).
        """
        arrived, meant = self._clock(), Tally()
        try:
            return await self._prepared(turn, arrived, meant)
        except BaseException:
            with self._metrics.answer() as tally:  # which never begins
                tally.model = meant.model
                raise

    async def _prepared(self, turn: ChatTurn, arrived: float, meant: Tally) -> Prepared:
        found = base, version = await self._find(turn.model, place_of(turn))
        meant.model = base.name if version is None else version.model
        refuse_tools(turn, base.renderer.tools_refused)
        if turn.text is None:
            check_order(turn.messages)
        token_ids = await _render(turn, base)
        model = await self._awake(base, version)
        is_late = _is_long(turn) or (version is not None and version.technique is Technique.FULL)
        if is_late and await self._find(turn.model, place_of(turn)) != found:
            return await self._prepared(turn, arrived, meant)  # who was meant may be gone by now
        base.replicas.check(model)
        return Prepared(
            base=base,
            model=model,
            token_ids=token_ids,
            sampling=_sampling(turn, base, len(token_ids), base.replicas.max_model_length(model)),
            tools=turn.tools,
            field=_asked_in(turn) if turn.json_schema is None else "response_format",
            arrived=arrived,
        )

    async def answer(self, asked: Prepared, hold: Hold) -> AsyncGenerator[ChatDelta, None]:
        """One answer to what was prepared, as `stream`. `hold` has room for it and those beside it.

        Raises Unavailable (answer cut short, version taken away), Exhausted (too many at once), and
        InvalidRequest for what the engine refuses.
        """
        with self._metrics.answer() as tally:
            tally.model = asked.model
            hold.take()
            answer = self._answer(asked)
            if asked.tools:
                answer = with_calls(answer, asked.base.renderer.call_reader(asked.tools))
            async with aclosing(answer) as deltas:
                async for delta in deltas:
                    _note(tally, delta)
                    yield delta

    async def token_logprobs(
        self, model: str, token_ids: Sequence[int], places: Sequence[int]
    ) -> tuple[float, ...]:
        """Log-probability (nats) of `token_ids[place + 1]`, given those before it, under `model`, for each of
        `places`. Of a prompt-tuned version each place costs a request.

        Raises as `stream`.
        """
        base, version = await self._find(model)
        name = await self._awake(base, version)
        base.replicas.check(name)
        with self._room.hold(1) as hold:
            hold.take()
            return await self._measured(base.replicas, name, token_ids, places)

    async def _measured(
        self, replicas: Replicas, name: str, token_ids: Sequence[int], places: Sequence[int]
    ) -> tuple[float, ...]:
        async def ask(route: Route) -> AsyncGenerator[tuple[float, ...], None]:
            yield await route.logprobs(token_ids, places)

        try:
            async with aclosing(replicas.ask(name, ask)) as found:
                return await anext(found)
        except EngineRefused as error:
            raise _meaning(error, name) from error

    async def _answer(self, asked: Prepared) -> AsyncGenerator[ChatDelta, None]:
        first_token: float | None = None
        model, token_ids = asked.model, asked.token_ids
        try:
            pieces = asked.base.replicas.ask(model, lambda route: route.stream(token_ids, asked.sampling))
            async with aclosing(pieces) as chunks:
                async for chunk in chunks:
                    elapsed = self._clock() - asked.arrived
                    first_token = elapsed if first_token is None else first_token
                    reason = chunk.finish_reason
                    yield ChatDelta(
                        text=chunk.text,
                        model=model,
                        finish_reason=None if reason is None else FinishReason(reason),
                        prompt_tokens=len(token_ids),
                        completion_tokens=chunk.token_count,
                        time_to_first_token_seconds=first_token,
                        elapsed_seconds=elapsed,
                        logprobs=chunk.logprobs,
                    )
        except EngineRefused as error:
            raise _meaning(error, model, asked.field) from error

    async def _find(self, name: str, place: float = 0.0) -> tuple[Base, VersionRow | None]:
        """The model that is meant, and its base; None: the base itself."""
        if (base := self._bases.find(name)) is not None:
            return base, None
        version = await self._registry.resolve_model(name, place, is_able=self._is_able)
        return self._bases.of(version.base_model), version

    def _is_able(self, row: VersionRow) -> bool:
        """Whether it would answer now; an ACTIVE version would not while it is proven again."""
        return row.technique is Technique.FULL or self._served.holds(row.model)

    async def _awake(self, base: Base, version: VersionRow | None) -> str:
        """The exact name of a model that was found, once its engine runs."""
        if version is not None and version.technique is Technique.FULL:
            await self._own_engines.awake(version)
        return base.name if version is None else version.model


def _base_model(base: Base) -> ServedModel:
    ready = base.fleet.state is EngineState.READY
    return ServedModel(
        id=base.name,
        base_model=base.name,
        version=None,
        serving=Serving.READY if ready else Serving.STARTING,
        max_model_length=base.fleet.max_model_length,
    )


def _characters(turn: ChatTurn) -> int:
    if turn.text is not None:
        return len(turn.text)
    return sum(len(message.content) for message in turn.messages) + tool_characters(turn)


def _is_long(turn: ChatTurn) -> bool:
    """Whether rendering it takes a while."""
    return _characters(turn) > _INLINE_CHARACTERS


async def _render(turn: ChatTurn, base: Base) -> list[int]:
    if turn.text is None:
        turns = [_turn(message) for message in turn.messages]
        render = partial(base.renderer.prompt, turns, turn.tools)
    else:
        render = partial(base.renderer.text_prompt, turn.text)
    characters, length = _characters(turn), base.fleet.max_model_length
    if characters > length * _MAX_CHARACTERS_PER_TOKEN:
        raise _too_long(f"{characters} characters cannot fit into", length, _asked_in(turn))
    try:
        return await asyncio.to_thread(render) if _is_long(turn) else render()
    except RenderingError as error:
        raise InvalidRequest([FieldViolation(field=_asked_in(turn), description=str(error))]) from error


def _sampling(turn: ChatTurn, base: Base, prompt_tokens: int, length: int) -> Sampling:
    left = length - prompt_tokens
    wanted = min(DEFAULT_MAX_TOKENS, left) if turn.max_tokens is None else turn.max_tokens
    if left < 1:
        what = f"{prompt_tokens} tokens leave no room for an answer in"
        raise _too_long(what, length, _asked_in(turn))
    if wanted > left:
        raise _too_long(
            f"{prompt_tokens} tokens and max_tokens {wanted} exceed", length, "max_tokens", room=left
        )
    return Sampling(
        max_tokens=wanted,
        temperature=turn.temperature,
        top_p=turn.top_p,
        seed=turn.seed,
        stop=turn.stop,
        stop_token_ids=tuple(sorted(base.renderer.eos_token_ids)),
        choices=turn.choices,
        frequency_penalty=turn.frequency_penalty,
        presence_penalty=turn.presence_penalty,
        logprobs=turn.logprobs,
        json_schema=turn.json_schema,
        shows_special_tokens=bool(turn.tools),
    )


def _turn(message: ChatMessage) -> Turn | ToolTurn:
    if not message.calls and message.role != "tool":
        return Turn(role=message.role, content=message.content)
    return ToolTurn(role=message.role, content=message.content, calls=message.calls, call_id=message.call_id)


def _note(tally: Tally, delta: ChatDelta) -> None:
    tally.prompt_tokens = delta.prompt_tokens
    tally.completion_tokens = delta.completion_tokens
    tally.first_token_seconds = delta.time_to_first_token_seconds
    tally.elapsed_seconds = delta.elapsed_seconds
    tally.finished = delta.finish_reason is not None


def _asked_in(turn: ChatTurn) -> str:
    """The field that says what to answer."""
    return "messages" if turn.text is None else "prompt"


def _too_long(what: str, length: int, field: str, room: int | None = None) -> InvalidRequest:
    text = f"{what} the context of {length} tokens"
    if room is not None:
        text += f"; up to {room} would be accepted"
    return InvalidRequest([FieldViolation(field=field, description=text)])


def _meaning(error: EngineRefused, model: str, field: str = "messages") -> Unavailable | InvalidRequest:
    """What a refusal means to the caller, whose request was complete and checked."""
    if error.status == HTTPStatus.BAD_REQUEST:
        violation = FieldViolation(field=field, description="the engine refuses this request")
        return InvalidRequest([violation])
    if error.status == HTTPStatus.NOT_FOUND:
        return unavailable(f"the engine does not have {model} just now; it is being loaded again")
    return unavailable("the engine failed before it answered")
