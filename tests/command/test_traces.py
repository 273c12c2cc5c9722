"""Traces: one that a caller began goes on through the service to the engine, and nothing that was said is in
it."""

import secrets
import subprocess
import sys
from collections.abc import Iterator

import grpc
import httpx
import pytest

from hotlora.v1 import chat_service_pb2 as chat_pb
from hotlora.v1 import chat_service_pb2_grpc as chat_grpc
from hotlora.v1 import resources_pb2
from tests.doubles.collector import Collector, attributes, collecting
from tests.stage.service import Stage, staged

SECRET = "what nobody else may read"
BODY = {"model": "tiny-base", "messages": [{"role": "user", "content": SECRET}]}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stage]:
    environment = {"HOTLORA_TRACES_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with staged(tmp_path_factory.mktemp("traced"), environment=environment) as stage:
        yield stage


def begun() -> tuple[str, str, dict[str, str]]:
    """A trace that a caller began: its id, that of the caller's span, and the header."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-01"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_trace_goes_from_the_caller_through_the_gateway_to_the_engine(
    traced: Stage, collector: Collector, stream: bool
) -> None:
    trace_id, caller, headers = begun()
    traced.engine.traceparents.clear()
    url = f"{traced.gateway_url}/chat/completions"
    httpx.post(url, json={**BODY, "stream": stream}, headers=headers).raise_for_status()

    call, asked = collector.of_trace(trace_id, 2)
    assert (call.name, call.parent_span_id.hex(), call.kind) == (
        "POST /v1/chat/completions",
        caller,
        call.SPAN_KIND_SERVER,
    )
    assert (asked.name, asked.parent_span_id, asked.kind) == (
        "POST /v1/completions",
        call.span_id,
        call.SPAN_KIND_CLIENT,
    )
    assert traced.engine.traceparents == [f"00-{trace_id}-{asked.span_id.hex()}-01"]
    told = attributes(call)
    assert (told["http.response.status_code"], told["hotlora.model"]) == (200, "tiny-base")
    assert attributes(asked)["gen_ai.request.model"] == "tiny-base"
    (answer,) = call.events
    counted = {each.key: each.value.int_value for each in answer.attributes}
    assert (answer.name, counted["gen_ai.usage.output_tokens"]) == ("answer", 3)
    assert SECRET.encode() not in collector.received


def test_a_call_over_grpc_is_a_span_and_says_how_it_failed(traced: Stage, collector: Collector) -> None:
    with grpc.insecure_channel(traced.address) as channel:
        stub = chat_grpc.ChatServiceStub(channel)
        message = resources_pb2.Message(role="user", content=SECRET)
        trace_id, caller, headers = begun()
        list(stub.Chat(chat_pb.ChatRequest(messages=[message]), metadata=tuple(headers.items())))
        call, asked = collector.of_trace(trace_id, 2)
        assert (call.name, call.parent_span_id.hex()) == ("hotlora.v1.ChatService/Chat", caller)
        assert asked.parent_span_id == call.span_id
        assert call.status.code == call.status.STATUS_CODE_UNSET

        trace_id, _, headers = begun()
        with pytest.raises(grpc.RpcError):
            list(
                stub.Chat(
                    chat_pb.ChatRequest(model="nobody", messages=[message]), metadata=tuple(headers.items())
                )
            )
        (call,) = collector.of_trace(trace_id, 1)
        assert (call.status.code, call.status.message) == (call.status.STATUS_CODE_ERROR, "NOT_FOUND")
        assert attributes(call)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]


def test_what_belongs_to_no_call_is_not_traced(traced: Stage, collector: Collector) -> None:
    httpx.get(f"{traced.gateway_url}/models").raise_for_status()
    parents = {span.span_id for span in collector.spans}
    for span in collector.spans:
        if span.kind == span.SPAN_KIND_CLIENT:
            assert span.parent_span_id in parents, "a probe was traced"


def test_a_service_whose_collector_is_away_answers_names_traces_in_its_log_and_ends(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    nowhere = {"HOTLORA_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    trace_id, _, headers = begun()
    with staged(tmp_path_factory.mktemp("nowhere"), environment=nowhere) as stage:
        httpx.post(f"{stage.gateway_url}/chat/completions", json=BODY, headers=headers).raise_for_status()
    assert [line["trace"] for line in stage.logged("answer")] == [trace_id]


def test_without_the_extra_the_service_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from service import traces\n"
        "with traces.exported_to('http://127.0.0.1:9/v1/traces'): pass"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "pip install 'hotlora[traces]'" in ended.stderr
