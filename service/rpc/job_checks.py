"""What is wrong with the settings of a job before anything runs, as field violations. Pure functions."""

from collections.abc import Sequence

from service.errors import FieldViolation
from service.registry import DatasetRow
from trainer.config import (
    ALL_LINEAR,
    PREFERENCE_SETTINGS,
    SETTINGS_OF,
    Hyperparameters,
    Objective,
    Technique,
    is_read,
)
from trainer.records import Kind


def objective_for(asked: Objective | None, dataset: DatasetRow) -> Objective:
    """The objective that was asked for, or else the one that the dataset is for."""
    return asked or (Objective.PREFERENCE if dataset.kind is Kind.PREFERENCES else Objective.SUPERVISED)


def contradicting_objective(objective: Objective, dataset: DatasetRow) -> list[FieldViolation]:
    """An objective that cannot be trained with what the dataset holds."""
    fitting = objective_for(None, dataset)
    if objective is fitting:
        return []
    return [
        FieldViolation(
            field="objective",
            description=f"objective {objective} does not fit dataset {dataset.id!r}, which holds "
            f"{dataset.kind}; choose {fitting} or leave it out, or choose another dataset",
        )
    ]


def without_effect(technique: Technique, objective: Objective, given: Sequence[str]) -> list[FieldViolation]:
    """Settings that were chosen and that technique or objective do not read."""
    violations = []
    for name in given:
        if is_read(name, technique, objective):
            continue
        if name in PREFERENCE_SETTINGS:
            what, readers = f"objective {objective}", [Objective.PREFERENCE.value]
        else:
            what, readers = f"technique {technique}", sorted(SETTINGS_OF[name])
        violations.append(
            FieldViolation(
                field=f"hyperparameters.{name}",
                description=f"would have no effect with {what}; leave it out, or choose "
                f"{' or '.join(readers)}",
            )
        )
    return violations


def unknown_modules(settings: Hyperparameters, known: Sequence[str]) -> list[FieldViolation]:
    """Target modules that the base has not. Without `known` ones, nobody can tell yet."""
    field, wanted = "hyperparameters.target_modules", set(settings.target_modules)
    if ALL_LINEAR in wanted:
        others = sorted(wanted - {ALL_LINEAR})
        if not others:
            return []
        return [
            FieldViolation(
                field=field,
                description=f"{ALL_LINEAR!r} means every module already; leave out "
                f"either it or {', '.join(others)}",
            )
        ]
    unknown = sorted(wanted - set(known)) if known else []
    if not unknown:
        return []
    return [
        FieldViolation(
            field=field,
            description=f"the base model has no linear layer called {', '.join(unknown)} in its blocks; "
            f"it has {', '.join(known)} ({ALL_LINEAR!r} means all of them)",
        )
    ]


def no_room(settings: Hyperparameters, dataset: DatasetRow, context_length: int) -> list[FieldViolation]:
    """Virtual tokens that do not fit into the served context together with the longest row."""
    row = 2 if dataset.kind is Kind.TEXT else dataset.longest_row_tokens  # texts are cut to fit
    if row + settings.virtual_tokens <= context_length:
        return []
    return [
        FieldViolation(
            field="hyperparameters.virtual_tokens",
            description=f"must be at most {max(0, context_length - row)}: the context that is served has "
            f"{context_length} tokens, and the longest row {row}; got {settings.virtual_tokens}",
        )
    ]
