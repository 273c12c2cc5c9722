"""A service whose every answer the test directs: real gRPC servicers, scripted words.

Stands in for the whole service, so that a browser test can hold one side back and let the other one run.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from hotlora.v1 import (
    chat_service_pb2,
    chat_service_pb2_grpc,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
    planning_service_pb2,
    planning_service_pb2_grpc,
    tuning_service_pb2,
    tuning_service_pb2_grpc,
)
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.chat_service_pb2 import ChatRequest, ChatResponse, Engine, Model
from hotlora.v1.evaluation_service_pb2 import AdapterEvaluation
from hotlora.v1.tuning_service_pb2 import Metrics, TuningEvent, TuningJob, WatchTuningJobResponse

BASE = "smollm2-135m-instruct"
ADAPTER = "support@1"
LIMIT_SECONDS = 30


@dataclass
class Part:
    """What one model says: words before the gate, words after it."""

    before: list[str]
    after: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the service's side of an answer is over, however that came."""
    finished: bool = False
    """Whether the last answer was said to its end."""


@dataclass
class Stage:
    """Everything the servicers say, and what they were asked."""

    parts: dict[str, Part] = field(default_factory=dict)
    models: list[Model] = field(default_factory=list)
    asked: list[ChatRequest] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    created: list[tuning_service_pb2.CreateTuningJobRequest] = field(default_factory=list)
    jobs: list[TuningJob] = field(default_factory=list)
    events: list[TuningEvent] = field(default_factory=list)
    evaluations: list[AdapterEvaluation] = field(default_factory=list)
    plan: planning_service_pb2.PlanResponse = field(default_factory=planning_service_pb2.PlanResponse)
    planned: list[planning_service_pb2.PlanRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    refuse_job: str = ""
    """Why every job is refused; empty for none."""
    refuse_line: int = 0
    """Line of every upload that is refused; 0 for none."""


class Chat(chat_service_pb2_grpc.ChatServiceServicer):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def Chat(
        self, request: ChatRequest, context: grpc.aio.ServicerContext[ChatRequest, ChatResponse]
    ) -> AsyncIterator[ChatResponse]:
        self.stage.asked.append(request)
        part = self.stage.parts.get(request.model)
        if part is None:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{request.model} is PENDING; ask again once it is ACTIVE.",
            )
            return
        part.finished = False
        count = 0
        try:
            for words in (part.before, None, part.after):
                if words is None:
                    await asyncio.to_thread(part.gate.wait, LIMIT_SECONDS)
                    continue
                for word in words:
                    count += 1
                    yield ChatResponse(
                        delta=word,
                        model=request.model,
                        completion_tokens=count,
                        time_to_first_token_seconds=0.25,
                        elapsed_seconds=0.25 + count / 10,
                    )
            yield ChatResponse(
                model=request.model,
                completion_tokens=count,
                finish_reason=chat_service_pb2.FINISH_REASON_STOP,
                time_to_first_token_seconds=0.25,
                elapsed_seconds=0.25 + count / 10,
            )
            part.finished = True
        finally:
            part.ended.set()

    async def ListModels(self, request: object, context: object) -> chat_service_pb2.ListModelsResponse:
        return chat_service_pb2.ListModelsResponse(
            models=self.stage.models, engine=Engine(state=Engine.STATE_READY, max_rank=64)
        )


class Tuning(tuning_service_pb2_grpc.TuningServiceServicer):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def CreateTuningJob(
        self,
        request: tuning_service_pb2.CreateTuningJobRequest,
        context: grpc.aio.ServicerContext[tuning_service_pb2.CreateTuningJobRequest, TuningJob],
    ) -> TuningJob:
        if self.stage.refuse_job:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.stage.refuse_job)
        self.stage.created.append(request)
        job = TuningJob(
            name=f"tuningJobs/job-{len(self.stage.jobs) + 1}",
            state=TuningJob.STATE_RUNNING,
            adapter=f"adapters/{request.adapter_id}",
            dataset=request.dataset,
            technique=request.technique,
            latest_metrics=Metrics(step=5, total_steps=10, loss=1.5, tokens_per_second=200, eta_seconds=65),
        )
        self.stage.jobs.insert(0, job)
        return job

    async def ListTuningJobs(
        self, request: object, context: object
    ) -> tuning_service_pb2.ListTuningJobsResponse:
        return tuning_service_pb2.ListTuningJobsResponse(tuning_jobs=self.stage.jobs)

    async def CancelTuningJob(
        self, request: tuning_service_pb2.CancelTuningJobRequest, context: object
    ) -> TuningJob:
        self.stage.cancelled.append(request.name)
        return self._moved(request.name, TuningJob.STATE_CANCELLED)

    async def PauseTuningJob(
        self, request: tuning_service_pb2.PauseTuningJobRequest, context: object
    ) -> TuningJob:
        return self._moved(request.name, TuningJob.STATE_PAUSED)

    async def ResumeTuningJob(
        self, request: tuning_service_pb2.ResumeTuningJobRequest, context: object
    ) -> TuningJob:
        return self._moved(request.name, TuningJob.STATE_QUEUED)

    def _moved(self, name: str, state: TuningJob.State) -> TuningJob:
        job = next(job for job in self.stage.jobs if job.name == name)
        job.state = state
        return job

    async def WatchTuningJob(
        self, request: tuning_service_pb2.WatchTuningJobRequest, context: object
    ) -> AsyncIterator[WatchTuningJobResponse]:
        job = next(job for job in self.stage.jobs if job.name == request.name)
        yield WatchTuningJobResponse(tuning_job=job)
        for event in self.stage.events:
            if event.sequence > request.after_sequence:
                yield WatchTuningJobResponse(event=event)
        await asyncio.get_running_loop().create_future()


class Datasets(dataset_service_pb2_grpc.DatasetServiceServicer):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def UploadDataset(
        self,
        request_iterator: AsyncIterator[dataset_service_pb2.UploadDatasetRequest],
        context: grpc.aio.ServicerContext[
            dataset_service_pb2.UploadDatasetRequest, dataset_service_pb2.Dataset
        ],
    ) -> dataset_service_pb2.Dataset:
        header, *parts = [part async for part in request_iterator]
        content = b"".join(part.chunk for part in parts)
        if header.header.validate_only:
            return dataset_service_pb2.Dataset(report=_found_in(content))
        if self.stage.refuse_line:
            await context.abort_with_status(rpc_status.to_status(_bad_line(self.stage.refuse_line)))
        self.stage.uploads.append(content)
        return dataset_service_pb2.Dataset(
            name="datasets/uploaded", rows=content.count(b"\n"), create_time=Timestamp(seconds=1)
        )

    async def DeleteDataset(
        self, request: dataset_service_pb2.DeleteDatasetRequest, context: object
    ) -> dataset_service_pb2.DeleteDatasetResponse:
        self.stage.deleted.append(request.name)
        return dataset_service_pb2.DeleteDatasetResponse()


class Planning(planning_service_pb2_grpc.PlanningServiceServicer):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def Plan(
        self, request: planning_service_pb2.PlanRequest, context: object
    ) -> planning_service_pb2.PlanResponse:
        self.stage.planned.append(request)
        return self.stage.plan


def _found_in(content: bytes) -> dataset_service_pb2.DatasetReport:
    """A report on rows that stands for a real one."""
    return dataset_service_pb2.DatasetReport(
        rows_kept=content.count(b"\n"),
        tokens=90,
        trained_tokens=30,
        rows_dropped=1,
        problems=[
            dataset_service_pb2.RowProblem(
                place="line 7", reason="the row is <b>null</b>", advice="Write one."
            )
        ],
        preview=[
            dataset_service_pb2.PreviewRow(
                segments=[
                    dataset_service_pb2.RenderedSegment(text="<|user|>Open?"),
                    dataset_service_pb2.RenderedSegment(text="Yes.<|end|>", trained=True),
                ]
            )
        ],
    )


class Evaluations(evaluation_service_pb2_grpc.EvaluationServiceServicer):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def ListEvaluations(
        self, request: object, context: object
    ) -> evaluation_service_pb2.ListEvaluationsResponse:
        return evaluation_service_pb2.ListEvaluationsResponse(evaluations=self.stage.evaluations)

    async def GetEvaluation(
        self, request: evaluation_service_pb2.GetEvaluationRequest, context: object
    ) -> AdapterEvaluation:
        return next(one for one in self.stage.evaluations if one.name == request.name)


def _bad_line(line: int) -> status_pb2.Status:
    status = status_pb2.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="The file is refused.")
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=f"line {line}", description="not JSON; write one object a line"
    )
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def base_and_adapter() -> list[Model]:
    """What ListModels says when one adapter is ready and another one failed."""
    return [
        Model(id=BASE, base_model=BASE, available=True),
        adapter(ADAPTER, 100),
        Model(
            id="broken@1",
            base_model=BASE,
            adapter_version="adapters/broken/versions/1",
            state=AdapterVersion.STATE_FAILED,
        ),
    ]


def adapter(model_id: str, seconds: int) -> Model:
    """What ListModels says of a version that answers, published that long after the epoch."""
    name, number = model_id.split("@")
    return Model(
        id=model_id,
        base_model=BASE,
        adapter_version=f"adapters/{name}/versions/{number}",
        state=AdapterVersion.STATE_ACTIVE,
        available=True,
        create_time=Timestamp(seconds=seconds),
    )


@contextmanager
def on_stage(stage: Stage) -> Iterator[str]:
    """Serve `stage` on a free loopback port, in a loop of its own, for as long as the block runs."""
    started: Future[int] = Future()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server()
        chat_service_pb2_grpc.add_ChatServiceServicer_to_server(Chat(stage), server)
        tuning_service_pb2_grpc.add_TuningServiceServicer_to_server(Tuning(stage), server)
        dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(Datasets(stage), server)
        evaluation_service_pb2_grpc.add_EvaluationServiceServicer_to_server(Evaluations(stage), server)
        planning_service_pb2_grpc.add_PlanningServiceServicer_to_server(Planning(stage), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.set_result(port)
        await end.wait()
        await server.stop(grace=0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield f"127.0.0.1:{started.result(LIMIT_SECONDS)}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(LIMIT_SECONDS)
        loop.close()
