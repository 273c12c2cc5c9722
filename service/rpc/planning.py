"""PlanningService: checks what protos cannot say about a question, and shows the plan."""

from collections.abc import Sequence, Set

from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1 import planning_service_pb2_grpc as pb_grpc
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from service.errors import FieldViolation
from service.planning import DEFAULT_DATA, DESCRIBED_CONTEXT, Planner, data_of
from service.registry import DatasetRow, Registry
from service.rpc import contradictions, job_checks, settings_conversion
from service.rpc import conversion as common
from service.rpc import planning_conversion as conversion
from service.rpc.boundary import Context
from service.rpc.findings import Findings
from service.serving import Bases
from trainer.config import Hyperparameters, Technique
from trainer.pacing import row_limit
from trainer.planning import Data, choose, complete


class PlanningServicer(pb_grpc.PlanningServiceServicer):
    """See the proto."""

    def __init__(
        self,
        *,
        planner: Planner,
        registry: Registry,
        bases: Bases,
    ) -> None:
        self._planner = planner
        self._registry = registry
        self._bases = bases

    async def Plan(self, request: pb.PlanRequest, context: Context) -> pb.PlanResponse:
        findings = Findings()
        await self._examine(request, findings)
        findings.raise_any()
        return conversion.plan_message(await self._planner.answer(conversion.question_of(request)))

    async def problems(self, request: pb.PlanRequest, broken: Set[str]) -> Sequence[FieldViolation]:
        """What is wrong besides the fields that are `broken`, and that `request` comes without."""
        findings = Findings(broken)
        await self._examine(request, findings)
        return findings.violations

    async def _examine(self, request: pb.PlanRequest, findings: Findings) -> None:
        findings.add(_contradictions(request, findings))
        advice = "; describe other models in model"
        findings.add(self._bases.unknown(request.base_model, advice=advice))
        dataset, data = None, None
        if request.dataset:
            row = self._registry.get_dataset(common.id_of(request.dataset))
            dataset = await findings.look_up("dataset", row)
            data = None if dataset is None else data_of(dataset)
        elif request.HasField("data"):
            data = conversion.data_of(request.data) if findings.knows("data") else None
        elif findings.knows("dataset"):
            data = DEFAULT_DATA
        self._check_settings(request, dataset, data, findings)

    def _check_settings(
        self, request: pb.PlanRequest, dataset: DatasetRow | None, data: Data | None, findings: Findings
    ) -> None:
        """`data` None: nobody can say. What depends on a technique is left to the job that has one."""
        given = request.hyperparameters
        names = [field.name for field, _ in given.ListFields()]
        findings.add(job_checks.without_effect(None, None if data is None else data.objective, names))
        base = self._bases.meant(request.base_model)
        is_own_base = not request.HasField("model") and not request.example
        context_length = base.context_length if is_own_base else DESCRIBED_CONTEXT
        settings = _settings(request, data or DEFAULT_DATA, context_length, base.fleet.max_rank)
        if is_own_base:
            findings.add(job_checks.unknown_modules(settings, base.linear_modules))
            findings.add(job_checks.too_high_rank(None, settings, base.fleet.max_rank))
            findings.add(job_checks.beyond_context(settings, base.context_length))
            knows_length = findings.knows("hyperparameters.max_sequence_length")
            if dataset is not None and knows_length and self._bases.counts(base, dataset.base_model):
                findings.add(job_checks.too_long_rows(settings, dataset, base.context_length))
        pieces = None
        if data is not None and findings.knows(*contradictions.DECIDE_STEPS):
            pieces = data.in_pieces(row_limit(settings, Technique.LORA, context_length))
        scored = None if dataset is None else dataset.task is not None
        findings.add(contradictions.between(given, settings, data=pieces, scored=scored))


def _settings(request: pb.PlanRequest, data: Data, context_length: int, max_rank: int) -> Hyperparameters:
    choices = choose(Technique.LORA, data, parameters=0, context_length=context_length, max_rank=max_rank)
    return complete(choices, settings_conversion.given_settings_of(request.hyperparameters))


def _contradictions(request: pb.PlanRequest, findings: Findings) -> list[FieldViolation]:
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
    if request.data.has_task and (
        request.data.texts or request.data.objective == tuning_pb.OBJECTIVE_PREFERENCE
    ):
        other = "data.texts" if request.data.texts else "data.objective OBJECTIVE_PREFERENCE"
        violations.append(
            FieldViolation(
                field="data.has_task",
                description=f"contradicts {other}: only answers of conversations are scored",
            )
        )
    knows_width = findings.knows("model.hidden_size")
    if knows_width and request.model.attention_heads > request.model.hidden_size:
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
