"""Preferences: a prompt with the answer that is wanted and one that is not, in the ways people write them.

Prompt and answers may each be text or messages. Where the answers are whole conversations, as some published
sets have them, what both begin with is the prompt. Which key of a row holds what is `shapes`.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile

from trainer.records.conversations import check_alternation, listed_turns
from trainer.records.rows import PreferenceRecord, RowError, Turn, checked_text, listed

EXAMPLE = '{"prompt": "...", "chosen": "...", "rejected": "..."}'


def preference_of(row: Mapping[str, object], line: int) -> PreferenceRecord:
    """A row with the keys chosen, rejected and, unless both begin with it, prompt. Raises RowError."""
    missing = [key for key in ("chosen", "rejected") if key not in row]
    if missing:
        raise RowError(f"{listed(missing)} is missing", f"Write {EXAMPLE}.")
    chosen, rejected = (_answer(row[key], key) for key in ("chosen", "rejected"))
    prompt = _prompt(row["prompt"]) if "prompt" in row else _shared(chosen, rejected)
    if not prompt:
        raise RowError('"prompt" is missing', f"Write {EXAMPLE}.")
    chosen, rejected = (_without(prompt, answer) for answer in (chosen, rejected))
    _check_prompt(prompt)
    for key, answer in (("chosen", chosen), ("rejected", rejected)):
        _check_answer(key, answer)
    if chosen == rejected:
        raise RowError(
            '"chosen" and "rejected" are the same', "Remove the row: nothing can be learned from it."
        )
    return PreferenceRecord(line=line, prompt=prompt, chosen=chosen, rejected=rejected)


def _prompt(value: object) -> tuple[Turn, ...]:
    if isinstance(value, list):
        return tuple(replace(turn, trained=False) for turn in listed_turns(value, "prompt"))
    return (Turn(role="user", content=checked_text(value, '"prompt"')),)


def _answer(value: object, key: str) -> tuple[Turn, ...]:
    if isinstance(value, list):
        return tuple(replace(turn, trained=turn.role == "assistant") for turn in listed_turns(value, key))
    return (Turn(role="assistant", content=checked_text(value, f'"{key}"'), trained=True),)


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
