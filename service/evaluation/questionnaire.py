"""What a model is asked about rows held out: to answer, and how probable it finds the right answers.

Pure but for tokenizing, which takes a while: meant for a thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.evaluation import general_skill
from service.evaluation.asking import Ask
from service.evaluation.held_out import HeldOut, Question
from trainer.records import PreferenceRecord, Turn
from trainer.rendering import Renderer, RenderingError
from trainer.scoring import Task

_MAX_ANSWER_TOKENS = 512
"""Of an answer; a longer one says nothing new about a model and holds others up."""
_ANSWER_ROOM = 32
"""Answers may be this much longer than the longest expected one, and lengths are rounded up to a multiple of
it: a base's answers are then good for many selections of rows."""
_FEW_PLACES = 8
"""Of a row, where each place costs a request. Of 200 rows that is a figure of 1,600 tokens."""

_Row = tuple[Sequence[int], Sequence[bool]]
"""Tokens, and which of them count."""
_NO_ROW: _Row = ((), ())
"""What the template cannot show. Nor will the engine be asked it: the chat renders alike."""


@dataclass(frozen=True, kw_only=True)
class Questionnaire:
    """The first lists are empty, or have one entry for each row in order."""

    free: tuple[Ask, ...]
    constrained: tuple[Ask, ...]
    """With the labels as the only choices."""
    measured: tuple[Ask, ...]
    """How probable the expected answer or the text is."""
    rejected: tuple[Ask, ...]
    """Of preferences: how probable the answer is that is not wanted; `measured` tells it of the other."""
    general: tuple[Ask, ...]

    @property
    def size(self) -> int:
        """Answers that one model is to give."""
        return sum(map(len, (self.free, self.constrained, self.measured, self.rejected, self.general)))


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one model answered to a questionnaire; None for what it could not."""

    free: tuple[str | None, ...]
    constrained: tuple[str | None, ...]
    measured: tuple[str | None, ...]
    """Each a sum of log-probabilities (nats) and the number of tokens, as JSON."""
    rejected: tuple[str | None, ...]
    general: tuple[str | None, ...]


def questionnaire(
    held: HeldOut, renderer: Renderer, *, context_length: int, costly_places: bool
) -> Questionnaire:
    """`context_length` is the engine's, in tokens. `costly_places`: of one of the models each token's
    probability costs a request, so that both are measured at a few places of each row."""
    rows = [_answer_row(question, renderer) for question in held.questions]
    longest = max((sum(trained) for _, trained in rows), default=0)
    room = -(-longest // _ANSWER_ROOM) * _ANSWER_ROOM + _ANSWER_ROOM
    limit = min(room, _MAX_ANSWER_TOKENS)
    pairs = [_pair_rows(question.pair, renderer) for question in held.questions if question.pair is not None]
    rejected: list[_Row] = []
    if pairs and not costly_places:  # few places do not add up to a whole answer
        rows, rejected = [chosen for chosen, _ in pairs], [other for _, other in pairs]
    measured = rows if held.task is Task.GENERATION or rejected else []
    texts = [(piece.token_ids, (False, *[True] * (len(piece.token_ids) - 1))) for piece in held.pieces]

    def measures(rows: Sequence[_Row]) -> tuple[Ask, ...]:
        return tuple(_measure(*row, longest=context_length - 1, few=costly_places) for row in rows)

    return Questionnaire(
        free=tuple(Ask(messages=question.prompt, max_tokens=limit) for question in held.questions),
        constrained=tuple(
            Ask(messages=question.prompt, max_tokens=limit, choices=held.labels)
            for question in held.questions
            if held.labels
        ),
        measured=measures([*measured, *texts]),
        rejected=measures(rejected),
        general=tuple(
            Ask(messages=(Turn(role="user", content=item.question),), max_tokens=general_skill.MAX_TOKENS)
            for item in general_skill.ITEMS
        ),
    )


def _measure(token_ids: Sequence[int], trained: Sequence[bool], *, longest: int, few: bool) -> Ask:
    """What fits into `longest` tokens, one less than the context: the engine answers with a token."""
    places = [place for place, counts in enumerate(trained[1:longest]) if counts]
    if few and len(places) > _FEW_PLACES:
        places = [places[(index + 1) * len(places) // _FEW_PLACES - 1] for index in range(_FEW_PLACES)]
    return Ask(text=tuple(token_ids[:longest]), places=tuple(places))


def _answer_row(question: Question, renderer: Renderer) -> _Row:
    turns = [*question.prompt, Turn(role="assistant", content=question.expected, trained=True)]
    try:
        row = renderer.training_row(turns)
    except RenderingError:
        return _NO_ROW
    return row.token_ids, row.trained


def _pair_rows(pair: PreferenceRecord, renderer: Renderer) -> tuple[_Row, _Row]:
    try:
        rows = renderer.preference_pair(pair.prompt, pair.chosen, pair.rejected)
    except RenderingError:
        return _NO_ROW, _NO_ROW
    return (rows.chosen.token_ids, rows.chosen.trained), (rows.rejected.token_ids, rows.rejected.trained)
