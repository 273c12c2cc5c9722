"""What a file of training rows holds, in figures a person can judge it by.

Knows rows and numbers of tokens, but neither bytes nor templates. Memory is about 200 bytes a row.
"""

import dataclasses
import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainer.config import Hyperparameters
from trainer.records import AnyRecord, LineProblem, PreferenceRecord, Record, TextRecord, Turn, canonical_line
from trainer.rows import validation_indices

MAX_EXAMPLES = 20
"""How many problems, duplicates and leaks are told in full."""
_NUMBERS = re.compile(r"\d[\d,]*")
_QUOTES = re.compile(r'"(?:[^"\\]|\\.)*"')
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """A row that occurs again."""

    line: int
    """Line (or row) of the repetition."""
    first_line: int
    """Line of the row that it repeats."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Figures of a file. Lines count from 1; in a list and in Parquet they are rows."""

    rows_kept: int = 0
    rows_dropped: int = 0
    """Refused rows, left out where the caller asked for that."""
    rows_cut: int = 0
    """Texts longer than the model's context, which are trained on in pieces."""
    problems: tuple[LineProblem, ...] = ()
    """The first 20."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Refused rows for each reason, the commonest first; numbers and quotations are left out of reasons."""
    duplicates: int = 0
    """Rows that are an earlier row once more."""
    duplicate_rows: tuple[Repeat, ...] = ()
    """The first 20."""
    leaks: int = 0
    """Rows which the default split sets aside for validation though their prompt is trained on, too. A run
    counts those of its own split."""
    leaked_rows: tuple[Repeat, ...] = ()
    """The first 20; `first_line` is the row that is trained on."""
    tokens: int = 0
    """0 where no base model was there to count them, as in all that follows."""
    trained_tokens: int = 0
    """Tokens that carry loss."""
    token_percentiles: dict[int, int] = field(default_factory=dict)
    """Tokens of a row: 50, 90, 95 and 99 of 100 rows have at most so many."""
    longest_row_tokens: int = 0
    longest_row_line: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    """Where the task is classification: rows of each label, the commonest first."""

    def to_json(self) -> str:
        """As a registry keeps it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """What `to_json` gave."""
        fields = json.loads(text)
        return cls(
            **{
                **fields,
                "problems": tuple(LineProblem(**each) for each in fields["problems"]),
                "duplicate_rows": tuple(Repeat(**each) for each in fields["duplicate_rows"]),
                "leaked_rows": tuple(Repeat(**each) for each in fields["leaked_rows"]),
                "token_percentiles": {
                    int(key): tokens for key, tokens in fields["token_percentiles"].items()
                },
            }
        )


class Tally:
    """Counts rows and problems as they come; `report` sums them up."""

    def __init__(self) -> None:
        self._problems: list[LineProblem] = []
        self._reasons: Counter[str] = Counter()
        self._dropped = 0
        self._lines = array("I")
        self._prompts = array("Q")  # a hash of each row's prompt
        self._first_lines: dict[int, int] = {}  # line of each row by its hash
        self._duplicates = 0
        self._duplicate_rows: list[Repeat] = []
        self._lengths: Counter[int] = Counter()
        self._tokens = self._trained_tokens = self._cut = 0
        self._longest = (0, 0)  # tokens, line
        self._labels: Counter[str] = Counter()
        self._has_prompts = True

    def add_problem(self, problem: LineProblem) -> None:
        """Count a refused row."""
        self._reasons[_QUOTES.sub('"..."', _NUMBERS.sub("N", problem.reason))] += 1
        self._dropped += not problem.is_of_file
        if len(self._problems) < MAX_EXAMPLES:
            self._problems.append(problem)

    def add_row(self, record: AnyRecord, *, is_labelled: bool) -> None:
        """Count an accepted row; whether its last answer is a label."""
        if is_labelled and isinstance(record, Record):
            self._labels[record.messages[-1].content] += 1
        self._lines.append(record.line)
        self._prompts.append(_hash(_prompt(record)))
        self._has_prompts = self._has_prompts and not isinstance(record, TextRecord)
        known = self._first_lines.setdefault(_hash(canonical_line(record)), record.line)
        if known != record.line:
            self._duplicates += 1
            if len(self._duplicate_rows) < MAX_EXAMPLES:
                self._duplicate_rows.append(Repeat(line=record.line, first_line=known))

    def add_tokens(self, line: int, lengths: Sequence[int], trained_tokens: int, *, is_cut: bool) -> None:
        """Count the tokens of an accepted row, of a preference both sides."""
        self._tokens += sum(lengths)
        self._trained_tokens += trained_tokens
        self._cut += is_cut
        longest = max(lengths)
        self._lengths[longest] += 1
        if longest > self._longest[0]:
            self._longest = (longest, line)

    def report(self) -> Report:
        """Everything so far. Takes a second for a million rows."""
        leaks, leaked_rows = self._leaks()
        return Report(
            rows_kept=len(self._lines),
            rows_dropped=self._dropped,
            rows_cut=self._cut,
            problems=tuple(self._problems),
            reasons=dict(self._reasons.most_common()),
            duplicates=self._duplicates,
            duplicate_rows=tuple(self._duplicate_rows),
            leaks=leaks,
            leaked_rows=leaked_rows,
            tokens=self._tokens,
            trained_tokens=self._trained_tokens,
            token_percentiles=self._percentiles(),
            longest_row_tokens=self._longest[0],
            longest_row_line=self._longest[1],
            labels=dict(self._labels.most_common()),
        )

    def _leaks(self) -> tuple[int, tuple[Repeat, ...]]:
        if not self._has_prompts:
            return 0, ()
        settings = Hyperparameters()
        aside = validation_indices(len(self._lines), settings.validation_fraction, settings.seed)
        trained_lines: dict[int, int] = {}
        for index, prompt in enumerate(self._prompts):
            if index not in aside:
                trained_lines.setdefault(prompt, self._lines[index])
        leaked = [
            Repeat(line=self._lines[index], first_line=trained_lines[self._prompts[index]])
            for index in sorted(aside)
            if self._prompts[index] in trained_lines
        ]
        return len(leaked), tuple(leaked[:MAX_EXAMPLES])

    def _percentiles(self) -> dict[int, int]:
        rows = self._lengths.total()
        lengths = sorted(self._lengths.items())
        found = {}
        for percent in _PERCENTILES if rows else ():
            seen = 0
            for length, count in lengths:
                seen += count
                if seen * 100 >= rows * percent:
                    found[percent] = length
                    break
        return found


def _prompt(record: AnyRecord) -> bytes:
    """What is asked before the last answer; of a text, all of it."""
    match record:
        case Record():
            return _spoken(record.messages[:-1])
        case TextRecord():
            return record.text.encode()
        case PreferenceRecord():
            return _spoken(record.prompt)


def _spoken(turns: Sequence[Turn]) -> bytes:
    return "\0".join(part for turn in turns for part in (turn.role, turn.content)).encode()


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
