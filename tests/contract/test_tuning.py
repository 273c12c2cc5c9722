"""TuningService, over the wire."""

import asyncio

import grpc
import pytest

from hotlora.v1 import tuning_service_pb2 as pb
from service.registry import StateChanged
from tests.contract.stage import GOOD_LINE, Stage, refusal_of
from trainer import events


async def refused(call: object) -> object:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


async def test_a_created_job_is_queued_with_every_default_filled_in(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    job = await stage.job()
    assert job.state == pb.TuningJob.STATE_QUEUED
    assert job.hyperparameters.rank == 16
