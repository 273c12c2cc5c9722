"""EvaluationService: shows evaluations, and queues more of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence, Set

from hotlora.v1 import evaluation_service_pb2 as pb
from hotlora.v1 import evaluation_service_pb2_grpc as pb_grpc
from service.errors import FieldViolation, NotFound, WrongState
from service.registry import EvaluationRow, NewEvaluation, Registry
from service.registry.states import EVALUATION_ENDED
from service.rpc import conversion, report_conversion
from service.rpc.boundary import Context
from service.rpc.findings import Findings
from service.rpc.following import Following


class EvaluationServicer(pb_grpc.EvaluationServiceServicer):
    """See the proto."""

    def __init__(self, *, registry: Registry, following: Following) -> None:
        self._registry = registry
        self._evaluations = registry.evaluations
        self._following = following

    async def GetEvaluation(self, request: pb.GetEvaluationRequest, context: Context) -> pb.AdapterEvaluation:
        return report_conversion.evaluation_message(
            await self._evaluations.get(conversion.id_of(request.name))
        )

    async def ListEvaluations(
        self, request: pb.ListEvaluationsRequest, context: Context
    ) -> pb.ListEvaluationsResponse:
        adapter_id, number = report_conversion.parent_of(request.parent)
        page = await self._evaluations.listing(
            limit=conversion.limit_of(request.page_size),
            cursor=request.page_token,
            adapter_id=adapter_id,
            number=number,
        )
        # Fifty reports are some megabytes of JSON: too much for the event loop.
        messages = await asyncio.to_thread(_without_details, page.rows)
        return pb.ListEvaluationsResponse(evaluations=messages, next_page_token=page.next_cursor)

    async def CreateEvaluation(
        self, request: pb.CreateEvaluationRequest, context: Context
    ) -> pb.AdapterEvaluation:
        adapter_id, number = conversion.version_of(request.adapter_version)
        new = NewEvaluation(
            adapter_id=adapter_id,
            number=number,
            dataset_id=conversion.id_of(request.dataset) if request.dataset else "",
            request_id=request.request_id,
        )
        try:
            return report_conversion.evaluation_message(await self._evaluations.create(new))
        except (NotFound, WrongState):
            findings = Findings()
            await self._examine(request, findings)
            findings.raise_any()
            raise

    async def problems(
        self, request: pb.CreateEvaluationRequest, broken: Set[str]
    ) -> Sequence[FieldViolation]:
        """What is wrong besides the fields that are `broken`, and that `request` comes without."""
        findings = Findings(broken)
        await self._examine(request, findings)
        return findings.violations

    async def _examine(self, request: pb.CreateEvaluationRequest, findings: Findings) -> None:
        if request.adapter_version:
            version = self._evaluations.refuse_version(
                *conversion.version_of(request.adapter_version), request.dataset
            )
            await findings.look_up("adapter_version", version)
        if request.dataset:
            dataset = self._registry.get_dataset(conversion.id_of(request.dataset))
            await findings.look_up("dataset", dataset)

    async def WatchEvaluation(
        self, request: pb.WatchEvaluationRequest, context: Context
    ) -> AsyncIterator[pb.AdapterEvaluation]:
        evaluation_id = conversion.id_of(request.name)
        topic = f"evaluation/{evaluation_id}"
        seen, sent = self._following.seen(topic), None
        while True:
            row = await self._evaluations.get(evaluation_id)
            message = report_conversion.evaluation_message(row)
            if message != sent:
                yield message
                sent = message
            if row.state in EVALUATION_ENDED:
                return
            seen = await self._following.changed(topic, seen)


def _without_details(rows: Sequence[EvaluationRow]) -> list[pb.AdapterEvaluation]:
    return [report_conversion.evaluation_message(row, whole=False) for row in rows]
