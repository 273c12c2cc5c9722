"""What a job is asked to do between the wire and the domain: technique, objective and hyperparameters.

As `conversion` is for everything else. The defaults stand in the proto.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hotlora.v1 import tuning_service_pb2 as tuning_pb
from trainer.config import (
    Hyperparameters,
    Metric,
    Objective,
    Schedule,
    Technique,
    is_read,
)

_TECHNIQUES: Mapping[int, Technique] = {
    tuning_pb.TECHNIQUE_UNSPECIFIED: Technique.LORA,
    tuning_pb.TECHNIQUE_LORA: Technique.LORA,
    tuning_pb.TECHNIQUE_QLORA: Technique.QLORA,
    tuning_pb.TECHNIQUE_PROMPT_TUNING: Technique.PROMPT_TUNING,
    tuning_pb.TECHNIQUE_FULL: Technique.FULL,
}
_TECHNIQUES_SENT = {
    Technique.LORA: tuning_pb.TECHNIQUE_LORA,
    Technique.QLORA: tuning_pb.TECHNIQUE_QLORA,
    Technique.PROMPT_TUNING: tuning_pb.TECHNIQUE_PROMPT_TUNING,
    Technique.FULL: tuning_pb.TECHNIQUE_FULL,
}
_OBJECTIVES: Mapping[int, Objective | None] = {
    tuning_pb.OBJECTIVE_UNSPECIFIED: None,
    tuning_pb.OBJECTIVE_SUPERVISED: Objective.SUPERVISED,
    tuning_pb.OBJECTIVE_PREFERENCE: Objective.PREFERENCE,
}
_OBJECTIVES_SENT = {
    Objective.SUPERVISED: tuning_pb.OBJECTIVE_SUPERVISED,
    Objective.PREFERENCE: tuning_pb.OBJECTIVE_PREFERENCE,
}
_SCHEDULES: Mapping[int, Schedule] = {
    tuning_pb.SCHEDULE_UNSPECIFIED: Schedule.COSINE,
    tuning_pb.SCHEDULE_COSINE: Schedule.COSINE,
    tuning_pb.SCHEDULE_LINEAR: Schedule.LINEAR,
    tuning_pb.SCHEDULE_CONSTANT: Schedule.CONSTANT,
}
_SCHEDULES_SENT = {
    Schedule.COSINE: tuning_pb.SCHEDULE_COSINE,
    Schedule.LINEAR: tuning_pb.SCHEDULE_LINEAR,
    Schedule.CONSTANT: tuning_pb.SCHEDULE_CONSTANT,
}
_METRICS: Mapping[int, Metric] = {
    tuning_pb.METRIC_UNSPECIFIED: Metric.EVAL_LOSS,
    tuning_pb.METRIC_EVAL_LOSS: Metric.EVAL_LOSS,
    tuning_pb.METRIC_TASK_SCORE: Metric.TASK_SCORE,
}
_METRICS_SENT = {
    Metric.EVAL_LOSS: tuning_pb.METRIC_EVAL_LOSS,
    Metric.TASK_SCORE: tuning_pb.METRIC_TASK_SCORE,
}


def technique_of(technique: int) -> Technique:
    """The technique that a request asks for."""
    return _TECHNIQUES[technique]


def objective_of(objective: int) -> Objective | None:
    """The objective that a request asks for; None where it asks for none."""
    return _OBJECTIVES[objective]


def technique_sent(technique: Technique) -> tuning_pb.Technique:
    """The technique on the wire."""
    return _TECHNIQUES_SENT[technique]


def objective_sent(objective: Objective) -> tuning_pb.Objective:
    """The objective on the wire."""
    return _OBJECTIVES_SENT[objective]


def given_settings_of(message: tuning_pb.Hyperparameters) -> dict[str, Any]:
    """The settings that a request chose, by their names in the domain."""
    # Wire and domain name these fields alike; ListFields gives those that were set.
    given: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    given["target_modules"] = tuple(message.target_modules)
    given["schedule"] = _SCHEDULES[message.schedule]
    given["early_stopping_metric"] = _METRICS[message.early_stopping_metric]
    return given


def hyperparameters_message(
    settings: Hyperparameters, technique: Technique, objective: Objective
) -> tuning_pb.Hyperparameters:
    """What was decided; a setting that is None, or that technique, objective or max_steps leave without
    effect, stays unset, so that a request may send them again."""
    sent = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if value is not None and is_read(name, technique, objective)
    }
    if settings.max_steps is not None:
        del sent["epochs"]
    return tuning_pb.Hyperparameters(
        **{
            **sent,
            "schedule": _SCHEDULES_SENT[settings.schedule],
            "early_stopping_metric": _METRICS_SENT[settings.early_stopping_metric],
        }
    )
