"""What a model is asked about rows held out: to answer, and how probable it finds the right answers.

Pure but for tokenizing, which takes a while: meant for a thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.evaluation import general_skill
from service.evaluation.asking import Ask
from service.evaluation.held_out import HeldOut, Question
from trainer.records import Turn
from trainer.rendering import Renderer, RenderingError
from trainer.scoring import Task

_MAX_ANSWER_TOKENS = 512
"""Of an answer; a longer one says nothing new about a model and holds others up."""
_ANSWER_ROOM = 32
"""Answers may be this much longer than the longest expected one, and lengths are rounded up to a multiple of
it: a base's answers are then good for many selections of rows."""
_FEW_PLACES = 8
"""Of a row, where each place costs a request. Of 200 rows that is a figure of 1,600 tokens."""


@dataclass(frozen=True, kw_only=True)
class Questionnaire:
    """The first lists are empty, or have one entry for each row in order."""

    free: tuple[Ask, ...]
    constrained: tuple[Ask, ...]
    """With the labels as the only choices."""
    measured: tuple[Ask, ...]
    """How probable the expected answer or the text is."""
    general: tuple[Ask, ...]

    @property
    def size(self) -> int:
        """Answers that one model is to give."""
        return len(self.free) + len(self.constrained) + len(self.measured) + len(self.general)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one model answered to a questionnaire; None for what it could not."""

    free: tuple[str | None, ...]
    constrained: tuple[str | None, ...]
    measured: tuple[str | None, ...]
    """Each a sum of log-probabilities (nats) and the number of tokens, as JSON."""
    general: tuple[str | None, ...]


def questionnaire(
    held: HeldOut, renderer: Renderer, *, context_length: int, costly_places: bool
) -> Questionnaire:
    """`context_length` is the engine's, in tokens. `costly_places`: of one of the models each token's
    probability costs a request, so that both are measured at a few places of each row."""
    rows = [_rendered(question, renderer) for question in held.questions]
    longest = max((sum(trained) for _, trained in rows), default=0)
    room = -(-longest // _ANSWER_ROOM) * _ANSWER_ROOM + _ANSWER_ROOM
    limit = min(room, _MAX_ANSWER_TOKENS)
    measured = rows if held.task is Task.GENERATION else []
    texts = [(piece.token_ids, (False, *[True] * (len(piece.token_ids) - 1))) for piece in held.pieces]
    return Questionnaire(
        free=tuple(Ask(messages=question.prompt, max_tokens=limit) for question in held.questions),
        constrained=tuple(
            Ask(messages=question.prompt, max_tokens=limit, choices=held.labels)
            for question in held.questions
            if held.labels
        ),
        measured=tuple(
            _measure(*row, longest=context_length - 1, few=costly_places) for row in (*measured, *texts)
        ),
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


def _rendered(question: Question, renderer: Renderer) -> tuple[Sequence[int], Sequence[bool]]:
    turns = [*question.prompt, Turn(role="assistant", content=question.expected, trained=True)]
    try:
        row = renderer.training_row(turns)
    except RenderingError:
        return (), ()  # nor will the engine be asked: the chat renders alike
    return row.token_ids, row.trained
