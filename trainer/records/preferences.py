"""Preferences: a prompt with the answer that is wanted and one that is not, in the ways people write them.

Prompt and answers may each be text or messages. Where the answers are whole conversations, as some published
sets have them, what both begin with is the prompt. Which key of a row holds what is `shapes`.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from trainer.records.conversations import answer_turns, check_alternation, prompt_turns, refuse_tools
from trainer.records.rows import PreferenceRecord, RowError, Turn, listed, quoted

EXAMPLE = '{"prompt": "...", "chosen": "...", "rejected": "..."}'
OPENAI_ANSWERS = ("preferred_output", "non_preferred_output")
_OPENAI_EXAMPLE = (
    '{"input": {"messages": [{"role": "user", "content": "..."}]}, '
    '"preferred_output": [{"role": "assistant", "content": "..."}], "non_preferred_output": [...]}'
)


def preference_of(row: Mapping[str, object], line: int) -> PreferenceRecord:
    """A row with the keys chosen, rejected and, unless both begin with it, prompt. Raises RowError."""
    missing = [key for key in ("chosen", "rejected") if key not in row]
    if missing:
        raise RowError(f"{listed(missing)} is missing", f"Write {EXAMPLE}.")
    prompt = prompt_turns(row["prompt"], "prompt") if "prompt" in row else None
    return _pair(prompt, _Answer("chosen", row["chosen"]), _Answer("rejected", row["rejected"]), line)


def openai_preference_of(row: Mapping[str, object], line: int) -> PreferenceRecord:
    """A row as OpenAI's preference fine-tuning takes it. Raises RowError."""
    for key in ("input", *OPENAI_ANSWERS):
        if key not in row:
            raise RowError(f'"{key}" is missing', f"Write {_OPENAI_EXAMPLE}.")
    for key in row:
        if key not in ("input", *OPENAI_ANSWERS):
            raise RowError(f"unknown key {quoted(key)} in the row", f"Write {_OPENAI_EXAMPLE}.")
    asked = row["input"]
    if not isinstance(asked, dict) or "messages" not in asked:
        raise RowError('"input" is not an object with "messages"', f"Write {_OPENAI_EXAMPLE}.")
    refuse_tools(asked, '"input"')
    prompt = prompt_turns(asked["messages"], "input.messages")
    wanted, other = (_Answer(key, row[key]) for key in OPENAI_ANSWERS)
    return _pair(prompt, wanted, other, line)


class _Answer(NamedTuple):
    key: str
    value: object

    def turns(self) -> tuple[Turn, ...]:
        """The messages, all of the assistant's trained."""
        turns = answer_turns(self.value, self.key)
        return tuple(replace(turn, trained=turn.role == "assistant") for turn in turns)


def _pair(prompt: tuple[Turn, ...] | None, wanted: _Answer, other: _Answer, line: int) -> PreferenceRecord:
    chosen, rejected = wanted.turns(), other.turns()
    prompt = prompt if prompt is not None else _shared(chosen, rejected)
    if not prompt:
        raise RowError('"prompt" is missing', f"Write {EXAMPLE}.")
    chosen, rejected = (_without(prompt, answer) for answer in (chosen, rejected))
    _check_prompt(prompt)
    for key, answer in ((wanted.key, chosen), (other.key, rejected)):
        _check_answer(key, answer)
    if chosen == rejected:
        raise RowError(
            f'"{wanted.key}" and "{other.key}" are the same',
            "Remove the row: nothing can be learned from it.",
        )
    return PreferenceRecord(line=line, prompt=prompt, chosen=chosen, rejected=rejected)


def _shared(chosen: tuple[Turn, ...], rejected: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """What both answers begin with, up to the last turn of the user."""
    shared = [
        left for left, _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    ]
    while shared and shared[-1].role != "user":
        shared.pop()
    return tuple(replace(turn, trained=False) for turn in shared)


def _without(prompt: tuple[Turn, ...], answer: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """An answer without the prompt that it may repeat."""
    begins = tuple(replace(turn, trained=False) for turn in answer[: len(prompt)])
    return answer[len(prompt) :] if begins == prompt else answer


def _check_prompt(prompt: tuple[Turn, ...]) -> None:
    roles = [turn.role for turn in prompt]
    first = 1 if roles[0] == "system" else 0
    check_alternation(roles[first:], "user", "prompt", first)
    if roles[-1] != "user":
        raise RowError("the prompt does not end with the user", "End it with what the answers answer.")


def _check_answer(key: str, answer: tuple[Turn, ...]) -> None:
    if not answer:
        raise RowError(f'"{key}" only repeats the prompt', "Add the assistant's answer to it.")
    check_alternation([turn.role for turn in answer], "assistant", key)
    if answer[-1].role != "assistant":
        raise RowError(f'"{key}" does not end with the assistant', "End it with the assistant's answer.")
