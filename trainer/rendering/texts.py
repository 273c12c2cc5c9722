"""A training row as text: what the model is asked, what it should say, and where its answers stand.

It knows a template and the names of special tokens, but not a single token id.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from trainer.records import Turn
from trainer.rendering.template import ChatTemplate, RenderingError

_PROBE = Turn(role="assistant", content="hotlora")
"""An answer that no template alters: around it stands how the template opens and ends a turn."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Characters of a row's text that are one trained answer, up to the token that ends its turn."""

    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class RowText:
    """A conversation up to its last trained answer."""

    prompt: str
    """What the engine is asked before the last trained answer."""
    completion: str
    """That answer, and what the template writes behind it."""
    answers: tuple[Answer, ...]
    """In `prompt + completion`, in order; the last one begins where the prompt ends."""


@dataclass(frozen=True, kw_only=True)
class TurnEnd:
    """What a template writes behind the last answer of a conversation."""

    text: str
    spoken: int
    """Characters of the text that the model has to say itself: up to the end of its first special tokens."""
    token: str
    """The special token that ends the turn; empty when the template writes none."""


def probe_turn_end(template: ChatTemplate, special_tokens: Iterable[str]) -> TurnEnd | None:
    """How a template ends a turn; None when it does not take a plain question and answer."""
    try:
        probed = template.render((Turn(role="user", content="a"), _PROBE), generation_prompt=False)
    except RenderingError:
        return None
    _, found, text = probed.rpartition(_PROBE.content)
    if not found:
        return None
    # At one place the longest name counts: tokenizers read <|end|> as itself, not as a <| that also exists.
    names = "|".join(re.escape(token) for token in sorted(special_tokens, key=len, reverse=True) if token)
    run = re.search(f"(?:({names}))+", text) if names else None
    if run is None:
        return TurnEnd(text=text, spoken=0, token="")
    return TurnEnd(text=text, spoken=run.end(), token=run[1])


def row_text(
    template: ChatTemplate, turn_end: TurnEnd | None, eos_token: str, messages: Sequence[Turn]
) -> RowText:
    """The text that trains the answers marked `trained`. Raises RenderingError as the renderer says."""
    trained = [index for index, turn in enumerate(messages) if turn.trained]
    if not trained:
        raise RenderingError("no assistant message of the conversation is trained on")
    if turn_end is None:
        raise RenderingError("the chat template does not take a plain question and answer")
    prompt, completion = _last_answer(template, messages[: trained[-1] + 1])
    end = _spoken(turn_end, completion, trained[-1])
    if not turn_end.token:
        # Without a token at its end the answer would teach the model never to stop.
        completion = completion[:end] + eos_token
        end = len(completion)
    earlier = [_earlier_answer(template, turn_end, messages[: index + 1], prompt) for index in trained[:-1]]
    last = Answer(start=len(prompt), end=len(prompt) + end)
    return RowText(prompt=prompt, completion=completion, answers=(*earlier, last))


def _last_answer(template: ChatTemplate, messages: Sequence[Turn]) -> tuple[str, str]:
    """The prompt of the last message, and that message with its end."""
    prompt = template.render(messages[:-1], generation_prompt=True)
    whole = template.render(messages, generation_prompt=False)
    if whole.startswith(prompt):
        completion = whole[len(prompt) :]
    else:
        completion = _opened_answer(template, messages, prompt, whole)
    if _squeezed(messages[-1].content) not in _squeezed(completion):
        raise RenderingError(
            f"the chat template drops a part of message {len(messages) - 1}; it cannot be trained on so"
        )
    return prompt, completion


def _opened_answer(template: ChatTemplate, messages: Sequence[Turn], prompt: str, whole: str) -> str:
    """The completion when the prompt opens an answer as finished ones do not show, such as with "<think>".

    The model will be asked with that prompt, so it is trained to go on from there with the words given.
    """
    shared = commonprefix((prompt, whole))  # noqa: RUF071 - texts, not paths
    if not prompt[len(shared) :].strip():
        return whole[len(shared) :]
    probed = template.render([*messages[:-1], _PROBE], generation_prompt=False)
    opening, found, _ = probed.rpartition(_PROBE.content)
    if not found or not prompt.startswith(opening) or not whole.startswith(opening):
        raise RenderingError(
            f"the chat template asks for message {len(messages) - 1} in another way than it shows it,"
            " so there is no telling what the model should say"
        )
    return whole[len(opening) :]


def _earlier_answer(
    template: ChatTemplate, turn_end: TurnEnd, messages: Sequence[Turn], row_prompt: str
) -> Answer:
    """Where the last of `messages` stands in the prompt of a later answer."""
    before = template.render(messages[:-1], generation_prompt=True)
    after = template.render(messages, generation_prompt=False)
    if not after.startswith(before):
        raise RenderingError(_unstable(len(messages) - 1))
    end = len(before) + _spoken(turn_end, after[len(before) :], len(messages) - 1)
    if not row_prompt.startswith(after[:end]):
        raise RenderingError(_unstable(len(messages) - 1))
    return Answer(start=len(before), end=end)


def _spoken(turn_end: TurnEnd, completion: str, index: int) -> int:
    """Characters of a completion that the model has to say: not what stands behind the end of the turn."""
    if not completion.endswith(turn_end.text):
        raise RenderingError(f"the chat template does not end message {index} as it ends other answers")
    return len(completion) - len(turn_end.text) + turn_end.spoken


def _squeezed(text: str) -> str:
    """A text without white space, which templates move around."""
    return "".join(text.split())


def _unstable(index: int) -> str:
    return (
        f"the chat template shows message {index} differently once the conversation goes on: training on it"
        " would not be what is served; give all but the last answer weight 0, or make a row of each answer"
    )
