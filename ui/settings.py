"""The settings of a training as people give them: a text for each of Hyperparameters, or none."""

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor import FieldDescriptor

from hotlora.errors import FieldViolation, InvalidArgument
from hotlora.v1.tuning_service_pb2 import Hyperparameters
from ui.typed import decimal, whole

COMMON = {
    "rank": "16 (few rows 8, many 32)",
    "learning_rate": "by technique",
    "epochs": "4 (few or many rows 3)",
    "max_steps": "by epochs",
    "batch_size": "8 (many rows 16)",
    "max_sequence_length": "2048 tokens",
    "seed": "42",
}
"""Field by field what holds where it is left empty, as the field itself says."""
EVALUATION = {
    "validation_fraction": "0.1 (many rows 0.05)",
    "eval_every_steps": "four in a run",
    "early_stopping_patience": "0: never",
    "early_stopping_metric": "eval loss",
}
RARE = {
    "alpha": "2 * rank",
    "dropout": "0.05 (few rows 0.1)",
    "use_rslora": "no",
    "target_modules": "all-linear",
    "virtual_tokens": "20, of prompt tuning",
    "initial_prompt": "random words, of prompt tuning",
    "dpo_beta": "0.1, of preferences",
    "warmup_ratio": "0.05",
    "schedule": "cosine",
    "weight_decay": "0.01 (few rows 0.05)",
    "max_grad_norm": "1",
    "log_every_steps": "1",
    "checkpoint_every_steps": "as evaluations",
}

_FIELDS = {field.name: field for field in Hyperparameters.DESCRIPTOR.fields}


def hyperparameters(texts: Mapping[str, str]) -> Hyperparameters:
    """What was given, by field; what is empty stays unset. Raises InvalidArgument naming every field whose
    text cannot be read."""
    given = Hyperparameters()
    violations: list[FieldViolation] = []
    for name, text in texts.items():
        try:
            given.MergeFrom(_setting(name, text) if text else Hyperparameters())
        except InvalidArgument as error:
            violations.extend(error.violations)
    if violations:
        raise InvalidArgument("Settings cannot be read.", violations=tuple(violations))
    return given


def options(name: str, default: str) -> list[tuple[str, str]]:
    """What a setting is picked from, as (words, text); empty where it is typed."""
    field = _FIELDS[name]
    if field.enum_type is not None:
        return choices([value.name for value in field.enum_type.values], default)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return [(f"default: {default}", ""), ("yes", "yes"), ("no", "no")]
    return []


def choices(names: Sequence[str], default: str) -> list[tuple[str, str]]:
    """What to pick a constant of an enum from, as (words, constant). The first name is that of its zero, in
    whose place the default stands, as ""."""
    zero, *constants = names
    prefix = zero.removesuffix("UNSPECIFIED")
    words = [constant.removeprefix(prefix).replace("_", " ").lower() for constant in constants]
    return [(f"default: {default}", ""), *zip(words, constants, strict=True)]


def _setting(name: str, text: str) -> Hyperparameters:
    """Settings with this one alone. Raises InvalidArgument."""
    field = _FIELDS[name]
    path = f"hyperparameters.{name}"
    value: object = text
    if field.type == FieldDescriptor.TYPE_INT32:
        value = whole(text, path)
    elif field.type == FieldDescriptor.TYPE_DOUBLE:
        value = decimal(text, path)
    elif field.type == FieldDescriptor.TYPE_BOOL:
        value = text == "yes"
    elif field.is_repeated:
        value = text.replace(",", " ").split()
    return Hyperparameters(**{name: value})  # type: ignore[arg-type]  # as the descriptor has it
