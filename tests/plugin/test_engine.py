"""On the real engine, base and adapters asked all at once answer as each does alone."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from hotlora_vllm_cpu_lora.register import ACTIVE_MESSAGE

from tests.plugin.engine_process import running_engine
from tests.plugin.random_adapter import write_random_adapter
from tests.plugin.shallow_base import write_shallow_base

RANKS = {"red": 16, "green": 8, "blue": 4, "grey": 16}
"""The adapters: one more than there are slots, so that slots are refilled while others generate."""
WITH_LM_HEAD = "red"
"""The adapter that changes the logits directly too."""
MAX_LORAS = 3
"""All slots in use: vLLM's own operators give base rows the weights of the last slot."""
NUM_MIXES = 200
MIXES_IN_FLIGHT = 6
SHORTEST_ANSWER_TOKENS, LONGEST_ANSWER_TOKENS = 2, 5
NUM_TOP_LOGPROBS = 5
LEAST_NOISE, MOST_NOISE = 0.02, 1.0
"""Of a log-probability; sums depend on the size of the batch. Another model's weights move it by units."""
NOISE_MARGIN = 3.0
"""How much further an answer may move in mixed company; bf16 logits near 20 lie 0.125 apart."""
QUESTIONS = (
    "The capital of France is",
    "Once upon a time there was a",
    "To boil an egg you need",
    "My printer does not work because",
    "The three primary colours are",
    "In winter the days are",
    "def add(a, b):",
    "Dear customer, thank you for",
    "A train leaves the station at",
    "The opposite of hot is",
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A greedy continuation, token by token."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    """Of each token chosen."""
    top_logprobs: tuple[dict[str, float], ...]
    """At each position, the most likely tokens."""
    prompt_logprobs: tuple[float, ...]
    """Of each token of the question after the first."""


@pytest.mark.engine
@pytest.mark.timeout(900)
async def test_base_and_adapters_asked_at_once_answer_as_they_do_alone(
    base_model_dir: Path, tmp_path: Path
) -> None:
    model_dir = tmp_path / "base"
    write_shallow_base(model_dir, model_dir=base_model_dir)
    adapters = {name: tmp_path / name for name in RANKS}
    for seed, (name, directory) in enumerate(adapters.items()):
        write_random_adapter(
            directory,
            model_dir=model_dir,
            rank=RANKS[name],
            seed=seed,
            with_lm_head=name == WITH_LM_HEAD,
        )
    models = ("base", *adapters)
    async with (
        running_engine(
            model_dir=model_dir,
            adapters=adapters,
            max_loras=MAX_LORAS,
            socket_path=tmp_path / "engine.socket",
        ) as engine,
        aiohttp.ClientSession(
            "http://engine", connector=aiohttp.UnixConnector(str(engine.socket_path))
        ) as session,
    ):
        alone = {
            (model, question): await _ask(session, model, question, LONGEST_ANSWER_TOKENS)
            for model in models
            for question in QUESTIONS
        }
        noise = max([LEAST_NOISE, *[await _noise(session, model, alone) for model in models]])
        assert noise <= MOST_NOISE, f"a model's own batches move its log-probabilities by {noise:.3f}"
        _assert_models_differ(alone, models, noise)
        turns = asyncio.Semaphore(MIXES_IN_FLIGHT)
        choice = random.Random(0)
        mixes = [_random_mix(choice) for _ in range(NUM_MIXES)]
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(_ask_mix(session, turns, mix)) for mix in mixes]
        log = "".join(engine.log)
    wrong = [
        f"{model} on {question!r}: {difference}"
        for mix, task in zip(mixes, answers, strict=True)
        for (model, question, _), answer in zip(mix, task.result(), strict=True)
        if (difference := _difference(answer, alone[model, question], noise)) is not None
    ]
    num_asked = sum(len(mix) for mix in mixes)
    assert not wrong, f"{len(wrong)} of {num_asked} answers moved by more than {noise:.3f}:\n" + "\n".join(
        wrong[:20]
    )
    assert ACTIVE_MESSAGE in log


def _random_mix(choice: random.Random) -> list[tuple[str, str, int]]:
    """Base and three adapters in random order: (model, question, tokens to generate)."""
    models = ["base", *choice.sample(sorted(RANKS), 3)]
    choice.shuffle(models)
    return [
        (model, choice.choice(QUESTIONS), choice.randint(SHORTEST_ANSWER_TOKENS, LONGEST_ANSWER_TOKENS))
        for model in models
    ]


async def _ask_mix(
    session: aiohttp.ClientSession, turns: asyncio.Semaphore, mix: list[tuple[str, str, int]]
) -> list[Answer]:
    async with turns:
        return await asyncio.gather(*(_ask(session, *request) for request in mix))


async def _ask(session: aiohttp.ClientSession, model: str, question: str, max_tokens: int) -> Answer:
    body = {
        "model": model,
        "prompt": question,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": NUM_TOP_LOGPROBS,
        "prompt_logprobs": 0,
    }
    async with session.post("/v1/completions", json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
    logprobs = answer["choices"][0]["logprobs"]
    return Answer(
        tokens=tuple(logprobs["tokens"]),
        logprobs=tuple(logprobs["token_logprobs"]),
        top_logprobs=tuple(logprobs["top_logprobs"]),
        prompt_logprobs=tuple(
            next(iter(position.values()))["logprob"]
            for position in answer["choices"][0]["prompt_logprobs"][1:]
        ),
    )


async def _noise(session: aiohttp.ClientSession, model: str, alone: dict[tuple[str, str], Answer]) -> float:
    """How far log-probabilities may move, judged by a batch of this model's own requests."""
    requests = [_ask(session, model, question, LONGEST_ANSWER_TOKENS) for question in QUESTIONS]
    answers = dict(zip(QUESTIONS, await asyncio.gather(*requests), strict=True))
    return NOISE_MARGIN * max(_largest_step(answer, alone[model, q]) for q, answer in answers.items())


def _largest_step(found: Answer, alone: Answer) -> float:
    """The largest change of a log-probability, up to the first token that differs."""
    steps = [abs(a - b) for a, b in zip(found.prompt_logprobs, alone.prompt_logprobs, strict=True)]
    for token, logprob, expected, expected_logprob in zip(
        found.tokens, found.logprobs, alone.tokens, alone.logprobs, strict=True
    ):
        if token != expected:
            break
        steps.append(abs(logprob - expected_logprob))
    return max(steps)


def _difference(found: Answer, alone: Answer, noise: float) -> str | None:
    """What differs beyond noise, up to the first position where noise decided between two likely tokens."""
    for position, (logprob, expected) in enumerate(
        zip(found.prompt_logprobs, alone.prompt_logprobs, strict=True), start=1
    ):
        if abs(expected - logprob) > noise:
            return f"token {position} of the question is at {logprob:.3f}, alone at {expected:.3f}"
    for position, (token, logprob) in enumerate(zip(found.tokens, found.logprobs, strict=True)):
        likely = alone.top_logprobs[position].get(token)
        if likely is None or abs(likely - logprob) > noise:
            return f"token {position} is {token!r} at {logprob:.3f}, alone {alone.top_logprobs[position]}"
        if token != alone.tokens[position]:
            gap = alone.logprobs[position] - likely
            return None if gap <= noise else f"{token!r} won against a gap of {gap:.3f}"
    return None


def _assert_models_differ(
    alone: dict[tuple[str, str], Answer], models: tuple[str, ...], noise: float
) -> None:
    """The test has no force where a mix-up of two models would go unseen; for one question in ten it may."""
    for first, second in itertools.permutations(models, 2):
        unseen = [q for q in QUESTIONS if _difference(alone[first, q], alone[second, q], noise) is None]
        assert len(unseen) <= 1, f"{first} and {second} answer alike on {unseen}"
