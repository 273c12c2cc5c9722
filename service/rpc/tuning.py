"""TuningService: passes on what is asked of jobs, and shows them.

What may become a job is the intake's to say. Which moves a job may make is the registry's, who makes them is
the runner's.
"""

from collections.abc import AsyncIterator

from hotlora.v1 import tuning_service_pb2 as pb
from hotlora.v1 import tuning_service_pb2_grpc as pb_grpc
from service.registry import Registry
from service.registry.states import JOB_ENDED
from service.rpc import conversion
from service.rpc.boundary import Context
from service.rpc.creation import Creation
from service.rpc.following import Following

_EVENTS_AT_ONCE = 500


class TuningServicer(pb_grpc.TuningServiceServicer):
    """See the proto."""

    def __init__(self, *, registry: Registry, following: Following, creation: Creation) -> None:
        self._registry = registry
        self._following = following
        self._creation = creation

    async def CreateTuningJob(self, request: pb.CreateTuningJobRequest, context: Context) -> pb.TuningJob:
        return conversion.job_message(await self._creation.create(request))

    async def GetTuningJob(self, request: pb.GetTuningJobRequest, context: Context) -> pb.TuningJob:
        return conversion.job_message(await self._registry.get_job(conversion.id_of(request.name)))

    async def ListTuningJobs(
        self, request: pb.ListTuningJobsRequest, context: Context
    ) -> pb.ListTuningJobsResponse:
        page = await self._registry.list_jobs(
            limit=conversion.limit_of(request.page_size),
            cursor=request.page_token,
            states=conversion.job_states_of(request.states),
            adapter_id=conversion.id_of(request.adapter) if request.adapter else "",
        )
        return pb.ListTuningJobsResponse(
            tuning_jobs=map(conversion.job_message, page.rows), next_page_token=page.next_cursor
        )

    async def CancelTuningJob(self, request: pb.CancelTuningJobRequest, context: Context) -> pb.TuningJob:
        return conversion.job_message(await self._registry.request_cancel(conversion.id_of(request.name)))

    async def PauseTuningJob(self, request: pb.PauseTuningJobRequest, context: Context) -> pb.TuningJob:
        return conversion.job_message(await self._registry.request_pause(conversion.id_of(request.name)))

    async def ResumeTuningJob(self, request: pb.ResumeTuningJobRequest, context: Context) -> pb.TuningJob:
        return conversion.job_message(await self._registry.request_resume(conversion.id_of(request.name)))

    async def WatchTuningJob(
        self, request: pb.WatchTuningJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchTuningJobResponse]:
        job_id, cursor = conversion.id_of(request.name), request.after_sequence
        topic = f"job/{job_id}"
        seen = self._following.seen(topic)
        job = await self._registry.get_job(job_id)
        yield pb.WatchTuningJobResponse(tuning_job=conversion.job_message(job))
        while True:
            events = await self._registry.events_after(job_id, cursor, _EVENTS_AT_ONCE)
            for event in events:
                cursor = event.sequence
                yield pb.WatchTuningJobResponse(event=conversion.event_message(event))
            if len(events) == _EVENTS_AT_ONCE:
                continue
            # The job that was read before these events says whether there can be later ones.
            if job.state in JOB_ENDED:
                return
            seen = await self._following.changed(topic, seen)
            job = await self._registry.get_job(job_id)
