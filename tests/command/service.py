"""A service in memory that speaks the protos: enough behaviour for the command and the clients to be true to.

Stands in for the whole service, at the wire. What each method answers is scripted by the fields of `State`.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2, status_pb2

from hotlora.v1 import adapter_service_pb2 as adapters_v1
from hotlora.v1 import adapter_service_pb2_grpc as adapters_grpc
from hotlora.v1 import chat_service_pb2 as chats_v1
from hotlora.v1 import chat_service_pb2_grpc as chats_grpc
from hotlora.v1 import dataset_service_pb2 as datasets_v1
from hotlora.v1 import dataset_service_pb2_grpc as datasets_grpc
from hotlora.v1 import evaluation_service_pb2 as evaluations_v1
from hotlora.v1 import evaluation_service_pb2_grpc as evaluations_grpc
from hotlora.v1 import planning_service_pb2 as planning_v1
from hotlora.v1 import planning_service_pb2_grpc as planning_grpc
from hotlora.v1 import tuning_service_pb2 as tuning
from hotlora.v1 import tuning_service_pb2_grpc as tuning_grpc
from hotlora.v1.resources_pb2 import Failure

BASE_MODEL = "tiny-base"
Version = adapters_v1.AdapterVersion


@dataclass(kw_only=True)
class State:
    """What the service knows, and what it is told to do."""

    datasets: dict[str, datasets_v1.Dataset] = field(default_factory=dict)
    deleted_datasets: set[str] = field(default_factory=set)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, tuning.TuningJob] = field(default_factory=dict)
    events: list[tuning.TuningEvent] = field(default_factory=list)
    """Of every job."""
    cuts_after: list[int] = field(default_factory=list)
    """The next watch breaks after the event of this sequence, then the one after the next, ..."""
    watched_from: list[int] = field(default_factory=list)
    """The cursors that watches came with."""
    adapters: dict[str, adapters_v1.Adapter] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    version_course: list[Version] = field(default_factory=list)
    """What a watch of a version sends."""
    evaluations: dict[str, evaluations_v1.AdapterEvaluation] = field(default_factory=dict)
    plan: planning_v1.PlanResponse = field(default_factory=planning_v1.PlanResponse)
    planned: list[planning_v1.PlanRequest] = field(default_factory=list)
    created_evaluations: list[evaluations_v1.CreateEvaluationRequest] = field(default_factory=list)
    created: list[tuning.CreateTuningJobRequest] = field(default_factory=list)
    chats: list[chats_v1.ChatRequest] = field(default_factory=list)
    answer: Callable[[chats_v1.ChatRequest], Iterator[chats_v1.ChatResponse]] | None = None
    unavailable_times: int = 0
    """So many of the next reads are answered with UNAVAILABLE."""
    reads: int = 0
    chat_ended: threading.Event = field(default_factory=threading.Event)
    engine: chats_v1.Engine = field(
        default_factory=lambda: chats_v1.Engine(state=chats_v1.Engine.STATE_READY)
    )


def refuse(
    context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, message: str, *details: ProtoMessage
) -> NoReturn:
    """Ends the call as the service does: google.rpc.Status with ErrorInfo and more."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain="hotlora"), *details):
        envelope = any_pb2.Any()
        envelope.Pack(detail)
        status.details.append(envelope)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)
    raise AssertionError("abort does not return")


def bad_request(violations: dict[str, str]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
            for name, text in violations.items()
        ]
    )


def _not_found(context: grpc.ServicerContext, name: str) -> NoReturn:
    refuse(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", f"There is no {name}.")


class _Tuning(tuning_grpc.TuningServiceServicer):
    def __init__(self, state: State) -> None:
        self._state = state

    def CreateTuningJob(
        self, request: tuning.CreateTuningJobRequest, context: grpc.ServicerContext
    ) -> tuning.TuningJob:
        self._state.created.append(request)
        if request.hyperparameters.rank > 512 or "/" in request.adapter_id:
            violations = {
                "adapter_id": "does not match regex pattern",
                "hyperparameters.rank": "must be greater than or equal to 1 and less than or equal to 512",
            }
            refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_REQUEST",
                "2 fields are not acceptable.",
                bad_request(violations),
            )
        for job in self._state.jobs.values():
            if request.request_id and job.request_id == request.request_id:
                return job
        job = tuning.TuningJob(
            name=f"tuningJobs/j{len(self._state.jobs) + 1}",
            state=tuning.TuningJob.STATE_QUEUED,
            base_model=BASE_MODEL,
            dataset=request.dataset,
            adapter=f"adapters/{request.adapter_id}",
            technique=request.technique,
            hyperparameters=request.hyperparameters,
            request_id=request.request_id,
        )
        job.create_time.FromSeconds(1_000_000)
        self._state.jobs[job.name] = job
        return job

    def GetTuningJob(
        self, request: tuning.GetTuningJobRequest, context: grpc.ServicerContext
    ) -> tuning.TuningJob:
        self._state.reads += 1
        if self._state.unavailable_times:
            self._state.unavailable_times -= 1
            refuse(context, grpc.StatusCode.UNAVAILABLE, "DRAINING", "The service is draining.")
        if request.name not in self._state.jobs:
            _not_found(context, request.name)
        return self._state.jobs[request.name]

    def ListTuningJobs(
        self, request: tuning.ListTuningJobsRequest, context: grpc.ServicerContext
    ) -> tuning.ListTuningJobsResponse:
        start = int(request.page_token or 0)
        found = [
            job
            for job in reversed(self._state.jobs.values())
            if not request.states or job.state in request.states
        ]
        page = found[start : start + min(request.page_size, 2)]
        more = start + len(page) < len(found)
        return tuning.ListTuningJobsResponse(
            tuning_jobs=page, next_page_token=str(start + len(page)) if more else ""
        )

    def CancelTuningJob(
        self, request: tuning.CancelTuningJobRequest, context: grpc.ServicerContext
    ) -> tuning.TuningJob:
        job = self._state.jobs[request.name]
        if job.state == tuning.TuningJob.STATE_SUCCEEDED:
            refuse(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                "WRONG_STATE",
                "The job is SUCCEEDED; only QUEUED and RUNNING jobs can be cancelled.",
            )
        job.state = tuning.TuningJob.STATE_CANCELLED
        return job

    def PauseTuningJob(
        self, request: tuning.PauseTuningJobRequest, context: grpc.ServicerContext
    ) -> tuning.TuningJob:
        job = self._state.jobs[request.name]
        job.state = tuning.TuningJob.STATE_PAUSING
        return job

    def ResumeTuningJob(
        self, request: tuning.ResumeTuningJobRequest, context: grpc.ServicerContext
    ) -> tuning.TuningJob:
        job = self._state.jobs[request.name]
        job.state = tuning.TuningJob.STATE_QUEUED
        return job

    def WatchTuningJob(
        self, request: tuning.WatchTuningJobRequest, context: grpc.ServicerContext
    ) -> Iterator[tuning.WatchTuningJobResponse]:
        self._state.watched_from.append(request.after_sequence)
        job = self._state.jobs.get(request.name)
        if job is None:
            _not_found(context, request.name)
        yield tuning.WatchTuningJobResponse(tuning_job=job)
        cut = self._state.cuts_after.pop(0) if self._state.cuts_after else None
        for event in self._state.events:
            if event.sequence > request.after_sequence:
                yield tuning.WatchTuningJobResponse(event=event)
                if event.HasField("state_change"):
                    _move(job, event.state_change.state)
                if event.sequence == cut:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset by peer")


def _move(job: tuning.TuningJob, state: tuning.TuningJob.State) -> None:
    job.state = state
    if state == tuning.TuningJob.STATE_SUCCEEDED:
        job.adapter_version = f"{job.adapter}/versions/1"
        start = job.create_time.ToSeconds()
        job.first_forward_time.FromSeconds(start + 2)
        job.first_step_time.FromSeconds(start + 5)
        job.end_time.FromSeconds(start + 60)


class _Datasets(datasets_grpc.DatasetServiceServicer):
    def __init__(self, state: State) -> None:
        self._state = state

    def UploadDataset(
        self, requests: Iterator[datasets_v1.UploadDatasetRequest], context: grpc.ServicerContext
    ) -> datasets_v1.Dataset:
        header = next(requests).header
        name = f"datasets/{header.dataset_id or 'made-up'}"
        if name in self._state.datasets or name in self._state.deleted_datasets:
            refuse(context, grpc.StatusCode.ALREADY_EXISTS, "ID_TAKEN", f"{name} is or was taken.")
        content = b"".join(request.chunk for request in requests)
        problems = {}
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                json.loads(line)
            except ValueError:
                problems[f"line {number}"] = "is not JSON"
        if problems or not content:
            refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "BAD_LINES",
                "The file is not a dataset.",
                bad_request(problems),
            )
        dataset = datasets_v1.Dataset(
            name=name,
            display_name=header.display_name,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            rows=content.count(b"\n"),
            tokens=len(content) // 4,
            longest_row_tokens=40,
        )
        self._state.datasets[name] = dataset
        self._state.uploaded[name] = content
        return dataset

    def GetDataset(
        self, request: datasets_v1.GetDatasetRequest, context: grpc.ServicerContext
    ) -> datasets_v1.Dataset:
        if request.name not in self._state.datasets:
            _not_found(context, request.name)
        return self._state.datasets[request.name]

    def ListDatasets(
        self, request: datasets_v1.ListDatasetsRequest, context: grpc.ServicerContext
    ) -> datasets_v1.ListDatasetsResponse:
        return datasets_v1.ListDatasetsResponse(datasets=list(self._state.datasets.values()))

    def DeleteDataset(
        self, request: datasets_v1.DeleteDatasetRequest, context: grpc.ServicerContext
    ) -> datasets_v1.DeleteDatasetResponse:
        if request.name not in self._state.datasets:
            _not_found(context, request.name)
        del self._state.datasets[request.name]
        self._state.deleted_datasets.add(request.name)
        return datasets_v1.DeleteDatasetResponse()

    def PreviewDataset(
        self, request: datasets_v1.PreviewDatasetRequest, context: grpc.ServicerContext
    ) -> datasets_v1.PreviewDatasetResponse:
        segments = [
            datasets_v1.RenderedSegment(text="<user>hi</user>"),
            datasets_v1.RenderedSegment(text="hello\x1b[31m", trained=True),
        ]
        row = datasets_v1.PreviewRow(line=1, segments=segments, tokens=9, trained_tokens=4)
        return datasets_v1.PreviewDatasetResponse(rows=[row])


class _Adapters(adapters_grpc.AdapterServiceServicer):
    def __init__(self, state: State) -> None:
        self._state = state

    def GetAdapter(
        self, request: adapters_v1.GetAdapterRequest, context: grpc.ServicerContext
    ) -> adapters_v1.Adapter:
        if request.name not in self._state.adapters:
            _not_found(context, request.name)
        return self._state.adapters[request.name]

    def ListAdapters(
        self, request: adapters_v1.ListAdaptersRequest, context: grpc.ServicerContext
    ) -> adapters_v1.ListAdaptersResponse:
        return adapters_v1.ListAdaptersResponse(adapters=list(self._state.adapters.values()))

    def DeleteAdapter(
        self, request: adapters_v1.DeleteAdapterRequest, context: grpc.ServicerContext
    ) -> adapters_v1.DeleteAdapterResponse:
        if self._state.adapters.pop(request.name, None) is None:
            _not_found(context, request.name)
        return adapters_v1.DeleteAdapterResponse()

    def GetAdapterVersion(
        self, request: adapters_v1.GetAdapterVersionRequest, context: grpc.ServicerContext
    ) -> Version:
        if request.name not in self._state.versions:
            _not_found(context, request.name)
        return self._state.versions[request.name]

    def ListAdapterVersions(
        self, request: adapters_v1.ListAdapterVersionsRequest, context: grpc.ServicerContext
    ) -> adapters_v1.ListAdapterVersionsResponse:
        return adapters_v1.ListAdapterVersionsResponse(adapter_versions=list(self._state.versions.values()))

    def LoadAdapterVersion(
        self, request: adapters_v1.LoadAdapterVersionRequest, context: grpc.ServicerContext
    ) -> Version:
        version = Version()
        version.CopyFrom(self._state.versions[request.name])
        version.state = Version.STATE_PENDING
        return version

    def UnloadAdapterVersion(
        self, request: adapters_v1.UnloadAdapterVersionRequest, context: grpc.ServicerContext
    ) -> Version:
        version = self._state.versions[request.name]
        version.state = Version.STATE_RETIRING
        return version

    def WatchAdapterVersion(
        self, request: adapters_v1.WatchAdapterVersionRequest, context: grpc.ServicerContext
    ) -> Iterator[Version]:
        if request.name not in self._state.versions:
            _not_found(context, request.name)
        yield from self._state.version_course


class _Evaluations(evaluations_grpc.EvaluationServiceServicer):
    def __init__(self, state: State) -> None:
        self._state = state

    def GetEvaluation(
        self, request: evaluations_v1.GetEvaluationRequest, context: grpc.ServicerContext
    ) -> evaluations_v1.AdapterEvaluation:
        return self._state.evaluations.get(request.name) or _not_found(context, request.name)

    def ListEvaluations(
        self, request: evaluations_v1.ListEvaluationsRequest, context: grpc.ServicerContext
    ) -> evaluations_v1.ListEvaluationsResponse:
        found = [
            one
            for one in self._state.evaluations.values()
            if f"{one.adapter_version}/".startswith(f"{request.parent}/" if request.parent else "")
        ]
        return evaluations_v1.ListEvaluationsResponse(evaluations=found)

    def CreateEvaluation(
        self, request: evaluations_v1.CreateEvaluationRequest, context: grpc.ServicerContext
    ) -> evaluations_v1.AdapterEvaluation:
        self._state.created_evaluations.append(request)
        return evaluations_v1.AdapterEvaluation(
            name="evaluations/triage-1",
            adapter_version=request.adapter_version,
            state=evaluations_v1.AdapterEvaluation.STATE_QUEUED,
        )

    def WatchEvaluation(
        self, request: evaluations_v1.WatchEvaluationRequest, context: grpc.ServicerContext
    ) -> Iterator[evaluations_v1.AdapterEvaluation]:
        evaluation = self._state.evaluations.get(request.name) or _not_found(context, request.name)
        running = evaluations_v1.AdapterEvaluation.STATE_RUNNING
        yield evaluations_v1.AdapterEvaluation(
            name=evaluation.name, state=running, done_answers=1, total_answers=9
        )
        yield evaluation


class _Chats(chats_grpc.ChatServiceServicer):
    def __init__(self, state: State) -> None:
        self._state = state

    def Chat(
        self, request: chats_v1.ChatRequest, context: grpc.ServicerContext
    ) -> Iterator[chats_v1.ChatResponse]:
        self._state.chats.append(request)
        context.add_callback(self._state.chat_ended.set)
        if request.model == "loading":
            retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=8))
            refuse(context, grpc.StatusCode.UNAVAILABLE, "ENGINE_STARTING", "The engine is starting.", retry)
        if self._state.answer is not None:
            yield from self._state.answer(request)
            return
        model = request.model or BASE_MODEL
        for count, word in enumerate(("It ", "is ", f"{model}."), start=1):
            yield chats_v1.ChatResponse(
                delta=word,
                model=model,
                completion_tokens=count,
                time_to_first_token_seconds=0.1,
                elapsed_seconds=0.1 * count,
                finish_reason=chats_v1.FINISH_REASON_STOP
                if count == 3
                else chats_v1.FINISH_REASON_UNSPECIFIED,
            )

    def ListModels(
        self, request: chats_v1.ListModelsRequest, context: grpc.ServicerContext
    ) -> chats_v1.ListModelsResponse:
        base = chats_v1.Model(id=BASE_MODEL, base_model=BASE_MODEL, available=True)
        return chats_v1.ListModelsResponse(models=[base], engine=self._state.engine)


class _Planning(planning_grpc.PlanningServiceServicer):
    def __init__(self, state: State) -> None:
        self._state = state

    def Plan(
        self, request: planning_v1.PlanRequest, context: grpc.ServicerContext
    ) -> planning_v1.PlanResponse:
        self._state.planned.append(request)
        return self._state.plan


@contextmanager
def serving(state: State, address: str = "127.0.0.1:0") -> Iterator[str]:
    """Serves the state on loopback; yields the address."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    tuning_grpc.add_TuningServiceServicer_to_server(_Tuning(state), server)
    datasets_grpc.add_DatasetServiceServicer_to_server(_Datasets(state), server)
    adapters_grpc.add_AdapterServiceServicer_to_server(_Adapters(state), server)
    chats_grpc.add_ChatServiceServicer_to_server(_Chats(state), server)
    evaluations_grpc.add_EvaluationServiceServicer_to_server(_Evaluations(state), server)
    planning_grpc.add_PlanningServiceServicer_to_server(_Planning(state), server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def course(version: Version, *states: Version.State, failure: Failure | None = None) -> list[Version]:
    """The version in one state after the other; the failure belongs to the last."""
    steps = []
    for state in states:
        step = Version()
        step.CopyFrom(version)
        step.state = state
        steps.append(step)
    if failure is not None:
        steps[-1].failure.CopyFrom(failure)
    return steps
