"""How each model is asked: of which engine, under which name, with which virtual tokens before the prompt.

Whoever wants something of a model by its exact name goes through here, so that all kinds of versions are
asked alike. Whether a model may answer is not decided here.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from service.engine.client import EngineClient
from service.engine.face import Engine
from service.engine.wire import Chunk, Prompt, Sampling
from service.serving.soft_prompts import EmbeddingTable, SoftPrompt
from trainer.config import BaseModel

_MEASURED_PLACES = 16
"""Of a sequence, where each place costs a request. The sequences of a canary are then some 64 tokens
together, which tell prompts apart by orders of magnitude."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Virtual tokens, and what is needed to put them before a prompt."""

    prompt: SoftPrompt
    table: EmbeddingTable


@dataclass(frozen=True, kw_only=True)
class Route:
    """How one model is asked."""

    engine: Engine
    name: str
    """What the engine calls it."""
    prefix: Prefix | None = None
    pinned: EngineClient | None = None
    """Client of the one process that may be asked; None: whichever runs."""

    @property
    def client(self) -> EngineClient:
        """Client of its engine. Raises Unavailable where there is none yet."""
        return self.engine.client if self.pinned is None else self.pinned

    def on(self, client: EngineClient) -> "Route":
        """The same route to the engine behind `client` alone: once that process is gone, nobody answers. A
        new process knows nothing yet of what the old one had loaded, and its refusals prove nothing."""
        return replace(self, pinned=client)

    @property
    def max_model_length(self) -> int:
        """Tokens that prompt and answer together may have."""
        return self.engine.max_model_length - (self.prefix.prompt.tokens if self.prefix else 0)

    async def stream(self, token_ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Stream an answer; as `EngineClient.stream`."""
        prompt = await self._prompt(token_ids)
        async with aclosing(self.client.stream(model=self.name, prompt=prompt, sampling=sampling)) as chunks:
            async for chunk in chunks:
                yield chunk

    def places(self, tokens: int) -> Sequence[int]:
        """Which of the `tokens - 1` log-probabilities of a sequence `logprobs` gives: all, or evenly spread
        ones up to the last where each costs a request (vLLM refuses prompt_logprobs with embeddings)."""
        if self.prefix is None:
            return range(tokens - 1)
        most = min(_MEASURED_PLACES, tokens - 1)
        return [(index + 1) * (tokens - 1) // most - 1 for index in range(most)]

    async def logprobs(
        self, token_ids: Sequence[int], places: Sequence[int] | None = None
    ) -> tuple[float, ...]:
        """Log-probabilities (nats) of `token_ids[place + 1]` given those before it, for each of `places`;
        None: those that the method of that name gives.

        Raises as `EngineClient.prompt_logprobs`.
        """
        wanted = self.places(len(token_ids)) if places is None else places
        if self.prefix is None:
            every = await self.client.prompt_logprobs(model=self.name, token_ids=token_ids)
            return tuple(every[place] for place in wanted)
        found = await asyncio.gather(
            *(self._next_logprob(token_ids[: place + 1], token_ids[place + 1]) for place in wanted)
        )
        return tuple(found)

    async def _next_logprob(self, before: Sequence[int], token: int) -> float:
        prompt = await self._prompt(before)
        return await self.client.next_logprob(model=self.name, prompt=prompt, token=token)

    async def _prompt(self, token_ids: Sequence[int]) -> Prompt:
        if self.prefix is None:
            return token_ids
        return await asyncio.to_thread(self.prefix.table.compose, self.prefix.prompt, token_ids)


class Routes:
    """Routes to the base, to adapters, to the soft prompts that are held here, and to whole models: the same
    name may be asked of several engines."""

    def __init__(self, *, base: BaseModel) -> None:
        self._base = base
        self._table: EmbeddingTable | None = None
        self._held: dict[tuple[Engine, str], tuple[Path, Prefix]] = {}

    def base(self, engine: Engine) -> Route:
        """The route to the base model in `engine`."""
        return Route(engine=engine, name=self._base.name)

    def of(self, model: str, engine: Engine) -> Route:
        """The route to `model`, an exact name, in `engine`."""
        if (engine, model) in self._held:
            _, prefix = self._held[engine, model]
            return Route(engine=engine, name=self._base.name, prefix=prefix)
        return Route(engine=engine, name=model)

    async def hold(self, model: str, engine: Engine, *, directory: Path, virtual_tokens: int) -> None:
        """Read the soft prompt at `directory` and put it before every prompt to `model` in `engine` from now
        on.

        Raises NoPlainEmbeddingsError, MalformedPromptError, OSError.
        """
        if self._table is None:
            self._table = await asyncio.to_thread(EmbeddingTable, self._base.path)
        prompt = await asyncio.to_thread(self._table.read_prompt, directory, virtual_tokens)
        self._held[engine, model] = (directory, Prefix(prompt=prompt, table=self._table))

    def discard(self, model: str, engine: Engine) -> bool:
        """Forget the soft prompt of `model` in `engine`; whether there was one."""
        return self._held.pop((engine, model), None) is not None

    def forget(self, engine: Engine) -> None:
        """Forget the soft prompts of an engine that is gone for good."""
        for model in self.held(engine):
            self.discard(model, engine)

    def held(self, engine: Engine) -> dict[str, str]:
        """Models with a soft prompt in `engine`, and the directories that these were read from."""
        return {model: str(path) for (where, model), (path, _) in self._held.items() if where is engine}
