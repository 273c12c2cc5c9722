"""How a request for a tuning job becomes a job, whichever door it came in by."""

import hashlib

import structlog

from hotlora.v1 import tuning_service_pb2 as pb
from service.disk import Disk
from service.errors import InvalidRequest
from service.registry import JobRow, Registry
from service.rpc import validation
from service.rpc.intake import Intake
from trainer.config import Hyperparameters

_log = structlog.get_logger(__name__)


class Creation:
    """See the module."""

    def __init__(self, *, registry: Registry, intake: Intake, disk: Disk) -> None:
        self._registry = registry
        self._intake = intake
        self._disk = disk

    async def create(self, request: pb.CreateTuningJobRequest) -> JobRow:
        """Queue a job, or find the one that the same request made. Raises what CreateTuningJob answers."""
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        known = await self._registry.job_of_request(request.request_id, digest)
        if known is not None:
            return known
        new = await self._intake.take(request, digest)
        self._disk.refuse_if_full()
        job = await self._registry.create_job(new)
        _log.info("job created", job=job.id, adapter=job.adapter_id)
        return job

    async def settings(self, request: pb.CreateTuningJobRequest) -> Hyperparameters:
        """What a job would be trained with. Raises as `create`."""
        return (await self._intake.take(request, "")).hyperparameters

    async def check(self, request: pb.CreateTuningJobRequest) -> None:
        """Hold a request that did not come over gRPC to the rules of its proto. Raises InvalidRequest with
        all that is wrong, told by fields of the proto."""
        try:
            validation.check(request)
        except InvalidRequest as error:
            broken = {violation.field for violation in error.violations}
            more = await self._intake.problems(validation.without(request, broken), broken)
            raise InvalidRequest([*error.violations, *more]) from error
