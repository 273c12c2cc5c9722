"""Conversations to the token ids of prompts and of training rows.

The rule for training: a row is the prompt of its last trained answer, to the token as the engine will see
it, followed by that answer. Loss falls on the assistant's words and on the token that ends its turn.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tokenizers import Encoding

from trainer.records import Turn
from trainer.rendering.files import TokenizerFiles, read_directory
from trainer.rendering.template import PLAIN_TEMPLATE, ChatTemplate, RenderingError, Spoken, Tool
from trainer.rendering.texts import RowText, probe_turn_end, row_text
from trainer.rendering.tools import AnyReader, CallReader, reader_for

RENDERING_FORMAT = 1
"""Raised whenever this package gives other ids for the same files and messages."""

_ANCHORS = ("\n", ".", "a")
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
    """A conversation up to its last trained answer, as what follows could not change the loss; or a text."""

    token_ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """For each token whether predicting it carries loss; as long as token_ids."""
    segments: tuple[Segment, ...]
    """The same as text, cut where training begins or ends."""


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """One prompt with two answers, each a row of its own."""

    chosen: TrainingRow
    rejected: TrainingRow
    prompt_tokens: int
    """How many tokens both rows begin with; none of them is trained."""


class Renderer:
    """Turns messages into token ids with the tokenizer and the template of one base model."""

    def __init__(self, *, files: TokenizerFiles, template: ChatTemplate) -> None:
        self._files = files
        self._tokenizer = files.tokenizer
        self._template = template
        self._eos_token = files.special_tokens.get("eos_token", "")
        added = self._tokenizer.get_added_tokens_decoder()
        self._turn_end = probe_turn_end(
            template, [token.content for token in added.values() if token.special]
        )
        # Those that are found in the text as it stands, before anything is normalized.
        self._boundaries = frozenset(
            index for index, token in added.items() if token.special and not token.normalized
        )
        self._call_reader: AnyReader | None = None
        self._tools_refused: str | None = None
        try:
            self._call_reader = reader_for(template, self._turn_end.text if self._turn_end else "")
        except RenderingError as error:
            self._tools_refused = str(error)
        end_id = self._tokenizer.token_to_id(self._turn_end.token) if self._turn_end else None
        self._eos_token_ids = files.eos_token_ids | ({end_id} if end_id is not None else set())

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

    @property
    def tools_refused(self) -> str | None:
        """Why no tools can be offered; None where they can."""
        return self._tools_refused

    def call_reader(self, tools: Sequence[Tool]) -> CallReader:
        """Reads the calls of `tools` out of one answer. Raises RenderingError where none can be offered."""
        if self._call_reader is None:
            raise RenderingError(str(self._tools_refused))
        return self._call_reader({_tool_name(tool) for tool in tools})

    def contract(self) -> dict[str, str | int]:
        """What must be equal for two renderers to give the same ids; goes into an adapter's manifest."""
        return {
            "format": RENDERING_FORMAT,
            "template_sha256": _sha256(self._template.source),
            "tokenizer_sha256": self._files.tokenizer_sha256,
            "special_tokens_sha256": _sha256(json.dumps(self._files.special_tokens, sort_keys=True)),
        }

    def prompt(self, messages: Sequence[Spoken], tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids after which the model writes the assistant's next turn, in which it may call `tools`.
        Raises RenderingError."""
        return self._encode(self._template.render(messages, tools=tools, generation_prompt=True)).ids

    def text_prompt(self, text: str) -> list[int]:
        """Token ids after which the model goes on with `text`: begun as the tokenizer begins texts."""
        return self._encode(self._begin + text).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def token_count(self, text: str) -> int:
        """How many tokens a text has by itself."""
        return len(self._encode(text).ids)

    def training_row(self, messages: Sequence[Turn]) -> TrainingRow:
        """The row that trains the answers marked `trained`.

        Raises RenderingError when no answer is, when the template refuses the conversation, and when it shows
        an answer differently once the conversation goes on, so that training would not be what is served.
        """
        row = row_text(self._template, self._turn_end, self._eos_token, messages)
        token_ids, starts, prompt_tokens = self._row_tokens(row)
        *earlier, last = row.answers
        trained = [False] * prompt_tokens
        for answer in earlier:
            for position, start in enumerate(starts[:prompt_tokens]):
                trained[position] |= answer.start <= start < answer.end
        trained += [start < last.end for start in starts[prompt_tokens:]]
        return TrainingRow(token_ids=tuple(token_ids), trained=tuple(trained), segments=_segments(row))

    def text_row(self, text: str) -> TrainingRow:
        """The row of a document: begun as the tokenizer begins texts, ended by the base's end-of-text token.

        Every token is trained but the first, which nothing predicts. Raises RenderingError when no token
        is left to train.
        """
        whole = self._begin + text + self._eos_token
        encoded = self._encode(whole)
        if len(encoded.ids) < 2:
            raise RenderingError("the text is a single token, which leaves nothing to predict")
        first_end = encoded.offsets[1][0]
        segments = (
            Segment(text=whole[:first_end], trained=False),
            Segment(text=whole[first_end:], trained=True),
        )
        return TrainingRow(
            token_ids=tuple(encoded.ids),
            trained=(False, *[True] * (len(encoded.ids) - 1)),
            segments=tuple(segment for segment in segments if segment.text),
        )

    def preference_pair(
        self, prompt: Sequence[Turn], chosen: Sequence[Turn], rejected: Sequence[Turn]
    ) -> PreferencePair:
        """The rows of both answers to a prompt; loss falls on the answers alone.

        Raises RenderingError as `training_row` does, and when the template shows the prompt differently
        before one of the answers.
        """
        shared = tuple(self.prompt(prompt))
        rows = [self.training_row([*prompt, *answer]) for answer in (chosen, rejected)]
        for name, row in zip(("chosen", "rejected"), rows, strict=True):
            if row.token_ids[: len(shared)] != shared:
                raise RenderingError(f"the chat template shows the prompt differently before {name!r}")
        return PreferencePair(chosen=rows[0], rejected=rows[1], prompt_tokens=len(shared))

    def _row_tokens(self, row: RowText) -> tuple[list[int], list[int], int]:
        """The ids of a row, the character at which each token starts, and how many tokens are the prompt."""
        whole = self._encode(row.prompt + row.completion)
        ids, offsets = whole.ids, whole.offsets
        kept, begin = self._last_boundary(ids, offsets, len(row.prompt))
        end_of_prompt = self._encode(row.prompt[begin:])
        cut = kept + len(end_of_prompt.ids)
        if ids[kept:cut] == end_of_prompt.ids and all(end <= len(row.prompt) for _, end in offsets[kept:cut]):
            return ids, [start for start, _ in offsets], cut
        # The answer's first letters melt into the prompt's last token, which a model that answers cannot do.
        prompt_ids = ids[:kept] + end_of_prompt.ids
        tail_ids, tail_starts = self._continuation(prompt_ids, row.completion, self.decode(ids))
        starts = [start for start, _ in offsets[:kept]]
        starts += [begin + start for start, _ in end_of_prompt.offsets]
        return prompt_ids + tail_ids, starts + [len(row.prompt) + start for start in tail_starts], cut

    def _last_boundary(
        self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], prompt_characters: int
    ) -> tuple[int, int]:
        """Where the prompt's last special token stands, as token and as character; (0, 0) without one.

        Tokenizers cut a text at special tokens before they do anything else, and what stands before one is
        the same whatever follows. So only what begins with it has to be looked at again for the prompt alone,
        which a row would else be tokenized twice for.
        """
        for position in range(len(ids) - 1, 0, -1):
            if ids[position] in self._boundaries:
                begin, end = offsets[position]
                if end <= prompt_characters:
                    return position, begin
        return 0, 0

    def _continuation(
        self, prompt_ids: list[int], completion: str, row_text: str
    ) -> tuple[list[int], list[int]]:
        """Tokens of an answer by itself.

        Some tokenizers put a space in front of any text they are given. Behind an anchor they do not, so the
        first anchor is taken with which the row reads as it should.
        """
        readings = (row_text, self.decode(prompt_ids) + completion)
        for anchor in _ANCHORS:
            anchor_ids = self._encode(anchor).ids
            anchored = self._encode(anchor + completion)
            cut = len(anchor_ids)
            tail = anchored.ids[cut:]
            if anchored.ids[:cut] == anchor_ids and self.decode(prompt_ids + tail) in readings:
                return tail, [start - len(anchor) for start, _ in anchored.offsets[cut:]]
        raise RenderingError("the tokenizer does not keep the prompt and the answer apart")

    @property
    def _begin(self) -> str:
        return self._files.special_tokens.get("bos_token", "") if self._files.adds_bos else ""

    def _encode(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)


def _segments(row: RowText) -> tuple[Segment, ...]:
    text = row.prompt + row.completion
    segments = []
    position = 0
    for answer in row.answers:
        segments.append(Segment(text=text[position : answer.start], trained=False))
        segments.append(Segment(text=text[answer.start : answer.end], trained=True))
        position = answer.end
    segments.append(Segment(text=text[position:], trained=False))
    return tuple(segment for segment in segments if segment.text)


def _tool_name(tool: Tool) -> str:
    function = tool["function"]
    assert isinstance(function, Mapping)
    return str(function["name"])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
