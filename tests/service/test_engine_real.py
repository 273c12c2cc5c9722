"""Real vLLM under the real supervisor: what is proven, what is refused, what comes back; and an honest
double.

One engine serves all tests of this module, which run in order: the last one stops it.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest
import pytest_asyncio

from service.artifacts import Manifest
from service.changes import Changes
from service.engine import Abilities, AttachedEngine, EngineClient, EngineState, Supervisor
from service.engine.supervisor import Health
from service.engine.wire import Sampling, completion_request, next_logprob_request, read_slots
from service.jsonshape import Json
from service.registry import VersionState
from service.serving import ChatMessage, ChatTurn, Prover, Routes
from service.serving.proof import Verdict
from service.serving.soft_prompts import EmbeddingTable, SoftPrompt
from service.settings import Settings
from tests.doubles.engine import EngineDouble
from tests.service.real_adapters import TEXTS_TOKENS, Workshop
from tests.service.real_stage import START_SECONDS, Bare, Real, running, serving
from tests.service.registry_stage import until
from tests.service.serving_stage import register
from trainer.config import BaseModel, Technique

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]

STREAMED_TOKENS = 16
"""So many that a busy machine does not send them all at once."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> AsyncIterator[Bare]:
    settings = Settings(
        home=tmp_path_factory.mktemp("real"),
        engine_port=0,
        engine_max_rank=16,
        engine_max_loras=2,
        engine_max_model_len=512,
        engine_max_num_seqs=8,
        engine_start_timeout_seconds=START_SECONDS,
        own_engine_idle_seconds=1.0,
        own_engine_wait_seconds=START_SECONDS,
    )
    base = BaseModel(name="smollm2-135m-instruct", path=base_model_dir, revision="sha256:test")
    changes = Changes()
    health = Health(probe_interval_seconds=2.0, probe_timeout_seconds=10.0, first_backoff_seconds=0.1)
    engine = Supervisor(settings=settings, base=base, changes=changes, health=health)
    on = Bare(settings=settings, base=base, engine=engine, changes=changes)
    with pytest.MonkeyPatch.context() as machine:
        # One that has no compiler, nor anything that another engine had compiled.
        machine.setenv("CXX", str(settings.home / "no-compiler"))
        machine.setenv("TORCHINDUCTOR_CACHE_DIR", str(settings.home / "nothing-compiled"))
        async with running(on):
            yield on


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(bare: Bare) -> AsyncIterator[Real]:
    """From here on the engine has only what the registry wants: tests that load by themselves come before."""
    async with serving(bare) as on:
        yield on


def _key(bare: Bare) -> str:
    return bare.engine.client.headers["Authorization"].removeprefix("Bearer ")


@asynccontextmanager
async def _double_of(bare: Bare, embeddings: Sequence[bytes] = ()) -> AsyncIterator[EngineClient]:
    """A client of a double that was started as the real engine was."""
    double = EngineDouble(
        base_name=bare.base.name,
        max_model_length=512,
        embeddings=embeddings,
        api_key=_key(bare),
        answer_tokens=2 * STREAMED_TOKENS,
    )
    double.slots = bare.settings.engine_max_loras
    async with double:
        client = EngineClient(url=double.url, api_key=_key(bare))
        yield client
        await client.close()


def _streamed(model: str, logprobs: int | None = None) -> Json:
    """Of an answer of `STREAMED_TOKENS`, whatever the model would say."""
    sampling = Sampling(max_tokens=STREAMED_TOKENS, logprobs=logprobs)
    return {**completion_request(model, [1, 5, 9], sampling), "ignore_eos": True}


Call = tuple[str, object | None]
"""Path and body; None: it is a GET."""


async def _compare(double: EngineClient, real: EngineClient, calls: Sequence[Call]) -> None:
    for path, body in calls:
        assert await _ask(double, path, body) == await _ask(real, path, body), (path, body)


async def _ask(client: EngineClient, path: str, body: object | None) -> tuple[int, object]:
    """Status and shape of what a server answers. Of a stream the order of events, several of one shape in a
    row as one (what comes at once is one event), and the usage that it ends with."""
    headers = dict(client.headers)
    async with aiohttp.ClientSession(headers=headers) as session:
        method = "GET" if body is None else "POST"
        async with session.request(method, client.url + path, json=body) as response:
            text = await response.text()
            if response.content_type == "text/event-stream":
                *told, end = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
                assert end == "[DONE]"
                events = [json.loads(event) for event in told]
                order = [shape for shape, _ in groupby(_shape(event) for event in events)]
                return response.status, (order, events[-1].get("usage"))
            if response.content_type == "application/json":
                return response.status, _shape(json.loads(text))
            if path == "/metrics":
                return response.status, (read_slots(text.encode()), _figures_of_adapters(text))
            return response.status, (response.content_type, text) if response.ok else ""


_TOLD = {"object", "parent", "type", "param", "code", "finish_reason"}
"""Names of texts and numbers that are compared, not only their types."""
_BY_TOKEN = {"prompt_logprobs", "top_logprobs"}


def _shape(value: object, name: str = "") -> object:
    """Names and types of JSON, without most of the values; a list by its first element and its last. Names
    that are tokens are data."""
    match value:
        case dict() if name in _BY_TOKEN:
            return [_shape(each) for each in value.values()]
        case dict():
            return {key: _shape(each, key) for key, each in value.items()}
        case list():
            return [_shape(each, name) for each in (value[:1] + value[-1:])]
        case bool():
            return value
        case _ if name in _TOLD:
            return value
        case int() | float():
            return "number"
        case _:
            return type(value).__name__


def _figures_of_adapters(text: str) -> list[str]:
    """What slots are read from, without times. Of the mixes that ran only that of no adapter: which others
    are told depends on the moment."""
    lines = [line.partition("} ")[0] for line in text.splitlines() if "vllm:lora_requests_info" in line]
    return [line for line in lines if line.startswith("#") or line.count('_adapters=""') == 2]


async def test_the_double_answers_as_the_real_engine_does(bare: Bare) -> None:
    name = bare.base.name
    table = EmbeddingTable(bare.base.path)
    nothing = SoftPrompt(rows=b"", tokens=0)
    rows = [table.compose(nothing, [token]).rows for token in range(10)]
    of_no_token = replace(table.compose(nothing, [1]), rows=bytes(len(rows[1])))
    async with _double_of(bare, rows) as double:
        await _compare(
            double,
            bare.engine.client,
            [
                ("/v1/models", None),
                ("/v1/completions", {"model": "nobody", "prompt": [1], "max_tokens": 1}),
                ("/v1/completions", {"model": name, "prompt": [], "max_tokens": 1}),
                ("/v1/completions", {"model": name, "prompt": [1, 2], "max_tokens": 0}),
                ("/v1/completions", {"model": name, "prompt": [1, 2], "max_tokens": 4000}),
                (
                    "/v1/completions",
                    {"model": name, "prompt": [1, 5, 9], "max_tokens": 1, "prompt_logprobs": 0},
                ),
                ("/v1/completions", next_logprob_request(name, table.compose(nothing, [1, 5, 9]), 7)),
                ("/v1/completions", next_logprob_request(name, of_no_token, 7)),
                ("/health", None),
                ("/metrics", None),
                ("/adapters", {"name": "x@1", "src": "/nowhere"}),
                ("/invocations", {"model": name, "prompt": [1], "max_tokens": 1}),
            ],
        )
        assert await double.adapter_slots() == await bare.engine.client.adapter_slots() == 2


async def test_the_double_loads_and_unloads_as_the_real_engine_does(bare: Bare, tmp_path: Path) -> None:
    adapter = await asyncio.to_thread(Workshop(bare.base).draw, seed=9)
    path = str(tmp_path / adapter.publish(tmp_path))
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    async with _double_of(bare) as double:
        await _compare(
            double,
            bare.engine.client,
            [
                (load, {"lora_name": "x@1", "lora_path": str(tmp_path / "missing")}),
                (load, {}),
                (unload, {}),
                (unload, {"lora_name": "x@1"}),
                (load, {"lora_name": "x@1", "lora_path": path}),
                (load, {"lora_name": "x@1", "lora_path": path}),
                (load, {"lora_name": "x@1", "lora_path": str(tmp_path / "missing")}),
                ("/v1/models", None),
                (
                    "/v1/completions",
                    {"model": "x@1", "prompt": [1, 5, 9], "max_tokens": 1, "prompt_logprobs": 0},
                ),
                ("/v1/completions", _streamed("x@1")),
                ("/metrics", None),
                (unload, {"lora_name": "x@1"}),
                (unload, {"lora_name": "x@1"}),
                ("/v1/models", None),
                ("/v1/completions", _streamed("x@1")),
            ],
        )


@pytest.mark.parametrize("logprobs", [None, 0, 3, 30])
async def test_the_double_streams_in_the_order_of_the_real_engine(bare: Bare, logprobs: int | None) -> None:
    request = _streamed(bare.base.name, logprobs)
    async with _double_of(bare) as double:
        await _compare(double, bare.engine.client, [("/v1/completions", request)])


async def test_the_double_keeps_out_whom_the_real_engine_keeps_out(bare: Bare) -> None:
    async with _double_of(bare) as double:
        for key in (None, "another"):
            await _compare(
                EngineClient(url=double.url, api_key=key),
                EngineClient(url=bare.engine.client.url, api_key=key),
                [
                    ("/v1/models", None),
                    ("/v1/completions", {"model": bare.base.name, "prompt": [1], "max_tokens": 1}),
                    ("/v1/load_lora_adapter", {"lora_name": "x@1", "lora_path": "/nowhere"}),
                    ("/health", None),
                    ("/metrics", None),
                    ("/adapters", {"name": "x@1", "src": "/nowhere"}),
                ],
            )


async def test_only_the_good_ones_of_seven_versions_become_active_and_the_engine_lives_on(real: Real) -> None:
    directory = real.artifacts_dir
    good, other, high = [
        await asyncio.to_thread(real.workshop.draw, seed=seed, rank=rank)
        for seed, rank in ((1, 8), (2, 8), (3, 32))
    ]
    prompt, other_prompt = [await asyncio.to_thread(real.workshop.draw_prompt, seed=seed) for seed in (4, 5)]
    flipped = other.publish(directory, canary=other.canary[:2])
    with (directory / flipped / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))
    digests = {
        "good": good.publish(directory),
        "silent": good.publish(directory, renamed=(".layers.", ".layers.9")),
        "flipped": flipped,
        "high": high.publish(directory),
        "swapped": other.publish(directory, canary=good.canary),
        "prompt": prompt.publish(directory),
        "swapped-prompt": other_prompt.publish(directory, canary=prompt.canary),
    }
    generation = real.engine.generation

    rows = {
        name: await register(real.registry, digest, adapter_id=name, base_model=real.base.name)
        for name, digest in digests.items()
    }
    found = {name: await real.outcome(row) for name, row in rows.items()}

    assert {name: row.failure_reason or row.state.value for name, row in found.items()} == {
        "good": "ACTIVE",
        "silent": "NO_EFFECT",
        "flipped": "CORRUPT",
        "high": "RANK_TOO_HIGH",
        "swapped": "WRONG_WEIGHTS",
        "prompt": "ACTIVE",
        "swapped-prompt": "WRONG_WEIGHTS",
    }
    assert real.engine.generation == generation
    for name in ("good", "prompt"):
        figures = found[name].verification
        assert figures is not None
        assert figures.adapter_difference <= figures.tolerance < figures.effect
        assert await real.say(name) != await real.say("")


async def test_base_adapter_and_prompt_asked_at_once_say_what_they_say_alone(real: Real) -> None:
    """Measured, not read: texts differ by a word from batch to batch, log-probabilities by the noise."""
    sequence = tuple(TEXTS_TOKENS[1])
    routes = [real.routes.of(name, real.engine) for name in (real.base.name, "good@1", "prompt@1")]
    alone = [await route.logprobs(sequence) for route in routes]

    together = await asyncio.gather(*(route.logprobs(sequence) for route in routes for _ in range(2)))

    for index, seen in enumerate(together):
        apart = [abs(a - b) for a, b in zip(seen, alone[index // 2], strict=True)]
        assert sum(apart) / len(apart) < 0.1


async def test_an_engine_is_attached_to_by_its_url_and_proves_an_adapter_as_for_its_own_service(
    bare: Bare, real: Real, tmp_path: Path
) -> None:
    settings = Settings.model_validate({"home": tmp_path, "engine_api_key": _key(bare)})
    changes = Changes()
    engine = AttachedEngine(url=real.engine.client.url, settings=settings, base=real.base, changes=changes)
    task = asyncio.create_task(engine.run())
    try:

        async def reached() -> bool:
            return engine.state is EngineState.READY

        await until(changes, "engine", reached, START_SECONDS)
        assert (engine.abilities, engine.max_model_length) == (Abilities(), 512)
        version = await real.registry.get_version("good", 1)
        routes = Routes(base=real.base)
        found = await Prover().prove(
            base=routes.base(engine),
            served=routes.of("good@1", engine),
            generation=engine.generation,
            canary=Manifest.read(real.artifacts_dir / version.digest).canary,
        )
        assert found.verdict is Verdict.OK, found.message
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_models_process_is_forked_off_the_servers_and_imports_nothing_anew(real: Real) -> None:
    assert real.engine.pid is not None
    children = psutil.Process(real.engine.pid).children(recursive=True)
    (model,) = [child for child in children if child.cmdline()[0].startswith("VLLM::EngineCore")]
    # What the server had opened is not there in a process that was started by itself.
    open_ports = {each.laddr.port for each in model.net_connections("tcp") if each.status == "LISTEN"}
    assert urlsplit(real.engine.client.url).port in open_ports


async def test_nothing_spins_in_a_process_that_waits_for_the_models(real: Real) -> None:
    assert real.engine.pid is not None
    titles = [" ".join(child.cmdline()) for child in psutil.Process(real.engine.pid).children(recursive=True)]
    assert any(title.startswith("VLLM::EngineCore") for title in titles), titles
    assert not any(title.startswith("VLLM::Worker") for title in titles), titles


async def test_an_answer_is_one_of_the_choices_where_there_are_any(real: Real) -> None:
    question = (ChatMessage(role="user", content="My parcel never came. Which department?"),)
    turn = ChatTurn(messages=question, max_tokens=12, choices=("billing", "delivery"))
    async with aclosing(real.chat.stream(turn)) as deltas:
        answer = "".join([delta.text async for delta in deltas])
    assert answer in turn.choices


async def test_an_answer_fits_its_schema_and_every_token_tells_the_most_probable_ones(real: Real) -> None:
    schema = {
        "type": "object",
        "properties": {"department": {"enum": ["billing", "delivery"]}},
        "required": ["department"],
        "additionalProperties": False,
    }
    question = (ChatMessage(role="user", content="My parcel never came. Which department?"),)
    turn = ChatTurn(messages=question, max_tokens=40, json_schema=schema, logprobs=3, presence_penalty=0.1)
    async with aclosing(real.chat.stream(turn)) as stream:
        deltas = [delta async for delta in stream]
    assert json.loads("".join(delta.text for delta in deltas))["department"] in {"billing", "delivery"}
    told = [token for delta in deltas for token in delta.logprobs]
    assert len(told) == deltas[-1].completion_tokens
    for token in told:
        values = [logprob for _, logprob in token.top]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert token.logprob <= 0


async def test_a_whole_model_is_proven_and_answers_on_its_own_engine_which_ends_when_idle(real: Real) -> None:
    whole = await asyncio.to_thread(real.workshop.draw_model, seed=6)
    digest = await asyncio.to_thread(whole.publish, real.artifacts_dir)

    row = await register(
        real.registry,
        digest,
        adapter_id="whole",
        rank=0,
        technique=Technique.FULL,
        base_model=real.base.name,
    )
    found = await real.outcome(row)

    assert found.state == VersionState.ACTIVE, found.failure_message
    figures = found.verification
    assert figures is not None
    assert figures.adapter_difference <= figures.tolerance < figures.effect
    assert await real.say("whole") not in {"", await real.say("")}
    await real.sleeps(found)
    assert real.engine.restarts == 0


async def test_a_hung_engine_is_replaced_with_the_adapter_proven_and_nothing_left_of_the_old_one(
    real: Real,
) -> None:
    generation = real.engine.generation
    before = [await real.say("good"), await real.say("prompt")]
    group = real.engine.pid
    assert group is not None
    os.killpg(group, signal.SIGSTOP)
    await real.ready(generation + 1)

    await real.is_served("good@1")
    await real.is_served("prompt@1")

    assert [await real.say("good"), await real.say("prompt")] == before
    assert not _exists(lambda: os.killpg(group, 0))
    assert (await real.registry.get_version("good", 1)).state == VersionState.ACTIVE


def _exists(signal_group: Callable[[], None]) -> bool:
    try:
        signal_group()
    except ProcessLookupError:
        return False
    return True
