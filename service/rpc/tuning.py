"""TuningService: checks a job as far as can be done early, and shows jobs.

Which moves a job may make is the registry's, who makes them is the runner's.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

from hotlora.v1 import tuning_service_pb2 as pb
from hotlora.v1 import tuning_service_pb2_grpc as pb_grpc
from service.disk import Disk
from service.errors import AlreadyExists, FieldViolation, InvalidRequest, WrongState
from service.planning import data_of
from service.registry import DatasetRow, JobRow, NewJob, Registry, VersionState
from service.registry.states import JOB_ENDED
from service.rpc import contradictions, conversion, job_checks, settings_conversion, starting, stopping
from service.rpc.boundary import Context
from service.rpc.following import Following
from trainer.config import SETTINGS_OF, Technique
from trainer.pacing import row_limit
from trainer.planning import choose, complete
from trainer.records import Kind

_EVENTS_AT_ONCE = 500


class TuningServicer(pb_grpc.TuningServiceServicer):
    """See the proto."""

    def __init__(
        self,
        *,
        registry: Registry,
        following: Following,
        disk: Disk,
        base_model: str,
        context_length: int,
        max_rank: Callable[[], int],
        linear_modules: Sequence[str],
        unservable: Callable[[], Mapping[Technique, str]],
        parameters: int,
    ) -> None:
        """`context_length` is what is served, in tokens; `parameters` are the base's, 0 where they are not
        known. `unservable` says of techniques why what they make could not be served now."""
        self._registry = registry
        self._following = following
        self._disk = disk
        self._base_model = base_model
        self._context_length = context_length
        self._max_rank = max_rank
        self._linear_modules = linear_modules
        self._unservable = unservable
        self._parameters = parameters

    async def CreateTuningJob(self, request: pb.CreateTuningJobRequest, context: Context) -> pb.TuningJob:
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        known = await self._registry.job_of_request(request.request_id, digest)
        if known is not None:
            return conversion.job_message(known)
        dataset = await self._registry.get_dataset(conversion.id_of(request.dataset))
        start = await self._start_of(request.start_version)
        new = self._new_job(request, digest, dataset, start)
        asked = dataset
        if new.evaluation_dataset_id:
            asked = await self._registry.get_dataset(new.evaluation_dataset_id)
        self._check(request, new, dataset, asked, start)
        self._disk.refuse_if_full()
        return conversion.job_message(await self._registry.create_job(new))

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

    async def _start_of(self, name: str) -> JobRow | None:
        """The job that made the version to start from. Raises NotFound, WrongState."""
        if not name:
            return None
        version = await self._registry.get_version(*conversion.version_of(name))
        if version.state is VersionState.FAILED:
            raise WrongState(
                f"{version.model} is FAILED ({version.failure_reason}); a job can start from a version in "
                "any other state",
                state=version.state,
                allowed=sorted(set(VersionState) - {VersionState.FAILED}),
                reason="VERSION_STATE",
            )
        return await self._registry.get_job(version.job_id)

    def _new_job(
        self, request: pb.CreateTuningJobRequest, digest: str, dataset: DatasetRow, start: JobRow | None
    ) -> NewJob:
        technique = settings_conversion.technique_of(request.technique)
        given = settings_conversion.given_settings_of(request.hyperparameters)
        if start is not None:
            if request.technique == pb.TECHNIQUE_UNSPECIFIED:
                technique = start.technique
            if not request.hyperparameters.target_modules:
                del given["target_modules"]
            given = {**starting.taken_over(start), **given}
        objective = job_checks.objective_for(settings_conversion.objective_of(request.objective), dataset)
        choices = choose(
            technique,
            replace(data_of(dataset), objective=objective),
            parameters=self._parameters,
            context_length=self._context_length,
            max_rank=self._max_rank(),
        )
        return NewJob(
            request_id=request.request_id,
            request_digest=digest,
            base_model=request.base_model or self._base_model,
            dataset_id=dataset.id,
            adapter_id=request.adapter_id,
            technique=technique,
            objective=objective,
            hyperparameters=complete(choices, given),
            evaluation_dataset_id=(
                conversion.id_of(request.evaluation_dataset) if request.evaluation_dataset else ""
            ),
            start_version=conversion.version_of(request.start_version) if request.start_version else None,
        )

    def _check(
        self,
        request: pb.CreateTuningJobRequest,
        new: NewJob,
        dataset: DatasetRow,
        asked: DatasetRow,
        start: JobRow | None,
    ) -> None:
        """Raise InvalidRequest with all that is wrong, or AlreadyExists for the base model's name."""
        given = [field.name for field, _ in request.hyperparameters.ListFields()]
        limit = row_limit(new.hyperparameters, new.technique, self._context_length)
        data = data_of(dataset).in_pieces(limit)
        violations = []
        if new.base_model != self._base_model:
            violations.append(
                FieldViolation(
                    field="base_model",
                    description=f"this service trains and serves {self._base_model!r} only, "
                    f"got {new.base_model[:60]!r}",
                )
            )
        if (reason := self._unservable().get(new.technique)) is not None:
            violations.append(FieldViolation(field="technique", description=reason))
        violations.extend(job_checks.contradicting_objective(new.objective, dataset))
        violations.extend(job_checks.unlike_evaluation(dataset, asked))
        violations.extend(job_checks.without_effect(new.technique, new.objective, given))
        if start is not None:
            violations.extend(
                starting.differences(
                    start,
                    base_model=new.base_model,
                    technique=new.technique,
                    settings=new.hyperparameters,
                )
            )
        violations.extend(job_checks.unknown_modules(new.hyperparameters, self._linear_modules))
        if new.technique is Technique.PROMPT_TUNING:
            violations.extend(job_checks.no_room(new.hyperparameters, dataset, self._context_length))
        violations.extend(self._beyond_limits(new, dataset))
        violations.extend(
            stopping.contradictions(new.hyperparameters, rows=data.rows, scored=dataset.task is not None)
        )
        violations.extend(contradictions.between(request.hyperparameters, new.hyperparameters, data=data))
        if violations:
            raise InvalidRequest(violations)
        if new.adapter_id == self._base_model:
            raise AlreadyExists(
                "NAME_OF_BASE_MODEL",
                f"{new.adapter_id!r} is the base model's name; choose another adapter_id",
            )

    def _beyond_limits(self, new: NewJob, dataset: DatasetRow) -> list[FieldViolation]:
        violations = []
        settings, max_rank = new.hyperparameters, self._max_rank()
        if new.technique in SETTINGS_OF["rank"] and settings.rank > max_rank:
            violations.append(
                FieldViolation(
                    field="hyperparameters.rank",
                    description=f"must be at most {max_rank}, the highest rank that the engine serves, "
                    f"got {settings.rank}",
                )
            )
        length = settings.max_sequence_length
        if length > self._context_length:
            violations.append(
                FieldViolation(
                    field="hyperparameters.max_sequence_length",
                    description=f"must be at most {self._context_length}, the context that is served, "
                    f"got {length}",
                )
            )
        elif dataset.kind is not Kind.TEXT and dataset.longest_row_tokens > length:  # texts are cut
            violations.append(
                FieldViolation(
                    field="hyperparameters.max_sequence_length",
                    description=f"the longest row of dataset {dataset.id!r}{_standing(dataset)} has "
                    f"{dataset.longest_row_tokens} tokens, more than {length}; raise it "
                    f"(up to {self._context_length}) or shorten the row",
                )
            )
        return violations


def _standing(dataset: DatasetRow) -> str:
    """Where the longest row stands; nothing for datasets of releases that did not count it."""
    return f", line {dataset.report.longest_row_line}," if dataset.report is not None else ""
