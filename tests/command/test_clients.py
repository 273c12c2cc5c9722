"""Both clients: typed errors, safe retries, watches that survive, streams that end when they are closed."""

import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

from hotlora import errors, requests
from hotlora.aio import AsyncClient
from hotlora.calls import UPLOAD_CHUNK_BYTES, UPLOAD_LIMIT_BYTES
from hotlora.client import Client
from hotlora.following import FIRST_TRIES, PATIENCE_SECONDS, STEADY_SECONDS, JobCursor, Patience
from hotlora.v1.tuning_service_pb2 import (
    Hyperparameters,
    TuningEvent,
    TuningJob,
    WatchTuningJobResponse,
)
from tests.stage.service import Stage
from tests.stage.trained import GOOD_ROW


@pytest.fixture
def rows_id(address: str, adapter: str) -> str:
    """A dataset."""
    with Client(address) as client:
        return client.upload_dataset(GOOD_ROW * 3, dataset_id=f"rows-of-{adapter}").name


def test_every_violation_of_a_refused_request_reaches_the_caller(address: str) -> None:
    with Client(address) as client, pytest.raises(errors.InvalidArgument) as caught:
        client.create_tuning_job(
            dataset="datasets/d", adapter_id="../etc", hyperparameters=Hyperparameters(rank=10**9)
        )

    assert [violation.field for violation in caught.value.violations] == [
        "adapter_id",
        "hyperparameters.rank",
        "dataset",
    ]
    assert caught.value.reason == "INVALID_REQUEST"


def test_a_missing_thing_is_not_found_with_the_services_sentence(address: str) -> None:
    with Client(address) as client, pytest.raises(errors.NotFound, match="there is no tuning job 'nope'"):
        client.get_tuning_job("tuningJobs/nope")


async def test_the_asynchronous_client_raises_the_same_errors(without_engine: Stage) -> None:
    async with AsyncClient(without_engine.address) as client:
        with pytest.raises(errors.NotFound):
            await client.get_tuning_job("tuningJobs/nope")
        with pytest.raises(errors.Unavailable) as caught:
            await anext(client.chat([requests.user("hi")]))

    assert caught.value.retry_delay_seconds == 5
    assert caught.value.reason == "ENGINE_UNAVAILABLE"


def test_a_read_that_nobody_answered_is_asked_again(stage: Stage, support: TuningJob) -> None:
    with stage.proxy() as proxy, Client(proxy.address) as client:
        proxy.turned_away = 1

        job = client.get_tuning_job(support.name)

        assert job == support
        assert proxy.connections == 2


def test_a_read_is_not_asked_again_for_ever(stage: Stage, support: TuningJob) -> None:
    with stage.proxy() as proxy, Client(proxy.address) as client:
        proxy.turned_away = 1_000

        with pytest.raises(errors.Unavailable):
            client.get_tuning_job(support.name)

        assert proxy.connections > 1


async def test_a_busy_service_is_given_time_to_greet(stage: Stage, support: TuningJob) -> None:
    with stage.proxy() as proxy, Client(proxy.address) as client:
        proxy.greets_after_seconds = 0.5
        assert client.get_tuning_job(support.name) == support
        async with AsyncClient(proxy.address) as other:
            assert await other.get_tuning_job(support.name) == support
        assert proxy.connections == 2


def test_each_creation_carries_an_id_that_makes_its_repetition_harmless(
    address: str, rows_id: str, adapter: str
) -> None:
    ids = iter([f"first-{adapter}", f"second-{adapter}"])
    with Client(address, new_id=lambda: next(ids)) as client:
        first = client.create_tuning_job(dataset=rows_id, adapter_id=adapter)
        second = client.create_tuning_job(dataset=rows_id, adapter_id=adapter)
        again = client.create_tuning_job(dataset=rows_id, adapter_id=adapter, request_id=first.request_id)

    assert [first.request_id, second.request_id] == [f"first-{adapter}", f"second-{adapter}"]
    assert again.name == first.name != second.name


def test_a_closed_port_is_unavailable_in_words_for_a_person() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Client(address) as client, pytest.raises(errors.Unavailable, match=f"answers at {address}"):
            client.list_models()


def test_a_watch_that_is_cut_twice_misses_nothing_and_repeats_nothing(
    stage: Stage, rows_id: str, adapter: str
) -> None:
    gate = stage.gate(adapter)
    with stage.proxy() as proxy, Client(proxy.address) as client:
        job = client.create_tuning_job(dataset=rows_id, adapter_id=adapter)
        told: list[WatchTuningJobResponse] = []
        gated = threading.Event()

        def watch() -> None:
            for update in client.watch_tuning_job(job.name):
                told.append(update)
                if update.event.metrics.step == 1:
                    gated.set()

        watching = threading.Thread(target=watch)
        watching.start()
        gated.wait()
        for _ in range(2):
            stage.run(proxy.cut_until_back())
        gate.touch()
        watching.join()

    assert [update.WhichOneof("update") for update in told] == ["tuning_job", *["event"] * (len(told) - 1)]
    assert [update.event.sequence for update in told] == list(range(len(told)))
    assert told[-1].event.state_change.state == TuningJob.STATE_SUCCEEDED


def test_a_watch_whose_wire_falls_silent_goes_on_over_another_one(
    stage: Stage, rows_id: str, adapter: str
) -> None:
    gate = stage.gate(adapter)
    with stage.proxy() as proxy, Client(proxy.address, keepalive_seconds=1.0) as client:
        job = client.create_tuning_job(dataset=rows_id, adapter_id=adapter)
        sequences = []
        for update in client.watch_tuning_job(job.name):
            sequences.append(update.event.sequence)
            if update.event.metrics.step == 1:
                stage.run(proxy.fall_silent())
                gate.touch()

    assert sequences == list(range(len(sequences)))
    assert proxy.connections == 2


async def test_an_asynchronous_watch_goes_on_when_the_service_comes_back(
    stage: Stage, rows_id: str, adapter: str
) -> None:
    gate = stage.gate(adapter)
    async with AsyncClient(stage.address) as client:
        job = await client.create_tuning_job(dataset=rows_id, adapter_id=adapter)
        sequences, states = [], []
        async for update in client.watch_tuning_job(job.name):
            sequences.append(update.event.sequence)
            states.append(update.event.state_change.state)
            if update.event.metrics.step == 1 and not gate.exists():
                await asyncio.to_thread(stage.stop)
                gate.touch()
                await asyncio.to_thread(stage.start)

    assert sequences == list(range(len(sequences)))
    assert [state for state in states if state] == [
        TuningJob.STATE_QUEUED,
        TuningJob.STATE_RUNNING,
        TuningJob.STATE_QUEUED,
        TuningJob.STATE_RUNNING,
        TuningJob.STATE_SUCCEEDED,
    ]


async def test_a_watch_begins_after_the_cursor_it_is_given(address: str, support: TuningJob) -> None:
    async with AsyncClient(address) as client:
        whole = [update.event.sequence async for update in client.watch_tuning_job(support.name)]
        rest = [update.event.sequence async for update in client.watch_tuning_job(support.name, 6)]

    assert rest == [0, *whole[7:]]


def test_an_event_that_comes_again_is_not_passed_on_again() -> None:
    cursor = JobCursor("tuningJobs/j0", after_sequence=3)

    passed = [
        cursor.is_new(WatchTuningJobResponse(event=TuningEvent(sequence=sequence)))
        for sequence in (2, 3, 4, 4, 5, 1)
    ]

    assert passed == [False, False, True, False, True, False]
    assert cursor.request().after_sequence == 5


def test_a_watch_of_something_missing_fails_at_once(stage: Stage) -> None:
    with (
        stage.proxy() as proxy,
        Client(proxy.address) as client,
        pytest.raises(errors.NotFound, match="there is no tuning job 'nope'"),
    ):
        next(client.watch_tuning_job("tuningJobs/nope"))


def test_closing_an_answer_ends_it_at_the_engine(stage: Stage) -> None:
    stage.hold()
    with Client(stage.address) as client:
        answer = client.chat([requests.user("talk")])
        assert next(answer).delta == "It "
        answer.close()

        stage.run(stage.answers_ended())


async def test_cancelling_the_task_that_reads_an_answer_ends_it_at_the_engine(stage: Stage) -> None:
    stage.hold()
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in client.chat([requests.user("talk")]):
            begun.set()

    async with AsyncClient(stage.address) as client:
        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await asyncio.to_thread(stage.run, stage.answers_ended())


def test_an_upload_arrives_whole_in_chunks_and_tells_its_progress(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD_ROW * 12_000)
    told: list[int] = []

    with Client(stage.address) as client:
        client.upload_dataset(path, dataset_id="in-chunks", sent=told.append)

    assert stage.uploaded("in-chunks") == [json.loads(GOOD_ROW)] * 12_000
    assert told[0] == UPLOAD_CHUNK_BYTES
    assert told[-1] == len(GOOD_ROW) * 12_000


async def test_an_asynchronous_upload_of_bytes_arrives_whole(stage: Stage) -> None:
    async with AsyncClient(stage.address) as client:
        await client.upload_dataset(GOOD_ROW * 12_000, dataset_id="of-bytes")

    assert stage.uploaded("of-bytes") == [json.loads(GOOD_ROW)] * 12_000


async def test_an_upload_that_is_refused_before_its_last_byte_raises_the_refusal(address: str) -> None:
    content = GOOD_ROW * 200_000

    with Client(address) as client:
        client.upload_dataset(GOOD_ROW, dataset_id="gone")
        client.delete_dataset("datasets/gone")
        with pytest.raises(errors.AlreadyExists):
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


def test_one_client_serves_several_threads(address: str, support: TuningJob) -> None:
    found: list[str] = []
    with Client(address) as client:
        threads = [
            threading.Thread(target=lambda: found.append(client.get_tuning_job(support.name).name))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == [support.name] * 8


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
