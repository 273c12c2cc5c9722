"""The only place that knows both the wire and the domain: rows become messages, messages become settings.

Decides nothing: requests arrive here checked, and defaults stand in the protos.
"""

import dataclasses
from collections.abc import Container, Iterable
from typing import assert_never

from google.protobuf.timestamp_pb2 import Timestamp

from hotlora.v1 import adapter_service_pb2 as adapters_pb
from hotlora.v1 import chat_service_pb2 as chat_pb
from hotlora.v1 import resources_pb2 as resources_pb
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from service.engine import Fleet
from service.errors import FieldViolation, InvalidRequest
from service.exporting import FileBegins, Format, GgufType, Wanted
from service.registry.rows import (
    AdapterRow,
    EventBody,
    EventRow,
    JobRow,
    StateChanged,
    Verification,
    VersionRow,
)
from service.registry.states import JobState, VersionState
from service.rpc import settings_conversion
from service.serving import ChatDelta, ChatMessage, ChatTurn, FinishReason, Replica, ServedModel
from trainer import events

_FORMATS = {
    adapters_pb.ExportAdapterVersionRequest.FORMAT_UNSPECIFIED: Format.PUBLISHED,
    adapters_pb.ExportAdapterVersionRequest.FORMAT_PEFT: Format.PEFT,
    adapters_pb.ExportAdapterVersionRequest.FORMAT_MERGED: Format.MERGED,
    adapters_pb.ExportAdapterVersionRequest.FORMAT_GGUF: Format.GGUF,
}
_GGUF_TYPES = {
    adapters_pb.ExportAdapterVersionRequest.GGUF_TYPE_UNSPECIFIED: GgufType.F16,
    adapters_pb.ExportAdapterVersionRequest.GGUF_TYPE_F16: GgufType.F16,
    adapters_pb.ExportAdapterVersionRequest.GGUF_TYPE_BF16: GgufType.BF16,
    adapters_pb.ExportAdapterVersionRequest.GGUF_TYPE_Q8_0: GgufType.Q8_0,
}
DEFAULT_PAGE_SIZE = 50
DEFAULT_TOP_P = 1.0

_FINISH_REASONS_SENT = {
    None: chat_pb.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: chat_pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: chat_pb.FINISH_REASON_LENGTH,
}


def id_of(name: str) -> str:
    """The id in a resource name of one level: `datasets/{id}`, `tuningJobs/{id}`, `adapters/{id}`."""
    return name.split("/")[1]


def version_of(name: str) -> tuple[str, int]:
    """Adapter id and number in `adapters/{id}/versions/{n}`."""
    _, adapter_id, _, number = name.split("/")
    return adapter_id, int(number)


def dataset_name(dataset_id: str) -> str:
    """The resource name of a dataset."""
    return f"datasets/{dataset_id}"


def job_name(job_id: str) -> str:
    """The resource name of a tuning job."""
    return f"tuningJobs/{job_id}"


def adapter_name(adapter_id: str) -> str:
    """The resource name of an adapter."""
    return f"adapters/{adapter_id}"


def version_name(adapter_id: str, number: int) -> str:
    """The resource name of an adapter version."""
    return f"adapters/{adapter_id}/versions/{number}"


def evaluation_name(evaluation_id: str) -> str:
    """The resource name of an evaluation."""
    return f"evaluations/{evaluation_id}"


def limit_of(page_size: int) -> int:
    """How many rows a page has."""
    return page_size or DEFAULT_PAGE_SIZE


def job_states_of(states: Iterable[tuning_pb.TuningJob.State]) -> frozenset[JobState]:
    """The states that a filter asks for. STATE_UNSPECIFIED, which no job is in, asks for nothing."""
    names = {tuning_pb.TuningJob.State.Name(state).removeprefix("STATE_") for state in states}
    return frozenset(state for state in JobState if state.value in names)


def job_message(row: JobRow) -> tuning_pb.TuningJob:
    """A tuning job."""
    version = row.version_number
    return tuning_pb.TuningJob(
        name=job_name(row.id),
        state=_job_state(row.state),
        base_model=row.base_model,
        dataset=dataset_name(row.dataset_id),
        adapter=adapter_name(row.adapter_id),
        technique=settings_conversion.technique_sent(row.technique),
        objective=settings_conversion.objective_sent(row.objective),
        hyperparameters=settings_conversion.hyperparameters_message(
            row.hyperparameters, row.technique, row.objective
        ),
        warnings=[
            tuning_pb.SettingWarning(field=one.field, description=one.description) for one in row.warnings
        ],
        failure=_failure(row.failure_reason, row.failure_message),
        latest_metrics=None if row.latest_metrics is None else _metrics(row.latest_metrics),
        fit=None if row.fit is None else _fit(row.fit),
        best_step=row.best_step,
        start_version=version_name(*row.start_version) if row.start_version else "",
        adapter_version="" if version is None else version_name(row.adapter_id, version),
        attempt=row.attempt,
        last_sequence=row.last_sequence,
        create_time=timestamp(row.create_time),
        start_time=timestamp(row.start_time),
        first_forward_time=timestamp(row.first_forward_time),
        first_step_time=timestamp(row.first_step_time),
        end_time=timestamp(row.end_time),
        request_id=row.request_id,
        evaluation_dataset=dataset_name(row.evaluation_dataset_id) if row.evaluation_dataset_id else "",
        evaluation=evaluation_name(row.evaluation_id) if row.evaluation_id else "",
    )


def event_message(row: EventRow) -> tuning_pb.TuningEvent:
    """Something that happened to a job."""
    message = tuning_pb.TuningEvent(sequence=row.sequence, time=timestamp(row.time))
    _fill_event(message, row.body)
    return message


_Milestone = (
    events.Loading
    | events.Working
    | events.Resumed
    | events.FirstForward
    | events.FirstStep
    | events.Saving
    | events.Published
)


def _fill_event(message: tuning_pb.TuningEvent, body: EventBody) -> None:
    match body:
        case StateChanged():
            message.state_change.CopyFrom(_state_change(body))
        case events.Metrics():
            message.metrics.CopyFrom(_metrics(body))
        case events.Evaluation():
            message.evaluation.CopyFrom(
                tuning_pb.Evaluation(
                    step=body.step,
                    eval_loss=body.eval_loss,
                    rows=body.rows,
                    task_score=body.task_score,
                    best_step=body.best_step,
                    leaked_rows=body.leaked_rows,
                    reward_margin=body.reward_margin,
                    reward_accuracy=body.reward_accuracy,
                )
            )
        case events.Fit():
            message.fit.CopyFrom(_fit(body))
        case events.CheckpointSaved():
            message.checkpoint_saved.CopyFrom(tuning_pb.CheckpointSaved(step=body.step))
        case _:
            message.milestone.CopyFrom(_milestone(body))


def _milestone(body: _Milestone) -> tuning_pb.Milestone:
    match body:
        case events.Working():
            return tuning_pb.Milestone(kind=f"KIND_{body.stage.value}")
        case events.Saving() | events.Published():
            kind = f"KIND_{body.kind.upper()}"
            return tuning_pb.Milestone(kind=kind, step=body.step, best_step=body.best_step)
        case events.Resumed() | events.FirstStep():
            return tuning_pb.Milestone(kind=f"KIND_{body.kind.upper()}", step=body.step)
        case events.Loading() | events.FirstForward():
            return tuning_pb.Milestone(kind=f"KIND_{body.kind.upper()}")
        case _:
            assert_never(body)


def adapter_message(row: AdapterRow) -> adapters_pb.Adapter:
    """An adapter."""
    return adapters_pb.Adapter(
        name=adapter_name(row.id),
        base_model=row.base_model,
        latest_version=row.latest_version,
        active_version=row.active_version,
        create_time=timestamp(row.create_time),
    )


def version_message(row: VersionRow) -> adapters_pb.AdapterVersion:
    """An adapter version."""
    return adapters_pb.AdapterVersion(
        name=version_name(row.adapter_id, row.number),
        model=row.model,
        state=version_state(row.state),
        failure=_failure(row.failure_reason, row.failure_message),
        tuning_job=job_name(row.job_id) if row.job_id else "",
        technique=settings_conversion.technique_sent(row.technique),
        rank=row.rank,
        digest=row.digest,
        size_bytes=row.size_bytes,
        verification=None if row.verification is None else _verification(row.verification),
        create_time=timestamp(row.create_time),
        active_time=timestamp(row.active_time),
    )


def wanted_export(request: adapters_pb.ExportAdapterVersionRequest) -> Wanted:
    """What a request wants a version to leave as. Raises InvalidRequest."""
    wanted = Wanted(format=_FORMATS[request.format], gguf_type=_GGUF_TYPES[request.gguf_type])
    if request.gguf_type and wanted.format is not Format.GGUF:
        rule = "has no effect with this format; leave it out, or choose FORMAT_GGUF"
        raise InvalidRequest([FieldViolation(field="gguf_type", description=rule)])
    return wanted


def export_message(piece: FileBegins | bytes) -> adapters_pb.ExportAdapterVersionResponse:
    """A piece of an export."""
    if isinstance(piece, bytes):
        return adapters_pb.ExportAdapterVersionResponse(chunk=piece)
    file = adapters_pb.ExportedFile(name=piece.name, size_bytes=piece.size_bytes, sha256=piece.sha256)
    return adapters_pb.ExportAdapterVersionResponse(file=file)


def version_state(state: VersionState) -> str:
    """A version's state, by its name on the wire."""
    return f"STATE_{state.value}"


def chat_turn_of(request: chat_pb.ChatRequest) -> ChatTurn:
    """What is asked, and of whom."""
    return ChatTurn(
        model=request.model,
        messages=tuple(ChatMessage(role=turn.role, content=turn.content) for turn in request.messages),
        max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
        temperature=request.temperature,  # not set: 0, which is the default
        top_p=request.top_p if request.HasField("top_p") else DEFAULT_TOP_P,
        seed=request.seed if request.HasField("seed") else None,
        stop=tuple(request.stop),
        sticky_key=request.sticky_key,
    )


def chat_message(delta: ChatDelta) -> chat_pb.ChatResponse:
    """A piece of an answer."""
    return chat_pb.ChatResponse(
        delta=delta.text,
        model=delta.model,
        finish_reason=_FINISH_REASONS_SENT[delta.finish_reason],
        prompt_tokens=0 if delta.finish_reason is None else delta.prompt_tokens,
        completion_tokens=delta.completion_tokens,
        time_to_first_token_seconds=delta.time_to_first_token_seconds,
        elapsed_seconds=delta.elapsed_seconds,
    )


def model_message(model: ServedModel) -> chat_pb.Model:
    """Something to ask."""
    row = model.version
    return chat_pb.Model(
        id=model.id,
        base_model=model.base_model,
        adapter_version="" if row is None else version_name(row.adapter_id, row.number),
        state=None if row is None else version_state(row.state),
        available=model.available,
        max_model_length=model.max_model_length,
        serving=f"SERVING_{model.serving.value}",
        create_time=None if row is None else timestamp(row.create_time),
    )


def engine_message(fleet: Fleet) -> chat_pb.Engine:
    """The engines behind a base model and its adapters, as one."""
    return chat_pb.Engine(
        state=f"STATE_{fleet.state.value}",
        restarts=fleet.restarts,
        message=fleet.message,
        max_rank=fleet.max_rank,
    )


def replica_message(replica: Replica, listed: Container[str]) -> chat_pb.Replica:
    """One of them, with what it rejected of the models that are `listed`."""
    return chat_pb.Replica(
        name=replica.name,
        base_model=replica.base_model,
        state=f"STATE_{replica.state.value}",
        message=replica.message,
        restarts=replica.restarts,
        generation=replica.generation,
        models=replica.models,
        adapter_slots=replica.capacity.slots,
        adapter_cache=replica.capacity.cached,
        rejections=[
            chat_pb.Rejection(model=model, failure=_failure(refusal.reason, refusal.message))
            for model, refusal in replica.refusals.items()
            if model in listed
        ],
    )


def _state_change(body: StateChanged) -> tuning_pb.StateChange:
    return tuning_pb.StateChange(
        state=_job_state(body.state), attempt=body.attempt, failure=_failure(body.reason, body.message)
    )


def _job_state(state: JobState) -> str:
    return f"STATE_{state.value}"


def _metrics(body: events.Metrics) -> tuning_pb.Metrics:
    fields = dataclasses.asdict(body)
    del fields["time"]  # the event's own
    return tuning_pb.Metrics(**fields)


def _fit(body: events.Fit) -> tuning_pb.Fit:
    fields = dataclasses.asdict(body)
    del fields["time"]  # the event's own
    return tuning_pb.Fit(**{**fields, "verdict": f"VERDICT_{body.verdict.value}"})


def _verification(proof: Verification) -> adapters_pb.Verification:
    fields = dataclasses.asdict(proof)
    return adapters_pb.Verification(verify_time=timestamp(fields.pop("time")), **fields)


def _failure(reason: str | None, message: str | None) -> resources_pb.Failure | None:
    return None if reason is None else resources_pb.Failure(reason=reason, message=message or "")


def timestamp(seconds: float | None) -> Timestamp | None:
    """Seconds since the epoch; None stays unset."""
    if seconds is None:
        return None
    message = Timestamp()
    message.FromNanoseconds(round(seconds * 1e6) * 1000)
    return message
