"""What every method promises: a code on purpose, all fields at once, and none of our own text inside."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from hotlora.buf.validate import validate_pb2
from hotlora.v1 import (
    adapter_service_pb2,
    alias_service_pb2,
    chat_service_pb2,
    chat_service_pb2_grpc,
    dataset_service_pb2,
    evaluation_service_pb2,
    planning_service_pb2,
    tuning_service_pb2,
)
from hotlora.v1 import resources_pb2 as resources_pb
from service.errors import DataLoss, Exhausted, Unavailable
from service.metrics import Metrics
from service.rpc import ServerLimits
from service.rpc.boundary import BUSY_RETRY_SECONDS, Boundary, Context, Drain
from tests.contract.stage import GOOD_LINE, Stage, ids, refused, running

MODULES = (
    adapter_service_pb2,
    alias_service_pb2,
    chat_service_pb2,
    dataset_service_pb2,
    evaluation_service_pb2,
    planning_service_pb2,
    tuning_service_pb2,
)
METHODS: list[MethodDescriptor] = [
    method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
GARBAGE: dict[int, list[object]] = {
    FieldDescriptor.CPPTYPE_INT32: [-(2**31), -1, 0, 10**9, 2**31 - 1],
    FieldDescriptor.CPPTYPE_INT64: [-(2**63), -1, 0, 2**63 - 1],
    FieldDescriptor.CPPTYPE_DOUBLE: [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308],
    FieldDescriptor.CPPTYPE_ENUM: [-1, 0, 99, 2**31 - 1],
    FieldDescriptor.CPPTYPE_BOOL: [False, True],
    FieldDescriptor.CPPTYPE_STRING: [
        "",
        "../../etc/passwd",
        "a\0b",
        "a\nb",
        "%s%n{0}",
        "' OR 1=1 --",
        "\u202e\U0001f600" * 50,
        "x" * 100_000,
        "datasets/rows",
        "datasets/nobody",
        "tuningJobs/nobody",
        "adapters/nobody",
        "adapters/nobody/versions/1",
        "adapters/nobody/versions/999999999",
        "adapters/nobody/aliases/default",
    ],
}
BYTES_GARBAGE: list[object] = [b"", b"\0" * 1000, bytes(range(256))]
UNREADABLE = [b"\xff", b"\x0a\xff", b"\x0b" * 119, b"\x07\x07", b"\x00", b"\x0a\x7f\x0a"]
"""A cut tag, a cut length, endless groups, a wire type and a field number that are none, a cut field."""
PURPOSEFUL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def bad_requests(method: MethodDescriptor) -> Iterator[Message]:
    """One request for every garbage value of every field, nested ones and repeated ones included."""
    request = GetMessageClass(method.input_type)
    yield request()
    for field in method.input_type.fields:
        yield from (request(**{field.name: value}) for value in values(field))


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def values(field: FieldDescriptor) -> Iterator[object]:
    if is_map(field):
        keys, contents = field.message_type.fields
        pairs = [{key: content} for key in values(keys) for content in values(contents)]
        yield from pairs
        yield {f"key {number}": content for number, content in enumerate(values(contents))}
        return
    if field.message_type is not None:
        message = GetMessageClass(field.message_type)
        singles: list[object] = [message()]
        for inner in field.message_type.fields:
            singles += [message(**{inner.name: value}) for value in values(inner)]
    elif field.type == FieldDescriptor.TYPE_BYTES:
        singles = BYTES_GARBAGE
    else:
        singles = GARBAGE[field.cpp_type]
    if field.is_repeated:
        yield from ([single] for single in singles)
        yield singles * 20
    else:
        yield from singles


async def answer(stage: Stage, method: MethodDescriptor, encoded: bytes) -> None:
    """Send the bytes as the method's (first) request and take what comes first."""
    channel, path = stage.channel, path_of(method)
    if method.client_streaming:
        await channel.stream_unary(path)(iter([encoded]))
    elif method.server_streaming:
        call = channel.unary_stream(path)(encoded)
        await call.read()
        call.cancel()
    else:
        await channel.unary_unary(path)(encoded)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_garbage_in_any_field_is_answered_on_purpose(stage: Stage, method: MethodDescriptor) -> None:
    await stage.upload(GOOD_LINE)
    for request in bad_requests(method):
        try:
            await answer(stage, method, request.SerializeToString())
        except grpc.aio.AioRpcError as error:
            assert error.code() in PURPOSEFUL, f"{request}: {error.code()} {error.details()}"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    stage: Stage, method: MethodDescriptor
) -> None:
    for encoded in UNREADABLE:
        refusal = await refused(answer(stage, method, encoded))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, (encoded, refusal)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_text_that_is_not_utf_8_is_an_invalid_argument(stage: Stage, method: MethodDescriptor) -> None:
    for field in method.input_type.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            encoded = bytes([field.number << 3 | 2, 2, 0xC3, 0x28])
            refusal = await refused(answer(stage, method, encoded))
            assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, refusal


async def test_every_bad_field_is_named_at_once_with_its_rule(stage: Stage) -> None:
    pb = tuning_service_pb2
    request = pb.CreateTuningJobRequest(
        request_id="no spaces",
        dataset="../rows",
        adapter_id="Support",
        technique=9,
        hyperparameters=pb.Hyperparameters(
            rank=10**9,
            alpha=math.nan,
            dropout=1,
            learning_rate=math.inf,
            epochs=0,
            batch_size=10**6,
            max_sequence_length=10**9,
            target_modules=["q_proj", "../evil"],
            schedule=7,
            seed=-1,
            validation_fraction=0.9,
        ),
    )
    refusal = await refused(stage.tuning.CreateTuningJob(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    inner = (
        "rank alpha dropout learning_rate epochs batch_size max_sequence_length target_modules[1] schedule"
    )
    assert set(refusal.violations) == {
        *("request_id", "dataset", "adapter_id", "technique"),
        *(f"hyperparameters.{field}" for field in [*inner.split(), "seed", "validation_fraction"]),
    }
    assert "512, got 1000000000" in refusal.violations["hyperparameters.rank"]
    assert "'../rows'" in refusal.violations["dataset"]


async def test_violations_that_do_not_fit_are_counted(stage: Stage) -> None:
    messages = [resources_pb.Message(role="robot", content="")] * 200
    refusal = await refused(stage.chat.Chat(chat_service_pb2.ChatRequest(messages=messages)).read())
    assert "messages[0].role" in refusal.violations
    assert "more problems are not shown" in refusal.violations["request"]
    assert refusal.trailer_bytes < 5_500


async def test_half_a_million_empty_items_are_refused_by_their_number(stage: Stage) -> None:
    async with asyncio.timeout(2):
        refusal = await refused(
            stage.channel.unary_stream("/hotlora.v1.ChatService/Chat")(b"\x12\0" * 500_000).read()
        )
    assert refusal.violations == {"messages": "must contain no more than 256 item(s), got 500000"}


def test_every_list_in_a_request_has_a_bound_below_the_one_for_all() -> None:
    for method in METHODS:
        fields = [*method.input_type.fields]
        for field in fields:
            fields.extend(field.message_type.fields if field.message_type else ())
            if field.is_repeated:
                rules = field.GetOptions().Extensions[validate_pb2.field]
                most = rules.map.max_pairs if is_map(field) else rules.repeated.max_items
                assert 0 < most <= 1000, field.full_name


async def test_a_request_above_the_size_limit_is_too_large(stage: Stage) -> None:
    content = "x" * 199_000
    request = chat_service_pb2.ChatRequest(messages=[resources_pb.Message(role="user", content=content)] * 22)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.chat.Chat(request).read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_oversized_metadata_is_refused(stage: Stage) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.datasets.ListDatasets(
            dataset_service_pb2.ListDatasetsRequest(), metadata=(("x-padding", "x" * 20_000),)
        )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_too_many_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    async with running(tmp_path, server_limits=ServerLimits(concurrent_calls=1, drain_seconds=5)) as stage:
        await stage.upload(GOOD_LINE)
        await stage.job()
        watch = stage.tuning.WatchTuningJob(tuning_service_pb2.WatchTuningJobRequest(name="tuningJobs/job-1"))
        await watch.read()
        refusal = await refused(stage.datasets.ListDatasets(dataset_service_pb2.ListDatasetsRequest()))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert refusal.retry_seconds == BUSY_RETRY_SECONDS
        watch.cancel()
        async with asyncio.timeout(5):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await stage.datasets.ListDatasets(dataset_service_pb2.ListDatasetsRequest())
                    break


SECRET = "postgres://user:hunter2@host/ /srv/secret/path"


class Faulty(chat_service_pb2_grpc.ChatServiceServicer):
    """A servicer with a fault."""

    def __init__(self, error: Exception, after: int = 0) -> None:
        """`after` so many messages of a stream."""
        self._error = error
        self._after = after

    async def Chat(
        self, request: chat_service_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[chat_service_pb2.ChatResponse]:
        for _ in range(self._after):
            yield chat_service_pb2.ChatResponse(delta="Hel")
        raise self._error

    async def ListModels(
        self, request: chat_service_pb2.ListModelsRequest, context: Context
    ) -> chat_service_pb2.ListModelsResponse:
        raise self._error


@asynccontextmanager
async def behind_the_boundary(servicer: Faulty) -> AsyncIterator[chat_service_pb2_grpc.ChatServiceStub]:
    """The servicer in a server whose every call passes the boundary."""
    server = grpc.aio.server(
        interceptors=[Boundary(drain=Drain(), new_id=ids("error"), most_calls=9, metrics=Metrics())]
    )
    chat_service_pb2_grpc.add_ChatServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield chat_service_pb2_grpc.ChatServiceStub(channel)
    await server.stop(None)


HI = chat_service_pb2.ChatRequest(messages=[resources_pb.Message(role="user", content="Hi")])


async def drained(stream: AsyncIterator[object]) -> list[object]:
    return [message async for message in stream]


@pytest.mark.parametrize("after", [0, 1])
async def test_an_exception_in_a_stream_is_internal_with_an_id_and_without_its_text(
    after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with behind_the_boundary(Faulty(RuntimeError(SECRET), after)) as stub:
        refusal = await refused(drained(stub.Chat(HI)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert refusal.metadata["error_id"] == "error-1"
    assert "error-1" in refusal.message
    assert "hunter2" not in str(refusal)
    assert "error-1" in capsys.readouterr().out, "the log does not know the id"


async def test_an_exception_in_a_plain_call_is_internal_too() -> None:
    async with behind_the_boundary(Faulty(ValueError(SECRET))) as stub:
        refusal = await refused(stub.ListModels(chat_service_pb2.ListModelsRequest()))
    assert (refusal.code, refusal.metadata["error_id"]) == (grpc.StatusCode.INTERNAL, "error-1")
    assert "hunter2" not in str(refusal)


@pytest.mark.parametrize(
    ("error", "code", "retry_seconds"),
    [
        (
            Unavailable("ENGINE_DOWN", "The engine restarts.", retry_seconds=2.5),
            grpc.StatusCode.UNAVAILABLE,
            2.5,
        ),
        (
            Exhausted("TOO_MANY", "Too many answers.", retry_seconds=1),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            1.0,
        ),
        (Exhausted("TOO_LARGE", "Too large."), grpc.StatusCode.RESOURCE_EXHAUSTED, None),
        (DataLoss("CORRUPT", "The files differ."), grpc.StatusCode.DATA_LOSS, None),
    ],
)
async def test_an_error_midway_in_a_stream_keeps_its_code_reason_and_retry_delay(
    error: Exception, code: grpc.StatusCode, retry_seconds: float | None
) -> None:
    async with behind_the_boundary(Faulty(error, after=1)) as stub:
        refusal = await refused(drained(stub.Chat(HI)))
    assert (refusal.code, refusal.retry_seconds, refusal.message) == (code, retry_seconds, str(error))


async def test_a_long_message_in_any_script_is_cut_to_what_a_trailer_carries() -> None:
    error = DataLoss("CORRUPT", "ключ \U0001f600 " * 500 + "\ud800")
    async with behind_the_boundary(Faulty(error)) as stub:
        refusal = await refused(stub.ListModels(chat_service_pb2.ListModelsRequest()))
    assert refusal.code is grpc.StatusCode.DATA_LOSS
    assert refusal.message.startswith("ключ") and refusal.message.endswith("...")


async def test_a_cancelled_answer_frees_the_engine_at_once(stage: Stage) -> None:
    stage.engine.hold = asyncio.Event()
    call = stage.chat.Chat(HI)
    await call.read()
    assert stage.engine.streams == 1
    call.cancel()
    async with asyncio.timeout(2):
        await stage.engine.stream_ended.wait()


async def test_calls_are_counted_by_method_and_code(stage: Stage) -> None:
    await stage.chat.Chat(HI).read()
    await refused(stage.chat.Chat(chat_service_pb2.ChatRequest(temperature=-1)).read())
    watch = stage.tuning.WatchTuningJob(tuning_service_pb2.WatchTuningJobRequest(name="tuningJobs/job-1"))
    await refused(watch.read())
    stage.engine.hold = asyncio.Event()
    given_up = stage.chat.Chat(HI)
    await given_up.read()
    given_up.cancel()
    await stage.engine.stream_ended.wait()
    for _ in range(2):
        await stage.chat.ListModels(chat_service_pb2.ListModelsRequest())

    told = stage.metrics.text(jobs={}, engines=[]).decode()

    counts = re.findall(r'hotlora_calls_total{door="grpc",method="(.*?)",status="(.*?)"} (\d+)', told)
    assert sorted(counts) == [
        ("hotlora.v1.ChatService/Chat", "cancelled", "1"),
        ("hotlora.v1.ChatService/Chat", "invalid_argument", "1"),
        ("hotlora.v1.ChatService/Chat", "ok", "1"),
        ("hotlora.v1.ChatService/ListModels", "ok", "2"),
        ("hotlora.v1.TuningService/WatchTuningJob", "not_found", "1"),
    ]


async def test_a_caller_that_reads_nothing_and_leaves_frees_the_engine(stage: Stage) -> None:
    stage.engine.respond = lambda fields: ("x" * 1_000_000,) * 200
    call = stage.chat.Chat(HI)
    await call.read()
    assert stage.engine.streams == 1, "what nobody reads is not fetched"
    call.cancel()
    async with asyncio.timeout(5):
        await stage.engine.stream_ended.wait()


async def test_a_deadline_is_a_deadline(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    request = tuning_service_pb2.WatchTuningJobRequest(name="tuningJobs/job-1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drained(stage.tuning.WatchTuningJob(request, timeout=0.2))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_unknown_method_is_unimplemented(stage: Stage) -> None:
    for path in ("/hotlora.v1.TuningService/Nothing", "/nobody.Knows/This", "nonsense"):
        for call in (stage.channel.unary_unary(path)(b""), stage.channel.unary_stream(path)(b"").read()):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD")
            assert path in refusal.message


async def test_malformed_bytes_for_health_are_an_invalid_argument_too(stage: Stage) -> None:
    refusal = await refused(stage.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
