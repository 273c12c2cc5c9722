"""Text classification: accuracy, macro-F1 and the confusion table.

An answer is read strictly, as a program would have to read it: it must be one label and nothing else. Only
case, surrounding white space and quotes, and a full stop at the end are forgiven.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

NO_LABEL = ""
"""Stands for an answer that is none of the labels."""

_QUOTES = "\"'`*"


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often each label was answered with which."""

    labels: tuple[str, ...]
    """Rows, and columns but the last."""
    counts: tuple[tuple[int, ...], ...]
    """`counts[i][j]`: rows of label i that were answered with label j; the last column is "no label"."""


def given_label(answer: str, labels: Sequence[str]) -> str:
    """The label that an answer is, or NO_LABEL."""
    if answer.strip() in labels:  # two labels may differ by case alone
        return answer.strip()
    by_reading = {_reading(label): label for label in labels}
    return by_reading.get(_reading(answer), NO_LABEL)


def accuracy(given: Sequence[str], right: Sequence[str]) -> float:
    """Part of the rows whose label is right."""
    return sum(one == other for one, other in zip(given, right, strict=True)) / len(right)


def macro_f1(given: Sequence[str], right: Sequence[str]) -> float:
    """Unweighted mean of the labels' F1.

    Over every label that occurs among the right or the given ones; "no label" is a miss of the right label
    and not a label itself. A label that is never right has F1 0. As scikit-learn's
    `f1_score(average="macro", labels=those, zero_division=0)` (Pedregosa et al. 2011).
    """
    labels = sorted({*given, *right} - {NO_LABEL})
    return sum(_f1(label, given, right) for label in labels) / len(labels)


def confusion(given: Sequence[str], right: Sequence[str], labels: Sequence[str]) -> Confusion:
    """The table over `labels`, which must hold every right label."""
    columns = {label: index for index, label in enumerate([*labels, NO_LABEL])}
    counts = [[0] * len(columns) for _ in labels]
    for one, other in zip(given, right, strict=True):
        counts[columns[other]][columns[one]] += 1
    return Confusion(labels=tuple(labels), counts=tuple(tuple(row) for row in counts))


def _f1(label: str, given: Sequence[str], right: Sequence[str]) -> float:
    hits = sum(one == other == label for one, other in zip(given, right, strict=True))
    return 2 * hits / (sum(one == label for one in given) + sum(other == label for other in right))


def _reading(text: str) -> str:
    bare = unicodedata.normalize("NFC", text).strip().strip(_QUOTES).removesuffix(".").strip(_QUOTES)
    return " ".join(bare.casefold().split())
