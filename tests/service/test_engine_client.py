"""The engine's client: what is an answer, what is a refusal, and what is unknown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from service.engine import EngineClient, EngineRefused, Sampling
from service.engine.capacity import Capacity
from service.engine.client import Limits
from service.engine.sse import MAX_LINE_BYTES, SseError, SseParser
from service.errors import Unavailable
from tests.doubles.arithmetic import logprobs
from tests.doubles.engine import WORDS, EngineDouble

PROMPT = (1, 5, 9, 2)


@pytest.fixture
async def double() -> AsyncIterator[EngineDouble]:
    async with EngineDouble(api_key="secret", noise=0.0) as double:
        yield double


@pytest.fixture
async def client(double: EngineDouble) -> AsyncIterator[EngineClient]:
    client = EngineClient(url=double.url, api_key="secret")
    yield client
    await client.close()


@pytest.fixture
def adapter(tmp_path: Path) -> str:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    return str(tmp_path)


async def _answer(
    client: EngineClient, model: str = "base", max_tokens: int = 16
) -> tuple[str, list[str | None], int]:
    text, reasons, tokens = "", [], 0
    stream = client.stream(model=model, prompt=PROMPT, sampling=Sampling(max_tokens=max_tokens))
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            text += chunk.text
            reasons.append(chunk.finish_reason)
            tokens = chunk.token_count
    return text, reasons, tokens


async def test_an_answer_comes_whole_with_its_counts_and_its_reason_last(client: EngineClient) -> None:
    text, reasons, tokens = await _answer(client)

    assert text == "".join(WORDS[:5])
    assert tokens == 5
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) <= {None}


async def test_an_answer_that_reaches_its_limit_says_so(client: EngineClient) -> None:
    _, reasons, tokens = await _answer(client, max_tokens=2)

    assert (reasons[-1], tokens) == ("length", 2)


async def test_an_answer_cut_at_any_byte_is_never_taken_for_one(
    double: EngineDouble, client: EngineClient
) -> None:
    double.faults.cut_stream_at = 10**6
    whole = 0
    fields = {"prompt": list(PROMPT), "max_tokens": 16, "model": "base"}
    async for event in double._events(fields, double._read_prompt(fields)):
        whole += len(f"data: {event}\n\n")
    for cut in [*range(0, whole - 2, 13), *range(whole - 40, whole - 1)]:
        double.faults.cut_stream_at = cut
        with pytest.raises(Unavailable):
            await _answer(client)
    double.faults.cut_stream_at = None
    assert (await _answer(client))[1][-1] == "stop"


@pytest.mark.parametrize("reason", ["abort", "error", "tool_calls", None])
async def test_an_answer_with_another_end_than_stop_or_length_is_an_error(
    double: EngineDouble, client: EngineClient, reason: str | None
) -> None:
    double.faults.finish_reason = reason

    with pytest.raises(Unavailable):
        await _answer(client)


@pytest.mark.parametrize("token", [0, 3])
async def test_an_error_event_within_http_200_is_an_error(
    double: EngineDouble, client: EngineClient, token: int
) -> None:
    double.faults.error_event_at = token

    with pytest.raises(Unavailable):
        await _answer(client)


async def test_closing_an_answer_ends_it_at_the_engine(double: EngineDouble, client: EngineClient) -> None:
    double.hold = asyncio.Event()
    stream = client.stream(model="base", prompt=PROMPT, sampling=Sampling(max_tokens=16))
    await anext(stream)
    assert double.streams == 1

    await stream.aclose()

    async with asyncio.timeout(1):
        await double.stream_ended.wait()
    assert double.streams == 0


async def test_an_answer_that_is_being_read_ends_when_its_engine_is_given_up(double: EngineDouble) -> None:
    double.hold = asyncio.Event()
    client = EngineClient(url=double.url, api_key="secret")
    stream = client.stream(model="base", prompt=PROMPT, sampling=Sampling(max_tokens=16))
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)  # until it reads

    await client.close()

    async with asyncio.timeout(10):
        with pytest.raises(Unavailable):
            await waiting


async def test_a_stream_without_a_sign_of_life_is_given_up(double: EngineDouble) -> None:
    double.hold = asyncio.Event()
    client = EngineClient(url=double.url, api_key="secret", limits=Limits(stream_idle_seconds=0.05))

    with pytest.raises(Unavailable):
        await _answer(client)
    await client.close()


async def test_a_wrong_key_is_a_refusal_and_not_an_empty_list(double: EngineDouble) -> None:
    client = EngineClient(url=double.url, api_key="wrong")

    with pytest.raises(EngineRefused) as refusal:
        await client.models()
    assert refusal.value.status == 401
    await client.close()


async def test_an_engine_that_is_not_there_is_unavailable_and_not_empty(
    double: EngineDouble, client: EngineClient
) -> None:
    await double.stop()

    with pytest.raises(Unavailable):
        await client.models()


async def test_models_tell_the_base_from_adapters(
    double: EngineDouble, client: EngineClient, adapter: str
) -> None:
    await client.load_adapter(name="support@1", path=adapter)

    base, loaded = await client.models()

    assert (base.name, base.base_model, base.max_model_length) == ("base", None, 2048)
    assert (loaded.name, loaded.base_model, loaded.path) == ("support@1", "base", adapter)


async def test_loading_twice_from_the_same_directory_is_success(client: EngineClient, adapter: str) -> None:
    await client.load_adapter(name="support@1", path=adapter)
    await client.load_adapter(name="support@1", path=adapter)

    assert client.loaded == {"support@1"}


async def test_a_name_loaded_from_another_directory_is_refused(
    client: EngineClient, adapter: str, tmp_path: Path
) -> None:
    await client.load_adapter(name="support@1", path=adapter)

    with pytest.raises(EngineRefused, match="another directory"):
        await client.load_adapter(name="support@1", path=str(tmp_path / "other"))


async def test_a_load_whose_answer_was_lost_is_looked_up(
    double: EngineDouble, client: EngineClient, adapter: str
) -> None:
    double.faults.lost_answers = {"/v1/load_lora_adapter"}

    await client.load_adapter(name="support@1", path=adapter)

    assert double.calls["/v1/load_lora_adapter"] == 1
    assert list(double.adapters) == ["support@1"]


async def test_a_load_that_never_answers_and_never_happens_is_unknown(
    double: EngineDouble, adapter: str
) -> None:
    double.faults.stalled_loads = {"support@1"}
    client = EngineClient(url=double.url, api_key="secret", limits=Limits(load_seconds=0.05))

    with pytest.raises(Unavailable):
        await client.load_adapter(name="support@1", path=adapter)
    assert client.loaded == frozenset()
    await client.close()


async def test_a_missing_directory_is_refused(client: EngineClient, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused) as refusal:
        await client.load_adapter(name="support@1", path=str(tmp_path / "missing"))
    assert refusal.value.status == 404


async def test_unloading_what_is_not_there_is_success(client: EngineClient, adapter: str) -> None:
    await client.load_adapter(name="support@1", path=adapter)
    await client.unload_adapter("support@1")
    await client.unload_adapter("support@1")

    assert [model.name for model in await client.models()] == ["base"]


async def test_prompt_logprobs_are_those_of_each_token_but_the_first(client: EngineClient) -> None:
    measured = await client.prompt_logprobs(model="base", token_ids=PROMPT)

    assert measured == pytest.approx(logprobs(None, PROMPT))


async def test_a_model_that_cannot_be_computed_is_a_refusal(
    double: EngineDouble, client: EngineClient, adapter: str
) -> None:
    await client.load_adapter(name="support@1", path=adapter)
    double.faults.broken_weights = {"support@1"}

    with pytest.raises(EngineRefused):
        await client.prompt_logprobs(model="support@1", token_ids=PROMPT)


def test_the_event_parser_does_not_care_where_pieces_end() -> None:
    stream = b': note\r\ndata: {"a": 1}\r\n\r\ndata:{"b": 2}\n\ndata: [DONE]\n\n'
    for size in range(1, len(stream)):
        parser = SseParser()
        pieces = (stream[start : start + size] for start in range(0, len(stream), size))

        assert [each for piece in pieces for each in parser.feed(piece)] == [
            b'{"a": 1}',
            b'{"b": 2}',
            b"[DONE]",
        ]
        assert parser.rest == b""


@pytest.mark.parametrize("stream", [b"event: x\n", b"<html>\n", b"x" * (MAX_LINE_BYTES + 1)])
def test_the_event_parser_refuses_what_vllm_does_not_write(stream: bytes) -> None:
    with pytest.raises(SseError):
        SseParser().feed(stream)


@pytest.fixture
async def crowded(double: EngineDouble, tmp_path: Path) -> AsyncIterator[EngineClient]:
    """A client of an engine with one slot and two places in memory, which knows three adapters."""
    client = EngineClient(
        url=double.url,
        api_key="secret",
        base="base",
        capacity=Capacity(slots=1, cached=2),
        limits=Limits(slot_seconds=0.1),
    )
    for name in ("a", "b", "c"):
        directory = tmp_path / name
        directory.mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (directory / file).write_bytes(name.encode())
        await client.load_adapter(name=name, path=str(directory))
    yield client
    await client.close()


async def test_an_adapter_whose_files_are_away_is_not_asked_of_an_engine_that_would_have_to_read_them(
    crowded: EngineClient, double: EngineDouble, tmp_path: Path
) -> None:
    assert [name for name in "abc" if crowded.has_in_memory(name)] == ["b", "c"]
    for name in ("a", "b", "c"):
        (tmp_path / name / "adapter_model.safetensors").rename(tmp_path / f"{name}-aside")
    asked = double.calls["/v1/completions"]

    with pytest.raises(Unavailable, match="files of a cannot be read"):
        await _answer(crowded, "a")
    assert double.calls["/v1/completions"] == asked
    await crowded.prompt_logprobs(model="b", token_ids=PROMPT)  # it is in memory

    (tmp_path / "a-aside").rename(tmp_path / "a" / "adapter_model.safetensors")
    assert (await _answer(crowded, "a"))[0]
    assert [name for name in "abc" if crowded.has_in_memory(name)] == ["a", "b"]


async def test_an_answer_that_nobody_takes_keeps_no_slot_once_the_engine_has_given_it(
    crowded: EngineClient, double: EngineDouble
) -> None:
    double.hold = asyncio.Event()
    async with aclosing(crowded.stream(model="b", prompt=PROMPT, sampling=Sampling(max_tokens=8))) as chunks:
        first = await anext(chunks)
        double.hold.set()

        assert (await _answer(crowded, "c"))[0]

        rest = [chunk async for chunk in chunks]
    assert first.finish_reason is None
    assert rest[-1].finish_reason is not None


async def test_an_adapter_without_a_slot_waits_for_one_within_its_limit_and_the_base_for_none(
    crowded: EngineClient, double: EngineDouble
) -> None:
    double.hold = asyncio.Event()
    stream = crowded.stream(model="b", prompt=PROMPT, sampling=Sampling(max_tokens=8))
    async with aclosing(stream) as chunks:
        await anext(chunks)
        with pytest.raises(Unavailable, match="c waits"):
            await crowded.prompt_logprobs(model="c", token_ids=PROMPT)
        await crowded.prompt_logprobs(model="b", token_ids=PROMPT)
        await crowded.produce_token("base")
        await crowded.prompt_logprobs(model="base", token_ids=PROMPT)

    await crowded.prompt_logprobs(model="c", token_ids=PROMPT)
