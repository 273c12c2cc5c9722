"""A bounded load of streamed chat requests on an OpenAI-compatible server, and what it measured."""

import asyncio
import json
import time
from dataclasses import dataclass
from statistics import median

import aiohttp

QUESTION = "Write a long story about a lighthouse keeper and number {number}. Do not stop early."

LENGTHS = (0.5, 1.25, 0.75, 1.5, 1.0)
"""Of answers, as parts of the tokens that are asked for: were all as long, they would begin and end together.
"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where requests go."""

    url: str
    model: str
    api_key: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One burst of requests."""

    tokens_per_second: float
    median_time_to_first_token_seconds: float


class Load:
    """Sends bursts; every request asks something new, so that no prefix is cached for one arm alone."""

    def __init__(self, session: aiohttp.ClientSession, *, max_tokens: int) -> None:
        self._session = session
        self._max_tokens = max_tokens
        self._number = 0

    async def burst(self, targets: list[Target], *, concurrency: int, requests: int) -> Measured:
        """`requests` requests, at most `concurrency` at a time, spread evenly over `targets`."""
        slots = asyncio.Semaphore(concurrency)

        async def one(index: int) -> tuple[int, float]:
            async with slots:
                return await self._request(targets[index % len(targets)], self._length(index))

        began = time.perf_counter()
        answers = await asyncio.gather(*(one(index) for index in range(requests)))
        seconds = time.perf_counter() - began
        return Measured(
            tokens_per_second=sum(tokens for tokens, _ in answers) / seconds,
            median_time_to_first_token_seconds=median(first for _, first in answers),
        )

    async def pairs(
        self, targets: tuple[Target, Target], *, concurrency: int, pairs: int
    ) -> list[tuple[float, float]]:
        """Seconds to the first token of both targets, pair by pair, at most `concurrency` requests at a time.

        The two of a pair are sent at the same moment, now the one first, now the other; one after the other
        where `concurrency` is 1. The first `concurrency // 2` pairs are sent all at once, and each of the
        others as soon as one has ended.
        """
        slots = asyncio.Semaphore(max(1, concurrency // 2))

        async def one(index: int) -> tuple[float, float]:
            turn = 1 if index % 2 == 0 else -1
            length = self._length(index)
            async with slots:
                if concurrency == 1:
                    answers = [await self._request(target, length) for target in targets[::turn]]
                else:
                    answers = await asyncio.gather(
                        *(self._request(target, length) for target in targets[::turn])
                    )
            (_, first), (_, second) = answers[::turn]
            return first, second

        return await asyncio.gather(*(one(index) for index in range(pairs)))

    def _length(self, index: int) -> int:
        return int(self._max_tokens * LENGTHS[index % len(LENGTHS)])

    async def _request(self, target: Target, max_tokens: int) -> tuple[int, float]:
        self._number += 1
        body = {
            "model": target.model,
            "messages": [{"role": "user", "content": QUESTION.format(number=self._number)}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
        began = time.perf_counter()
        first_seconds, tokens = 0.0, 0
        async with self._session.post(
            f"{target.url}/v1/chat/completions", json=body, headers=headers
        ) as response:
            response.raise_for_status()
            async for line in response.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                chunk = json.loads(line[6:])
                if not first_seconds and any(c["delta"].get("content") for c in chunk["choices"]):
                    first_seconds = time.perf_counter() - began
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        return tokens, first_seconds
