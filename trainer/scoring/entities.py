"""Named entity recognition: precision, recall and F1 over whole spans, as CoNLL-2003 counts them.

The format of an answer is one line of JSON, either an object from type to texts or a list of spans; an empty
object or list says that there is nothing:

    {"person": ["Ada Lovelace"], "place": ["London", "London"]}
    [{"type": "person", "text": "Ada Lovelace", "start": 0, "end": 12}]

A span counts if type and text are right, as often as it is in the text (a multiset). Where every span of the
right answer of a row has `start` and `end` (characters, the end exclusive), type and place must be right
instead. (Tjong Kim Sang and De Meulder 2003: a span that is partly right is wrong.)
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Span:
    """One mention."""

    type: str
    text: str
    start: int | None = None
    """First character; None where the answer gives no places."""
    end: int | None = None
    """Behind the last character."""


@dataclass(frozen=True, kw_only=True)
class SpanCounts:
    """Of some rows together."""

    right: int
    given: int
    wanted: int

    @property
    def precision(self) -> float:
        """Part of the given spans that are right; 1 where nothing was given and nothing wanted, else 0."""
        return self.right / self.given if self.given else float(not self.wanted)

    @property
    def recall(self) -> float:
        """Part of the wanted spans that were given; 1 where nothing was wanted and nothing given, else 0."""
        return self.right / self.wanted if self.wanted else float(not self.given)

    @property
    def f1(self) -> float:
        """Harmonic mean of both: 2 right / (given + wanted); 1 where there is neither."""
        return 2 * self.right / (self.given + self.wanted) if self.given + self.wanted else 1.0


def read_spans(answer: str) -> tuple[Span, ...] | None:
    """The spans of an answer; None where it is not one line of JSON in one of the two forms."""
    line = answer.strip()
    if "\n" in line or line[:1] not in ("[", "{"):
        return None
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        return _spans_by_type(value)
    spans = [_span(item) for item in value] if isinstance(value, list) else [None]
    whole = [span for span in spans if span is not None]
    return tuple(whole) if len(whole) == len(spans) else None


def count(given: Sequence[Span], wanted: Sequence[Span]) -> SpanCounts:
    """Compare the spans of one row."""
    by_place = bool(wanted) and all(span.start is not None and span.end is not None for span in wanted)
    one = Counter(_key(span, by_place) for span in given)
    other = Counter(_key(span, by_place) for span in wanted)
    return SpanCounts(right=(one & other).total(), given=one.total(), wanted=other.total())


def total(counts: Sequence[SpanCounts]) -> SpanCounts:
    """Of all rows together: the figures are micro-averages."""
    return SpanCounts(
        right=sum(each.right for each in counts),
        given=sum(each.given for each in counts),
        wanted=sum(each.wanted for each in counts),
    )


def _spans_by_type(value: dict[str, object]) -> tuple[Span, ...] | None:
    spans = []
    for kind, texts in value.items():
        if not isinstance(texts, list):
            return None
        for text in texts:
            if not isinstance(text, str):
                return None
            spans.append(Span(type=kind, text=text))
    return tuple(spans)


def _span(item: object) -> Span | None:
    if not isinstance(item, dict):
        return None
    kind, text = item.get("type"), item.get("text")
    start, end = item.get("start"), item.get("end")
    if not isinstance(kind, str) or not isinstance(text, str):
        return None
    if type(start) is int and type(end) is int:
        return Span(type=kind, text=text, start=start, end=end)
    return Span(type=kind, text=text)


def _key(span: Span, by_place: bool) -> tuple[str, str | int | None, int | None]:
    kind = span.type.strip().casefold()
    return (kind, span.start, span.end) if by_place else (kind, " ".join(span.text.split()), None)
