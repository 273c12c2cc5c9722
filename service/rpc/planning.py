"""PlanningService: checks what protos cannot say about a question, and shows the plan."""

from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1 import planning_service_pb2_grpc as pb_grpc
from service.errors import FieldViolation, InvalidRequest
from service.planning import Planner
from service.rpc import planning_conversion as conversion
from service.rpc.boundary import Context


class PlanningServicer(pb_grpc.PlanningServiceServicer):
    """See the proto."""

    def __init__(self, *, planner: Planner, base_model: str) -> None:
        self._planner = planner
        self._base_model = base_model

    async def Plan(self, request: pb.PlanRequest, context: Context) -> pb.PlanResponse:
        violations = [*_contradictions(request), *self._unknown(request)]
        if violations:
            raise InvalidRequest(violations)
        return conversion.plan_message(await self._planner.answer(conversion.question_of(request)))

    def _unknown(self, request: pb.PlanRequest) -> list[FieldViolation]:
        if request.base_model in ("", self._base_model):
            return []
        return [
            FieldViolation(
                field="base_model",
                description=f"this service trains {self._base_model!r} only, got "
                f"{request.base_model[:60]!r}; describe other models in model",
            )
        ]


def _contradictions(request: pb.PlanRequest) -> list[FieldViolation]:
    violations = []
    models = [
        name
        for name, given in (
            ("base_model", request.base_model),
            ("model", request.HasField("model")),
            ("example", request.example),
        )
        if given
    ]
    if len(models) > 1:
        violations.append(
            FieldViolation(field=models[1], description=f"contradicts {models[0]}: give one model")
        )
    if request.dataset and request.HasField("data"):
        violations.append(
            FieldViolation(field="data", description="contradicts dataset: give one of the two")
        )
    if request.HasField("data") and 0 < request.data.tokens < 2 * request.data.rows:
        violations.append(
            FieldViolation(
                field="data.tokens",
                description=f"must be at least 2 for each of {request.data.rows} rows, "
                f"got {request.data.tokens}",
            )
        )
    if request.model.attention_heads > request.model.hidden_size:
        violations.append(
            FieldViolation(
                field="model.attention_heads",
                description=f"must be at most hidden_size, {request.model.hidden_size}, "
                f"got {request.model.attention_heads}",
            )
        )
    if request.probe:
        described = [
            name
            for name, given in (
                ("device", request.HasField("device")),
                ("model", request.HasField("model")),
                ("example", bool(request.example)),
            )
            if given
        ]
        violations.extend(
            FieldViolation(
                field="probe", description=f"contradicts {name}: only what this service has can be measured"
            )
            for name in described
        )
    return violations
