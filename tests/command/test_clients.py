"""Both clients: typed errors, safe retries, watches that survive, streams that end when they are closed."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotlora import errors, requests
from hotlora.aio import AsyncClient
from hotlora.calls import UPLOAD_CHUNK_BYTES, UPLOAD_LIMIT_BYTES
from hotlora.client import Client
from hotlora.following import FIRST_TRIES, PATIENCE_SECONDS, STEADY_SECONDS, JobCursor, Patience
from hotlora.v1.chat_service_pb2 import ChatRequest, ChatResponse
from hotlora.v1.tuning_service_pb2 import Hyperparameters, TuningEvent, WatchTuningJobResponse
from tests.command.conftest import GOOD_ROW
from tests.command.service import State, serving


def _endless(request: ChatRequest) -> Iterator[ChatResponse]:
    while True:
        yield ChatResponse(delta="on and ")


def test_every_violation_of_a_refused_request_reaches_the_caller(address: str) -> None:
    with Client(address) as client, pytest.raises(errors.InvalidArgument) as caught:
        client.create_tuning_job(
            dataset="datasets/d", adapter_id="../etc", hyperparameters=Hyperparameters(rank=10**9)
        )

    assert [violation.field for violation in caught.value.violations] == [
        "adapter_id",
        "hyperparameters.rank",
    ]
    assert caught.value.reason == "INVALID_REQUEST"


def test_a_missing_thing_is_not_found_with_the_services_sentence(address: str) -> None:
    with Client(address) as client, pytest.raises(errors.NotFound, match=r"There is no tuningJobs/nope\."):
        client.get_tuning_job("tuningJobs/nope")


async def test_the_asynchronous_client_raises_the_same_errors(address: str) -> None:
    async with AsyncClient(address) as client:
        with pytest.raises(errors.NotFound):
            await client.get_tuning_job("tuningJobs/nope")
        with pytest.raises(errors.Unavailable) as caught:
            await anext(client.chat([requests.user("hi")], model="loading"))

    assert caught.value.retry_delay_seconds == 8
    assert caught.value.reason == "ENGINE_STARTING"


def test_a_read_that_nobody_answered_is_asked_again(state: State, address: str) -> None:
    state.unavailable_times = 2

    with Client(address) as client:
        job = client.get_tuning_job("tuningJobs/j0")

    assert job.name == "tuningJobs/j0"
    assert state.reads == 3


def test_a_read_is_not_asked_again_for_ever(state: State, address: str) -> None:
    state.unavailable_times = 1000

    with Client(address) as client, pytest.raises(errors.Unavailable, match="draining"):
        client.get_tuning_job("tuningJobs/j0")

    assert state.reads == 4


def test_each_creation_carries_an_id_that_makes_its_repetition_harmless(state: State, address: str) -> None:
    ids = iter(["first", "second"])
    with Client(address, new_id=lambda: next(ids)) as client:
        client.create_tuning_job(dataset="datasets/d", adapter_id="a")
        client.create_tuning_job(dataset="datasets/d", adapter_id="a")
        again = client.create_tuning_job(dataset="datasets/d", adapter_id="a", request_id="first")

    assert [request.request_id for request in state.created] == ["first", "second", "first"]
    assert again.name == "tuningJobs/j2"


def test_a_closed_port_is_unavailable_in_words_for_a_person() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Client(address) as client, pytest.raises(errors.Unavailable, match=f"answers at {address}"):
            client.list_models()


def test_a_watch_that_is_cut_twice_misses_nothing_and_repeats_nothing(state: State, address: str) -> None:
    state.cuts_after = [2, 5]

    with Client(address) as client:
        updates = list(client.watch_tuning_job("tuningJobs/j0"))

    assert [update.WhichOneof("update") for update in updates] == ["tuning_job", *["event"] * 9]
    assert [update.event.sequence for update in updates[1:]] == list(range(1, 10))
    assert state.watched_from == [0, 2, 5]


async def test_an_asynchronous_watch_goes_on_when_the_service_comes_back(state: State) -> None:
    with serving(state) as address:
        client = AsyncClient(address)
        state.cuts_after = [4]
        watch = client.watch_tuning_job("tuningJobs/j0")
        seen = [(await anext(watch)).event.sequence for _ in range(5)]
    with serving(state, address):
        seen += [update.event.sequence async for update in watch]
    await client.close()

    assert seen == list(range(10))


async def test_a_watch_begins_after_the_cursor_it_is_given(state: State, address: str) -> None:
    async with AsyncClient(address) as client:
        seen = [update.event.sequence async for update in client.watch_tuning_job("tuningJobs/j0", 6)]

    assert seen == [0, 7, 8, 9]


def test_an_event_that_comes_again_is_not_passed_on_again() -> None:
    cursor = JobCursor("tuningJobs/j0", after_sequence=3)

    passed = [
        cursor.is_new(WatchTuningJobResponse(event=TuningEvent(sequence=sequence)))
        for sequence in (2, 3, 4, 4, 5, 1)
    ]

    assert passed == [False, False, True, False, True, False]
    assert cursor.request().after_sequence == 5


def test_a_watch_of_something_missing_fails_at_once(state: State, address: str) -> None:
    with Client(address) as client, pytest.raises(errors.NotFound):
        next(client.watch_tuning_job("tuningJobs/nope"))

    assert state.watched_from == [0]


def test_closing_an_answer_ends_it_at_the_service(state: State, address: str) -> None:
    state.answer = _endless
    with Client(address) as client:
        answer = client.chat([requests.user("talk")])
        assert next(answer).delta == "on and "
        answer.close()

        assert state.chat_ended.wait(timeout=10)


async def test_cancelling_the_task_that_reads_an_answer_ends_it_at_the_service(
    state: State, address: str
) -> None:
    state.answer = _endless
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in client.chat([requests.user("talk")]):
            begun.set()

    async with AsyncClient(address) as client:
        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert await asyncio.to_thread(state.chat_ended.wait, 10)


def test_an_upload_arrives_whole_in_chunks_and_tells_its_progress(
    state: State, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD_ROW * 12_000)
    told: list[int] = []

    with Client(address) as client:
        dataset = client.upload_dataset(path, dataset_id="big", sent=told.append)

    assert state.uploaded[dataset.name] == GOOD_ROW * 12_000
    assert told[0] == UPLOAD_CHUNK_BYTES
    assert told[-1] == len(GOOD_ROW) * 12_000


async def test_an_asynchronous_upload_of_bytes_arrives_whole(state: State, address: str) -> None:
    async with AsyncClient(address) as client:
        dataset = await client.upload_dataset(GOOD_ROW * 12_000, dataset_id="big")

    assert state.uploaded[dataset.name] == GOOD_ROW * 12_000


async def test_an_upload_that_is_refused_before_its_last_byte_raises_the_refusal(
    state: State, address: str
) -> None:
    state.deleted_datasets.add("datasets/gone")
    content = GOOD_ROW * 200_000

    with Client(address) as client, pytest.raises(errors.AlreadyExists):
        client.upload_dataset(content, dataset_id="gone")
    async with AsyncClient(address) as asynchronous:
        with pytest.raises(errors.AlreadyExists):
            await asynchronous.upload_dataset(content, dataset_id="gone")


def test_a_file_far_too_large_is_refused_without_sending_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(UPLOAD_LIMIT_BYTES + 1)

    with Client("127.0.0.1:1") as client, pytest.raises(errors.ResourceExhausted, match="536,870,912"):
        client.upload_dataset(path)


def test_one_client_serves_several_threads(address: str) -> None:
    found: list[str] = []
    with Client(address) as client:
        threads = [
            threading.Thread(target=lambda: found.append(client.get_tuning_job("tuningJobs/j0").name))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == ["tuningJobs/j0"] * 8


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_watch_that_never_began_is_given_up_after_a_few_tries() -> None:
    patience, error = Patience(_Clock()), errors.Unavailable("gone")

    for _ in range(FIRST_TRIES - 1):
        assert patience.pause_seconds(error) > 0
    with pytest.raises(errors.Unavailable):
        patience.pause_seconds(error)


def test_a_watch_that_had_begun_is_given_up_when_patience_is_over() -> None:
    clock = _Clock()
    patience, error = Patience(clock), errors.Unavailable("gone")
    patience.progressed()
    patience.pause_seconds(error)
    clock.now = PATIENCE_SECONDS - 1
    patience.opened()
    patience.pause_seconds(error)
    clock.now = PATIENCE_SECONDS + 1
    patience.opened()

    with pytest.raises(errors.Unavailable):
        patience.pause_seconds(error)


def test_a_steady_connection_renews_the_patience() -> None:
    clock = _Clock()
    patience, error = Patience(clock), errors.Unavailable("gone")
    patience.progressed()
    patience.pause_seconds(error)
    patience.opened()
    clock.now = PATIENCE_SECONDS + STEADY_SECONDS

    assert patience.pause_seconds(error) < 1
