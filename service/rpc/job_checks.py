"""What is wrong with the settings of a job before anything runs, as field violations. Pure functions."""

from collections.abc import Mapping, Sequence

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

_SHOWN_LABELS = 3


def unservable(technique: Technique, reasons: Mapping[Technique, str]) -> list[FieldViolation]:
    """A technique whose versions could not be served."""
    if technique not in reasons:
        return []
    others = [other.value for other in Technique if other not in reasons]
    advice = f"choose {' or '.join(others)}" if others else "this service can serve none of them"
    return [
        FieldViolation(
            field="technique",
            description=f"{technique} could not be served: {reasons[technique]}; {advice}",
        )
    ]


def contradicting_objective(objective: Objective, dataset: DatasetRow) -> list[FieldViolation]:
    """An objective that cannot be trained with what the dataset holds."""
    if objective is dataset.objective:
        return []
    return [
        FieldViolation(
            field="objective",
            description=f"objective {objective} does not fit dataset {dataset.id!r}, which holds "
            f"{dataset.kind}; choose {dataset.objective} or leave it out, or choose another dataset",
        )
    ]


def unlike_evaluation(dataset: DatasetRow, asked: DatasetRow) -> list[FieldViolation]:
    """What makes the rows `asked` after training another matter than those of `dataset`. Datasets that name
    no task, and those of earlier releases, tell no labels."""

    def refused(description: str) -> list[FieldViolation]:
        return [FieldViolation(field="evaluation_dataset", description=description)]

    if asked.kind is not dataset.kind:
        return refused(
            f"{asked.id!r} holds {asked.kind}, and dataset {dataset.id!r} {dataset.kind}; choose rows of the "
            "same kind (an evaluation of the finished version takes others)"
        )
    if asked.task is not None and dataset.task is not None and asked.task is not dataset.task:
        return refused(
            f"{asked.id!r} has the task {asked.task}, and dataset {dataset.id!r} {dataset.task}; choose rows "
            "of the same task"
        )
    if asked.report is None or dataset.report is None or not dataset.report.labels:
        return []
    unknown = sorted(asked.report.labels.keys() - dataset.report.labels.keys())
    if not unknown:
        return []
    shown = ", ".join(repr(label[:60]) for label in unknown[:_SHOWN_LABELS])
    others = f" and {len(unknown) - _SHOWN_LABELS} more" if len(unknown) > _SHOWN_LABELS else ""
    return refused(
        f"{asked.id!r} has labels that dataset {dataset.id!r} does not teach: {shown}{others}; leave out "
        "their rows, or correct their spelling"
    )


def without_effect(
    technique: Technique | None, objective: Objective | None, given: Sequence[str]
) -> list[FieldViolation]:
    """Settings that were chosen and that technique or objective do not read; None: any could come."""
    violations = []
    for name in given:
        techniques = Technique if technique is None else [technique]
        objectives = Objective if objective is None else [objective]
        if any(is_read(name, one, other) for one in techniques for other in objectives):
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


def unreadable_prompt(settings: Hyperparameters, tokens: int) -> list[FieldViolation]:
    """A text that virtual tokens should begin as, and that has none of its own."""
    if tokens or not settings.initial_prompt:
        return []
    return [
        FieldViolation(
            field="hyperparameters.initial_prompt",
            description="the base model's tokenizer makes no token of it; write words, or leave it out",
        )
    ]


def too_high_rank(technique: Technique | None, settings: Hyperparameters, most: int) -> list[FieldViolation]:
    """A rank above `most`, the engine's limit; None: any technique could come."""
    if settings.rank <= most or (technique is not None and technique not in SETTINGS_OF["rank"]):
        return []
    return [
        FieldViolation(
            field="hyperparameters.rank",
            description=f"must be at most {most}, the highest rank that the engine serves, "
            f"got {settings.rank}",
        )
    ]


def beyond_context(settings: Hyperparameters, context_length: int) -> list[FieldViolation]:
    """Rows that may be longer than what is served."""
    if settings.max_sequence_length <= context_length:
        return []
    return [
        FieldViolation(
            field="hyperparameters.max_sequence_length",
            description=f"must be at most {context_length}, the context that is served, "
            f"got {settings.max_sequence_length}",
        )
    ]


def too_long_rows(
    settings: Hyperparameters, dataset: DatasetRow, context_length: int
) -> list[FieldViolation]:
    """Rows that are longer than the settings allow; texts are cut."""
    length = settings.max_sequence_length
    if length > context_length or dataset.longest_row_tokens <= length or dataset.kind is Kind.TEXT:
        return []
    return [
        FieldViolation(
            field="hyperparameters.max_sequence_length",
            description=f"the longest row of dataset {dataset.id!r}{_standing(dataset)} has "
            f"{dataset.longest_row_tokens} tokens, more than {length}; raise it "
            f"(up to {context_length}) or shorten the row",
        )
    ]


def _standing(dataset: DatasetRow) -> str:
    """Where the longest row stands; nothing for datasets of releases that did not count it."""
    return f", line {dataset.report.longest_row_line}," if dataset.report is not None else ""
