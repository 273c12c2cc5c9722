"""Plans between wire and domain. Requests arrive here checked."""

from collections.abc import Mapping

from hotlora.v1 import planning_service_pb2 as pb
from service.planning import UNKNOWN_SHARE
from service.planning.planner import Answer, DescribedDevice, Question
from service.rpc import conversion, settings_conversion
from trainer.config import Objective
from trainer.planning import (
    EXAMPLES,
    Data,
    Device,
    ModelShape,
    Source,
    TechniquePlan,
    TextbookLine,
    described,
)

_DEFAULT_ROW_TOKENS = 128
_KINDS: Mapping[int, str] = {
    pb.DeviceDescription.KIND_UNSPECIFIED: "cuda",
    pb.DeviceDescription.KIND_CPU: "cpu",
    pb.DeviceDescription.KIND_CUDA: "cuda",
}
_KINDS_SENT = {"cpu": pb.DeviceDescription.KIND_CPU, "cuda": pb.DeviceDescription.KIND_CUDA}
_EXAMPLES: Mapping[int, str] = {pb.EXAMPLE_LLAMA_7B: "llama-7b", pb.EXAMPLE_GPT2: "gpt2"}
_SOURCES_SENT = {
    Source.PROBE: pb.SPEED_SOURCE_PROBE,
    Source.LIKENESS: pb.SPEED_SOURCE_LIKENESS,
    Source.ARITHMETIC: pb.SPEED_SOURCE_ARITHMETIC,
}


def question_of(request: pb.PlanRequest) -> Question:
    """What is asked."""
    device = request.device
    return Question(
        base_model=request.base_model,
        dataset_id=conversion.id_of(request.dataset) if request.dataset else None,
        data=data_of(request.data) if request.HasField("data") else None,
        device=DescribedDevice(
            kind=_KINDS[device.kind],
            memory_bytes=device.memory_bytes,
            operations_per_second=device.operations_per_second,
        )
        if request.HasField("device")
        else None,
        shape=_shape_of(request.model) if request.HasField("model") else None,
        example=EXAMPLES[_EXAMPLES[request.example]] if request.example else None,
        given=settings_conversion.given_settings_of(request.hyperparameters),
        probe=settings_conversion.technique_of(request.probe_technique) if request.probe else None,
    )


def plan_message(answer: Answer) -> pb.PlanResponse:
    """What it will need, and what to do."""
    recommended = answer.plan.recommendation
    return pb.PlanResponse(
        base_model=answer.base_model,
        parameters=answer.shape.parameters,
        data=_data_message(answer.data),
        device=_device_message(answer.device, is_own=answer.is_own_device),
        techniques=[
            _technique_message(
                one,
                answer.data.objective,
                answer.textbook[one.technique],
                answer.probe_times.get(one.technique),
            )
            for one in answer.plan.techniques
        ],
        recommendation=pb.Recommendation(
            technique=None
            if recommended.technique is None
            else settings_conversion.technique_sent(recommended.technique),
            fits=recommended.fits,
            reasons=recommended.reasons,
        ),
    )


def data_of(message: pb.DataDescription) -> Data:
    """Rows in numbers, with what is left out filled in."""
    objective = settings_conversion.objective_of(message.objective) or Objective.SUPERVISED
    sides = 2 if objective is Objective.PREFERENCE else 1
    tokens = message.tokens or sides * message.rows * _DEFAULT_ROW_TOKENS
    return Data(
        rows=message.rows,
        tokens=tokens,
        longest_row=message.longest_row_tokens or 2 * -(-tokens // (sides * message.rows)),
        trained_share=message.trained_share or UNKNOWN_SHARE,
        objective=objective,
        is_cut=message.texts,
        has_task=message.has_task,
    )


def _data_message(data: Data) -> pb.DataDescription:
    return pb.DataDescription(
        rows=data.rows,
        tokens=data.tokens,
        longest_row_tokens=data.longest_row,
        trained_share=data.trained_share,
        objective=settings_conversion.objective_sent(data.objective),
        texts=data.is_cut,
        has_task=data.has_task,
    )


def _shape_of(message: pb.ModelDescription) -> ModelShape:
    return described(
        layers=message.layers,
        hidden=message.hidden_size,
        heads=message.attention_heads,
        key_value_heads=message.key_value_heads or message.attention_heads,
        intermediate=message.intermediate_size,
        vocabulary=message.vocabulary_size,
        tied=message.tied_embeddings,
    )


def _device_message(device: Device, *, is_own: bool) -> pb.Device:
    return pb.Device(
        kind=_KINDS_SENT[device.footing.device],
        memory_bytes=device.memory_bytes,
        available_bytes=device.available_bytes,
        is_own=is_own,
    )


def _technique_message(
    planned: TechniquePlan, objective: Objective, textbook: tuple[TextbookLine, ...], probe_time: float | None
) -> pb.TechniquePlan:
    return pb.TechniquePlan(
        technique=settings_conversion.technique_sent(planned.technique),
        memory=[
            pb.MemoryLine(part=_part(line.part), bytes=line.bytes, explanation=line.how)
            for line in planned.lines
        ],
        total_bytes=planned.total_bytes,
        fits=planned.fits,
        trained_parameters=planned.trained_parameters,
        hyperparameters=settings_conversion.hyperparameters_message(
            planned.settings, planned.technique, objective
        ),
        reasons=[
            pb.SettingReason(field=choice.field, value=choice.value, reason=choice.reason)
            for choice in planned.choices
        ],
        steps=planned.course.steps,
        tokens=planned.course.tokens,
        seconds=planned.seconds,
        speed_source=None if planned.speed is None else _SOURCES_SENT[planned.speed.source],
        probe_time=conversion.timestamp(probe_time),
        unservable=planned.unservable,
        textbook=[
            pb.TextbookLine(
                part=_part(line.part),
                bytes=line.bytes,
                rule=line.rule,
                printed_bytes=line.printed_bytes,
                real_bytes=line.real_bytes,
                reality=line.reality,
            )
            for line in textbook
        ],
    )


def _part(part: str) -> str:
    """By its name on the wire."""
    return f"MEMORY_PART_{part.upper()}"
