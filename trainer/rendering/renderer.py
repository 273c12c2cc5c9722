"""Conversations to prompts and to training rows.

The rule for training: a row is the prompt of its last trained answer, to the token as the engine will see
it, followed by that answer. Loss falls on the assistant's words and on the token that ends its turn.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from trainer.records import Turn
from trainer.rendering.files import TokenizerFiles, read_directory
from trainer.rendering.template import PLAIN_TEMPLATE, ChatTemplate, RenderingError

RENDERING_FORMAT = 1
"""Raised whenever this package gives other ids for the same files and messages."""

_ANCHORS = ("", "\n", ".", "a")
"""Texts tried in front of an answer that must be tokenized by itself; see `Renderer._continuation`."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A piece of rendered text."""

    text: str
    """Special tokens included."""
    trained: bool
    """Whether its tokens carry loss."""


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """A conversation up to its last trained answer; what follows that could not change the loss."""

    token_ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """For each token whether predicting it carries loss; as long as token_ids."""
    segments: tuple[Segment, ...]
    """The same as text, cut where training begins or ends."""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """Characters of a row's text that are one trained answer."""

    start: int
    end: int
    """After the token that ends the turn."""


class Renderer:
    """Turns messages into token ids with the tokenizer and the template of one base model."""

    def __init__(self, *, files: TokenizerFiles, template: ChatTemplate) -> None:
        self._tokenizer = files.tokenizer
        self._template = template
        self._tokenizer_sha256 = files.tokenizer_sha256
        self._eos_token = files.special_tokens.get("eos_token", "")
        self._special_texts = tuple(
            {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}
        )
        self._eos_token_ids = files.eos_token_ids | self._end_of_turn()

    @classmethod
    def from_directory(cls, path: Path, *, now: Callable[[], datetime] = datetime.now) -> "Renderer":
        """Read tokenizer.json, its configuration and the chat template of a base model.

        `now` answers templates that write today's date. A base without a template gets `PLAIN_TEMPLATE`,
        behind its beginning-of-text token if its tokenizer uses one. Raises RenderingError.
        """
        files = read_directory(path)
        source = files.template
        if source is None:
            source = ("{{ bos_token }}" if files.adds_bos else "") + PLAIN_TEMPLATE
        return cls(files=files, template=ChatTemplate(source, files.special_tokens, now))

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer: those the base's files name, and the one its template writes."""
        return self._eos_token_ids

    def contract(self) -> dict[str, str | int]:
        """What must be equal for two renderers to give the same ids; goes into an adapter's manifest."""
        return {
            "format": RENDERING_FORMAT,
            "template_sha256": hashlib.sha256(self._template.source.encode()).hexdigest(),
            "tokenizer_sha256": self._tokenizer_sha256,
        }

    def prompt(self, messages: Sequence[Turn]) -> list[int]:
        """Token ids after which the model writes the assistant's next turn. Raises RenderingError."""
        return self._ids(self._template.render(messages, generation_prompt=True))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def training_row(self, messages: Sequence[Turn]) -> TrainingRow:
        """The row that trains the answers marked `trained`.

        Raises RenderingError when no answer is, when the template refuses the conversation, and when it shows
        an answer differently once the conversation goes on, so that training would not be what is served.
        """
        trained = [index for index, turn in enumerate(messages) if turn.trained]
        if not trained:
            raise RenderingError("no assistant message of the conversation is trained on")
        prompt, completion = self._last_answer(messages[: trained[-1] + 1])
        answers = [self._earlier_answer(messages[: index + 1], prompt) for index in trained[:-1]]
        last = _Answer(
            start=len(prompt), end=len(prompt) + self._spoken(completion, messages[trained[-1]].content)
        )
        prompt_ids = self._ids(prompt)
        token_ids, starts = self._row_tokens(prompt, prompt_ids, completion)
        mask = [
            start < last.end
            if position >= len(prompt_ids)
            else any(answer.start <= start < answer.end for answer in answers)
            for position, start in enumerate(starts)
        ]
        return TrainingRow(
            token_ids=tuple(token_ids),
            trained=tuple(mask),
            segments=_segments(prompt + completion, [*answers, last]),
        )

    def _last_answer(self, messages: Sequence[Turn]) -> tuple[str, str]:
        """The texts of the prompt of the last message, and of that message with its end."""
        prompt = self._template.render(messages[:-1], generation_prompt=True)
        whole = self._template.render(messages, generation_prompt=False)
        content = messages[-1].content.strip()
        if whole.startswith(prompt):
            completion = whole[len(prompt) :]
        else:
            # The prompt opens the answer in a way that finished answers do not show, such as "<think>". The
            # model will be asked with that prompt, so it is trained to go on from there with the words given.
            history = self._template.render(messages[:-1], generation_prompt=False).rstrip()
            begin = whole.rfind(content)
            if not (prompt.startswith(history) and whole.startswith(history) and begin >= len(history)):
                raise RenderingError(_unstable(len(messages) - 1))
            completion = whole[begin:]
        if content not in completion:
            raise RenderingError(
                f"the chat template drops a part of message {len(messages) - 1},"
                " so it cannot be trained on as written"
            )
        if not completion.rstrip().endswith(self._special_texts):
            # Without a token at its end the answer would teach the model never to stop.
            completion = completion[: self._spoken(completion, messages[-1].content)] + self._eos_token
        return prompt, completion

    def _earlier_answer(self, messages: Sequence[Turn], row_prompt: str) -> _Answer:
        """Where the last of `messages` stands in the prompt of a later answer."""
        before = self._template.render(messages[:-1], generation_prompt=True)
        after = self._template.render(messages, generation_prompt=False)
        end = len(before) + self._spoken(after[len(before) :], messages[-1].content)
        if not after.startswith(before) or not row_prompt.startswith(after[:end]):
            raise RenderingError(_unstable(len(messages) - 1))
        return _Answer(start=len(before), end=end)

    def _spoken(self, completion: str, content: str) -> int:
        """Characters of a completion up to the end of the turn: white space of the template is not spoken."""
        stripped = completion.rstrip()
        if not stripped.endswith(self._special_texts) and completion.endswith(content):
            return len(completion)
        return len(stripped)

    def _row_tokens(self, prompt: str, prompt_ids: list[int], completion: str) -> tuple[list[int], list[int]]:
        """The ids of a row, which begin with `prompt_ids`, and the character at which each token starts."""
        whole = self._tokenizer.encode(prompt + completion, add_special_tokens=False)
        starts = [start for start, _ in whole.offsets]
        cut = len(prompt_ids)
        if whole.ids[:cut] == prompt_ids and all(end <= len(prompt) for _, end in whole.offsets[:cut]):
            return whole.ids, starts
        # The answer's first letters melt into the prompt's last token, which a model that answers cannot do.
        head = self._tokenizer.encode(prompt, add_special_tokens=False)
        tail_ids, tail_starts = self._continuation(prompt_ids, completion, self.decode(whole.ids))
        return (
            prompt_ids + tail_ids,
            [start for start, _ in head.offsets] + [len(prompt) + start for start in tail_starts],
        )

    def _continuation(
        self, prompt_ids: list[int], completion: str, row_text: str
    ) -> tuple[list[int], list[int]]:
        """Tokens of an answer by itself.

        Some tokenizers put a space in front of any text they are given. Behind an anchor they do not, so the
        first anchor is taken with which the row reads as it should.
        """
        readings = (row_text, self.decode(prompt_ids) + completion)
        for anchor in _ANCHORS:
            anchor_ids = self._ids(anchor)
            anchored = self._tokenizer.encode(anchor + completion, add_special_tokens=False)
            tail = anchored.ids[len(anchor_ids) :]
            if anchored.ids[: len(anchor_ids)] == anchor_ids and self.decode(prompt_ids + tail) in readings:
                starts = [start - len(anchor) for start, _ in anchored.offsets[len(anchor_ids) :]]
                return tail, starts
        raise RenderingError("the tokenizer does not keep the prompt and the answer apart")

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _end_of_turn(self) -> frozenset[int]:
        """The special token that the template writes behind an answer, if it writes one."""
        try:
            _, completion = self._last_answer(
                (Turn(role="user", content="a"), Turn(role="assistant", content="b"))
            )
        except RenderingError:
            return frozenset()  # the template wants something else of a conversation; rows will tell
        found = [text for text in self._special_texts if completion.rstrip().endswith(text)]
        token_id = self._tokenizer.token_to_id(max(found, key=len)) if found else None
        return frozenset() if token_id is None else frozenset({token_id})


def _segments(text: str, answers: Sequence[_Answer]) -> tuple[Segment, ...]:
    segments = []
    position = 0
    for answer in answers:
        segments.append(Segment(text=text[position : answer.start], trained=False))
        segments.append(Segment(text=text[answer.start : answer.end], trained=True))
        position = answer.end
    segments.append(Segment(text=text[position:], trained=False))
    return tuple(segment for segment in segments if segment.text)


def _unstable(index: int) -> str:
    return (
        f"the chat template shows message {index} differently once the conversation goes on: training on it"
        " would not be what is served; give all but the last answer weight 0, or make a row of each answer"
    )
