"""Conversations: lists of messages, and questions with their answers, as turns in an order that trains.

Checks on already bounded JSON values; which key of a row holds them is `shapes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainer.records.rows import EXAMPLE_ROW, RowError, Turn, checked_text, kind_name, quoted

_MESSAGE_KEYS = {"role", "content", "weight"}
_TOOL_KEYS = {"tool_calls", "tool_call_id", "function_call"}
ROW_TOOL_KEYS = ("tools", "functions")
"""Where a row says which tools there are."""
TOOL_ADVICE = "Turns of tools are not trained on: leave them out, or write what they say as the user's words."


def turns_of_prompt(row: Mapping[str, object]) -> tuple[Turn, ...]:
    """A question, which is never trained, and its answer, each of them text or messages. Raises RowError."""
    for key in ("prompt", "completion"):
        if key not in row:
            raise RowError(f'"{key}" is missing', 'A row needs both "prompt" and "completion".')
    turns = (*prompt_turns(row["prompt"], "prompt"), *answer_turns(row["completion"], "completion"))
    check_order(turns, "prompt + completion")
    _check_trained(turns)
    return turns


def prompt_turns(value: object, name: str) -> tuple[Turn, ...]:
    """What is asked, as text or messages in any order, nothing of it trained. Raises RowError."""
    if isinstance(value, list):
        return tuple(replace(turn, trained=False) for turn in listed_turns(value, name))
    return (Turn(role="user", content=checked_text(value, f'"{name}"')),)


def answer_turns(value: object, name: str) -> tuple[Turn, ...]:
    """What is answered, as text or messages in any order. Raises RowError."""
    if isinstance(value, list):
        return listed_turns(value, name)
    return (Turn(role="assistant", content=checked_text(value, f'"{name}"'), trained=True),)


def turns_of_messages(messages: object) -> tuple[Turn, ...]:
    """A whole conversation, some of it trained. Raises RowError."""
    turns = listed_turns(messages, "messages")
    check_order(turns)
    _check_trained(turns)
    return turns


def _check_trained(turns: Sequence[Turn]) -> None:
    if not any(turn.trained for turn in turns):
        raise RowError(
            "no assistant message is trained on: each has weight 0",
            "Give at least one assistant message weight 1, or leave its weight out.",
        )


def refuse_tools(row: Mapping[str, object], where: str) -> None:
    """Raise RowError where a row offers tools; an empty list of them is harmless."""
    for key in ROW_TOOL_KEYS:
        if row.get(key):
            raise RowError(f"{where} offers tools: it has {quoted(key)}", TOOL_ADVICE)


def listed_turns(messages: object, name: str) -> tuple[Turn, ...]:
    """The messages of a list, in any order. Raises RowError naming the row's key `name`."""
    if not isinstance(messages, list):
        raise RowError(f'"{name}" is {kind_name(messages)}, not a list', f"Write {EXAMPLE_ROW}.")
    if not messages:
        raise RowError(f'"{name}" is empty', "A row needs at least one user and one assistant message.")
    return tuple(_turn(message, f"{name}[{index}]") for index, message in enumerate(messages))


def _turn(message: object, where: str) -> Turn:
    if not isinstance(message, dict):
        raise RowError(f"{where} is {kind_name(message)}, not an object", f"Write {EXAMPLE_ROW}.")
    for key in message:
        if key in _TOOL_KEYS:
            raise RowError(f"{where} is a turn of a tool: it has {quoted(key)}", TOOL_ADVICE)
        if key not in _MESSAGE_KEYS:
            raise RowError(
                f"unknown key {quoted(key)} in {where}",
                'Remove it: a message has "role", "content" and, for the assistant, "weight".',
            )
    for key in ("role", "content"):
        if key not in message:
            raise RowError(f'{where} has no "{key}"', 'Each message needs "role" and "content".')
    role = message["role"]
    if not isinstance(role, str):
        raise RowError(f"{where}.role is {kind_name(role)}, not a string", "Use system, user or assistant.")
    if role == "developer":  # what OpenAI calls a system message of its later models
        role = "system"
    if role not in ("system", "user", "assistant"):
        advice = TOOL_ADVICE if role in ("tool", "function") else "Use system, user or assistant."
        raise RowError(f"{where}.role is {quoted(role)}", advice)
    content = checked_text(message["content"], f"{where}.content")
    return Turn(role=role, content=content, trained=_trained(message, role, where))


def _trained(message: dict[str, object], role: str, where: str) -> bool:
    if "weight" not in message:
        return role == "assistant"
    weight = message["weight"]
    if role != "assistant":
        raise RowError(
            f"{where} has a weight, but its role is {role}",
            "Remove it: only the assistant's messages are trained on.",
        )
    if isinstance(weight, bool) or not isinstance(weight, int | float) or weight not in (0, 1):
        shown = (
            weight if isinstance(weight, int | float) and not isinstance(weight, bool) else kind_name(weight)
        )
        raise RowError(f"{where}.weight is {shown}", "Use 1 to train on the message, or 0 not to.")
    return weight == 1


def check_order(turns: Sequence[Turn], name: str = "messages") -> None:
    """Raise RowError unless an optional system message is followed by user and assistant in turn."""
    roles = [turn.role for turn in turns]
    first = 1 if roles[0] == "system" else 0
    if len(roles) == first:
        raise RowError(
            "the row has only a system message", "Add a user message and the assistant's answer to it."
        )
    check_alternation(roles[first:], "user", name, first)
    if roles[-1] != "assistant":
        raise RowError("the last message is the user's", "End each row with the assistant's answer.")


def check_alternation(roles: Sequence[str], begins: str, name: str, offset: int = 0) -> None:
    """Raise RowError unless user and assistant take turns. `offset` is how many messages stand before."""
    for index, role in enumerate(roles):
        expected = begins if index % 2 == 0 else ("assistant" if begins == "user" else "user")
        if role == "system":
            raise RowError(
                f"{name}[{offset + index}] is a system message, but not the first",
                "Keep at most one system message, as the first.",
            )
        if role != expected:
            raise RowError(
                f"{name}[{offset + index}].role is {role} where {expected} must stand",
                f"After an optional system message, user and assistant take turns, the {begins} first.",
            )
