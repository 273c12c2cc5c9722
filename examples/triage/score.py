"""Scores a model's answers to the triage messages against the verdicts a person wrote.

Knows the labels, the shape of a verdict and how the rows are stored. Deliberately knows nothing of models,
servers or training, judges no summary by its wording, and repairs no answer: code fences, chatter before the
object or a label outside the lists make an answer worthless to a program that has to route a ticket, so here
they are worth nothing.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CATEGORIES = ("billing", "delivery", "account", "technical", "returns")
URGENCIES = ("low", "normal", "high")
TRAIN_PATH = Path(__file__).with_name("train.jsonl")
HELDOUT_PATH = Path(__file__).with_name("heldout.jsonl")


@dataclass(frozen=True, kw_only=True)
class TriageScore:
    """What share of the answers was right. All but rows are fractions in 0..1."""

    rows: int
    """Answers judged, at least 1."""
    valid_json: float
    """Answers that parse_verdict accepts."""
    right_category: float
    """Answers whose category equals the reference's. An invalid answer counts as wrong."""
    right_urgency: float
    """Answers whose urgency equals the reference's. An invalid answer counts as wrong."""

    @property
    def overall(self) -> float:
        """The mean of the three fractions."""
        return (self.valid_json + self.right_category + self.right_urgency) / 3

    def as_dict(self) -> dict[str, float]:
        """The four fields and overall, ready for JSON."""
        return {**dataclasses.asdict(self), "overall": self.overall}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One triage decision."""

    category: str
    """One of CATEGORIES."""
    urgency: str
    """One of URGENCIES."""
    summary: str
    """What the customer wants, in a few words. Never blank."""


@dataclass(frozen=True, kw_only=True)
class TriageRow:
    """One message with the verdict a person gave it."""

    system: str
    """The instruction, the same in every row."""
    message: str
    """What the customer wrote."""
    reference: Verdict


class TriageFileError(ValueError):
    """A file that is not rows or answers. The text names file and line (from 1) and what is accepted."""


def score(answers: Sequence[str], references: Sequence[Verdict]) -> TriageScore:
    """Judges answers[i] against references[i].

    Raises ValueError when the two differ in length or are empty.
    """
    if len(answers) != len(references) or not answers:
        raise ValueError(
            f"need one answer for each reference and at least one, got {len(answers)} and {len(references)}"
        )
    verdicts = [parse_verdict(answer) for answer in answers]
    judged = [(given, right) for given, right in zip(verdicts, references, strict=True) if given is not None]
    return TriageScore(
        rows=len(answers),
        valid_json=len(judged) / len(answers),
        right_category=sum(given.category == right.category for given, right in judged) / len(answers),
        right_urgency=sum(given.urgency == right.urgency for given, right in judged) / len(answers),
    )


def parse_verdict(answer: str) -> Verdict | None:
    """The verdict an answer holds, or None when it is not exactly one verdict.

    Accepted: a JSON object on one line with the three keys, each once and in any order, labels from the lists
    and a summary that is not blank. Whitespace around the object is tolerated, anything else is not.
    """
    line = answer.strip()
    if "\n" in line or "\r" in line:
        return None
    try:
        pairs = json.loads(line, object_pairs_hook=tuple)
    except (ValueError, RecursionError):  # a long run of brackets exhausts the parser's stack
        return None
    return _verdict_from_pairs(pairs)


def _verdict_from_pairs(pairs: object) -> Verdict | None:
    # Pairs, because a dict would hide a key that was given twice.
    if not isinstance(pairs, tuple):
        return None
    fields: dict[str, str] = {key: text for key, text in pairs if isinstance(text, str)}
    if len(pairs) != 3 or fields.keys() != {"category", "urgency", "summary"}:
        return None
    if (
        fields["category"] not in CATEGORIES
        or fields["urgency"] not in URGENCIES
        or not fields["summary"].strip()
    ):
        return None
    return Verdict(category=fields["category"], urgency=fields["urgency"], summary=fields["summary"])


def read_rows(path: Path) -> tuple[TriageRow, ...]:
    """The rows of a triage file in OpenAI chat JSONL, in file order. Raises TriageFileError, OSError."""
    return tuple(
        _row_from_line(line, f"{path.name}:{number}") for number, line in enumerate(_lines(path), start=1)
    )


def _lines(path: Path) -> list[str]:
    # Not splitlines: it also breaks at U+2028 and its like, which JSON allows inside a string.
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _row_from_line(line: str, place: str) -> TriageRow:
    try:
        messages = json.loads(line)["messages"]
        roles = [message["role"] for message in messages]
        contents = [message["content"] for message in messages]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TriageFileError(f"{place}: not a chat row with messages, each with role and content") from error
    if roles != ["system", "user", "assistant"] or not all(isinstance(content, str) for content in contents):
        raise TriageFileError(
            f"{place}: roles must be system, user, assistant with text contents, got {roles}"
        )
    system, message, answer = contents
    reference = parse_verdict(answer)
    if reference is None:
        raise TriageFileError(f"{place}: the assistant's content is not a verdict: {answer!r}")
    return TriageRow(system=system, message=message, reference=reference)


def read_answers(path: Path) -> tuple[str, ...]:
    """The answers in a file whose every line is {"answer": "..."}. Raises TriageFileError, OSError."""
    answers = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            answer = json.loads(line)["answer"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TriageFileError(f'{path.name}:{number}: not an object like {{"answer": "..."}}') from error
        if not isinstance(answer, str):
            raise TriageFileError(f"{path.name}:{number}: answer must be text, got {answer!r}")
        answers.append(answer)
    return tuple(answers)


def main(arguments: Sequence[str]) -> int:
    """Prints the score of an answer file as one JSON line. Returns 0, or 2 when the file cannot be scored."""
    parser = argparse.ArgumentParser(prog="python -m examples.triage.score", description=main.__doc__)
    parser.add_argument(
        "answers", type=Path, help='one {"answer": "..."} a line, in the order of heldout.jsonl'
    )
    path: Path = parser.parse_args(arguments).answers
    try:
        result = score(read_answers(path), [row.reference for row in read_rows(HELDOUT_PATH)])
    except (OSError, ValueError) as error:
        print(f"cannot score {path}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result.as_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
