"""Instruction following: is an answer in the format that was asked for, and are its fields right?

The right answer says what the format is. Where it is a JSON object, an answer is valid if it is one line with
one JSON object that has exactly the same keys, each once. Any other right answer is taken as a single field
without a name, for which every answer that is not blank is valid.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.scoring.answers import token_f1

FREE_TEXT_WORDS = 4
"""From so many words on a text has no single right wording: it is credited by token F1, not by equality."""

WHOLE_ANSWER = ""
"""Name of the field that an answer without JSON is."""


@dataclass(frozen=True, kw_only=True)
class FieldScore:
    """How one answer did."""

    valid: bool
    """Whether the format is right."""
    credit: Mapping[str, float]
    """For each field of the right answer, 0..1; all 0 where the format is wrong."""

    @property
    def mean(self) -> float:
        """Mean credit of the fields; where there are none, 1 if the format is right."""
        return sum(self.credit.values()) / len(self.credit) if self.credit else float(self.valid)


def read_object(text: str) -> dict[str, object] | None:
    """The JSON object that a text is; None where it is anything else, or has a key twice."""
    line = text.strip()
    if not line.startswith("{") or "\n" in line or "\r" in line:
        return None
    try:
        value: object = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def judge(answer: str, reference: str) -> FieldScore:
    """Compare one answer with the right one."""
    wanted = read_object(reference)
    if wanted is None:
        return FieldScore(
            valid=bool(answer.strip()), credit={WHOLE_ANSWER: _credit(answer.strip(), reference.strip())}
        )
    given = read_object(answer)
    if given is None or given.keys() != wanted.keys():
        return FieldScore(valid=False, credit=dict.fromkeys(wanted, 0.0))
    return FieldScore(valid=True, credit={key: _credit(given[key], wanted[key]) for key in wanted})


def _credit(given: object, wanted: object) -> float:
    if isinstance(given, str) and isinstance(wanted, str):
        if len(wanted.split()) >= FREE_TEXT_WORDS:
            return token_f1(given, wanted)
        return float(given.split() == wanted.split())
    # In Python True equals 1; in JSON they are different things.
    return float(isinstance(given, bool) == isinstance(wanted, bool) and given == wanted)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key occurs twice")
    return fields
