"""Health, reflection, binding and the graceful end of the server."""

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hotlora.v1 import chat_service_pb2 as chat_pb
from hotlora.v1 import dataset_service_pb2 as datasets_pb
from hotlora.v1 import resources_pb2 as resources_pb
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from service.rpc import ServerLimits
from tests.contract.stage import GOOD_LINE, Stage, refused, running
from tests.doubles.engine import WORDS

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = [
    "hotlora.v1.AdapterService",
    "hotlora.v1.AliasService",
    "hotlora.v1.ChatService",
    "hotlora.v1.DatasetService",
    "hotlora.v1.EvaluationService",
    "hotlora.v1.PlanningService",
    "hotlora.v1.TuningService",
]


def health(stage: Stage) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(stage.channel)


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_each_service_says_that_it_is_healthy(stage: Stage, service: str) -> None:
    request = health_pb2.HealthCheckRequest(service=service)
    assert (await health(stage).Check(request)).status == SERVING


async def test_health_of_an_unknown_service_is_not_found(stage: Stage) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health(stage).Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_health_watcher_hears_that_the_service_ends(stage: Stage) -> None:
    watch = health(stage).Watch(health_pb2.HealthCheckRequest(service="hotlora.v1.ChatService"))
    assert (await watch.read()).status == SERVING
    ending = asyncio.create_task(stage.server.drain())
    assert (await watch.read()).status == NOT_SERVING
    async with asyncio.timeout(3):  # far less than running calls get
        await ending


async def test_reflection_lists_all_services_and_knows_their_files(stage: Stage) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(stage.channel)
    asked = reflection_pb2.ServerReflectionRequest
    answers = stub.ServerReflectionInfo(
        iter([asked(list_services=""), asked(file_containing_symbol="hotlora.v1.TuningService")])
    )
    listed = (await answers.read()).list_services_response.service
    assert {service.name for service in listed} == {
        *SERVICES,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert (await answers.read()).file_descriptor_response.file_descriptor_proto


async def test_a_second_service_on_the_same_port_is_told_so(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"127.0.0.1:{stage.server.port}"):
        async with running(tmp_path / "other", address=f"127.0.0.1:{stage.server.port}"):
            pass


async def test_while_draining_new_calls_are_told_to_come_back_and_running_ones_end_well(stage: Stage) -> None:
    stage.engine.hold = held = asyncio.Event()
    message = resources_pb.Message(role="user", content="Hi")
    call = stage.chat.Chat(chat_pb.ChatRequest(messages=[message]))
    first, *words = WORDS[:5]
    answer = aiter(call)
    assert (await anext(answer)).delta == first
    ending = asyncio.create_task(stage.server.drain())
    health_watch = health(stage).Watch(health_pb2.HealthCheckRequest())
    while (await health_watch.read()).status != NOT_SERVING:
        pass
    refusal = await refused(stage.datasets.ListDatasets(datasets_pb.ListDatasetsRequest()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert refusal.retry_seconds
    held.set()
    assert "".join([response.delta async for response in answer]) == "".join(words)
    await ending


async def test_watches_end_at_once_when_the_server_drains_and_can_be_resumed(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        await stage.upload(GOOD_LINE)
        await stage.job()
        watch = stage.tuning.WatchTuningJob(tuning_pb.WatchTuningJobRequest(name="tuningJobs/job-1"))
        await watch.read()
        assert (await watch.read()).event.sequence == 1
        async with asyncio.timeout(3):
            ending = asyncio.create_task(stage.server.drain())
            refusal = await refused(watch.read())
            await ending
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    async with running(tmp_path) as stage:
        await stage.tuning.CancelTuningJob(tuning_pb.CancelTuningJobRequest(name="tuningJobs/job-1"))
        request = tuning_pb.WatchTuningJobRequest(name="tuningJobs/job-1", after_sequence=1)
        first, *rest = [response async for response in stage.tuning.WatchTuningJob(request)]
        assert first.tuning_job.state == tuning_pb.TuningJob.STATE_CANCELLED
        assert [response.event.sequence for response in rest] == [2]


async def test_a_call_that_does_not_end_in_time_is_cut(tmp_path: Path) -> None:
    async with running(tmp_path, server_limits=ServerLimits(drain_seconds=0.1)) as stage:
        stage.engine.hold = asyncio.Event()
        message = resources_pb.Message(role="user", content="Hi")
        call = stage.chat.Chat(chat_pb.ChatRequest(messages=[message]))
        await call.read()
        async with asyncio.timeout(3):
            await stage.server.drain()
            await stage.engine.stream_ended.wait()


async def test_run_answers_until_it_is_cancelled_and_then_drains(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        serving = asyncio.create_task(stage.server.run())
        assert (await stage.upload(GOOD_LINE)).rows == 1
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stage.datasets.ListDatasets(datasets_pb.ListDatasetsRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
