"""Alpaca and ShareGPT rows, as published instruction sets have them, as conversations."""

from collections.abc import Mapping

from trainer.records.conversations import TOOL_ADVICE, check_order
from trainer.records.rows import RowError, Turn, checked_text, kind_name, quoted

_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "system": "system",
}
_TOOL_ROLES = {"function_call", "observation", "tool", "function"}


def turns_of_alpaca(row: Mapping[str, object]) -> tuple[Turn, ...]:
    """instruction, below it input, and output; system and history (pairs) before. Raises RowError."""
    missing = [key for key in ("instruction", "output") if key not in row]
    if missing:
        raise RowError(
            f'"{missing[0]}" is missing',
            'An Alpaca row needs "instruction" and "output"; "input" may be empty.',
        )
    question = checked_text(row["instruction"], '"instruction"')
    if _says_something(row.get("input")):
        question += "\n\n" + checked_text(row["input"], '"input"')
    turns = _system(row)
    for index, pair in enumerate(_history(row.get("history"))):
        turns += _exchange(pair[0], pair[1], f"history[{index}][0]", f"history[{index}][1]")
    return (*turns, *_exchange(question, row["output"], '"instruction"', '"output"'))


def turns_of_sharegpt(row: Mapping[str, object]) -> tuple[Turn, ...]:
    """conversations of from and value, and system before them. Raises RowError."""
    listed = row["conversations"]
    if not isinstance(listed, list):
        raise RowError(
            f'"conversations" is {kind_name(listed)}, not a list',
            'Write {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}.',
        )
    if not listed:
        raise RowError('"conversations" is empty', "A row needs at least one question and its answer.")
    turns = _system(row) + [_turn(each, f"conversations[{index}]") for index, each in enumerate(listed)]
    check_order(turns, "conversations")
    return tuple(turns)


def _turn(value: object, where: str) -> Turn:
    if not isinstance(value, dict):
        raise RowError(
            f"{where} is {kind_name(value)}, not an object", 'Write {"from": "...", "value": "..."}.'
        )
    for key in ("from", "value"):
        if key not in value:
            raise RowError(f'{where} has no "{key}"', 'Each turn needs "from" and "value".')
    for key in value:
        if key not in ("from", "value"):
            raise RowError(
                f"unknown key {quoted(key)} in {where}", 'Remove it: a turn has "from" and "value".'
            )
    speaker = value["from"]
    if isinstance(speaker, str) and speaker in _TOOL_ROLES:
        raise RowError(
            f"{where} is a turn of a tool: it is from {quoted(speaker)}",
            TOOL_ADVICE,
        )
    role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        found = quoted(speaker) if isinstance(speaker, str) else kind_name(speaker)
        raise RowError(f"{where}.from is {found}", "Use system, human or gpt.")
    content = checked_text(value["value"], f"{where}.value")
    return Turn(role=role, content=content, trained=role == "assistant")


def _system(row: Mapping[str, object]) -> list[Turn]:
    if not _says_something(row.get("system")):
        return []
    return [Turn(role="system", content=checked_text(row["system"], '"system"'))]


def _exchange(question: object, answer: object, asked: str, answered: str) -> tuple[Turn, Turn]:
    return (
        Turn(role="user", content=checked_text(question, asked)),
        Turn(role="assistant", content=checked_text(answer, answered), trained=True),
    )


def _history(value: object) -> list[list[object]]:
    if value is None or value == "":
        return []
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise RowError('"history" is not a list of pairs', 'Write [["question", "answer"], ...].')
    return value


def _says_something(value: object) -> bool:
    """Whether an optional text is there: published sets leave it out, empty, or null."""
    return value is not None and not (isinstance(value, str) and not value.strip())
