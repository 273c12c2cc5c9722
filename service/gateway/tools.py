"""Tools of a chat request, read by our rules: what may be called, and what was called before.

What is offered becomes a part of the prompt and nothing else; its schemas are bounded like those of
`response_format`. Arguments are not held to their schema, so a caller who wants that is refused.
"""

import json
import re

from service.errors import FieldViolation
from service.gateway.fields import Fields
from service.gateway.formats import MAX_DEPTH, schema_faults
from service.jsonshape import Json, given, is_plain, is_unicode, mapping, text
from trainer.rendering import Tool, WrittenCall

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 65_536
"""All tools of a request; a context of 2,048 tokens is some 10 KB."""
MAX_DESCRIPTION_CHARACTERS = 4_096
MAX_CALLS = 128
"""Of one message."""
MAX_ARGUMENTS_CHARACTERS = 65_536
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""As the OpenAI API documents names; ids of calls are longer."""
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_NO_PARAMETERS: Json = {"type": "object", "properties": {}}
FIELDS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})


def read_tools(fields: Fields) -> tuple[Tool, ...]:
    """What the answer may call; nothing where `tool_choice` is "none". What is wrong is told to `fields`."""
    tools = _tools(fields)
    choice = fields.given.get("tool_choice", "auto" if tools else "none")
    if choice not in ("none", "auto"):
        fields.wrong(
            "tool_choice",
            "must be none or auto: no answer is made to call a tool; to have one called, offer it alone",
        )
    elif choice == "auto" and not fields.given.get("tools"):
        fields.wrong("tool_choice", "needs tools to choose from")
    if fields.given.get("parallel_tool_calls", True) is not True:
        fields.wrong("parallel_tool_calls", "must be true: an answer may call several tools")
    return tools if choice == "auto" else ()


def read_calls(value: object, path: str) -> tuple[tuple[WrittenCall, ...], list[FieldViolation]]:
    """`tool_calls` of an assistant's message, which stands at `path`; and what is wrong with it."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CALLS:
        return (), [_wrong(path, f"must be a list of 1 to {MAX_CALLS} calls")]
    calls: list[WrittenCall] = []
    violations: list[FieldViolation] = []
    for index, each in enumerate(value):
        place = f"{path}[{index}]"
        try:
            call = _call(each)
        except (TypeError, ValueError) as error:
            violations.append(_wrong(place, f"is not a call: {error}"))
            continue
        if call.id in {other.id for other in calls}:
            violations.append(_wrong(f"{place}.id", "is the id of another call"))
        calls.append(call)
    return tuple(calls), violations


def read_id(value: object) -> str:
    """Of a call. Raises TypeError, ValueError."""
    if not _ID.fullmatch(found := text(value)):
        raise ValueError("an id has 1 to 128 characters of printable ASCII")
    return found


def _tools(fields: Fields) -> tuple[Tool, ...]:
    value = fields.given.get("tools", [])
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        fields.wrong("tools", f"must be a list of up to {MAX_TOOLS} tools")
        return ()
    tools: list[Tool] = []
    names: set[str] = set()
    for index, each in enumerate(value):
        tool, violations = _tool(each, f"tools[{index}]")
        fields.violations.extend(violations)
        if tool is None:
            continue
        name = text(mapping(tool["function"])["name"])
        if name in names:
            fields.wrong(f"tools[{index}].function.name", "is the name of another tool")
        names.add(name)
        tools.append(tool)
    if not fields.violations and len(json.dumps(tools)) > MAX_TOOLS_BYTES:
        fields.wrong("tools", f"may have up to {MAX_TOOLS_BYTES} bytes together")
    return tuple(tools)


def _tool(value: object, path: str) -> tuple[Tool | None, list[FieldViolation]]:
    """A tool with nothing but what is known; None where it is none."""
    try:
        fields = given(value)
        function = given(fields.get("function"))
        name, described = text(function.get("name")), text(function.get("description", ""))
        parameters = function.get("parameters", _NO_PARAMETERS)
        mapping(parameters)
    except TypeError as error:
        return None, [_wrong(path, f"is not a function: {error}")]
    inner = f"{path}.function"
    violations = [
        *(_wrong(f"{path}.{key[:64]}", "is not supported") for key in fields.keys() - {"type", "function"}),
        *(
            _wrong(f"{inner}.{key[:64]}", "is not supported")
            for key in function.keys() - {"name", "description", "parameters", "strict"}
        ),
        *schema_faults(parameters, f"{inner}.parameters"),
    ]
    if fields.get("type") != "function":
        violations.append(_wrong(f"{path}.type", "must be function"))
    if not _NAME.fullmatch(name):
        violations.append(_wrong(f"{inner}.name", "must be 1 to 64 of the characters A-Z a-z 0-9 _ -"))
    if len(described) > MAX_DESCRIPTION_CHARACTERS or not is_unicode(described):
        rule = f"must be a text of up to {MAX_DESCRIPTION_CHARACTERS} characters"
        violations.append(_wrong(f"{inner}.description", rule))
    if function.get("strict", False) is not False:
        violations.append(_wrong(f"{inner}.strict", "must be false: arguments are not held to their schema"))
    known = {"name": name, "description": described, "parameters": parameters}
    return {"type": "function", "function": known}, violations


def _call(value: object) -> WrittenCall:
    """Raises TypeError, ValueError. Its `index` is where it stands, and comes from streams."""
    fields = mapping(value)
    function = mapping(fields.get("function"))
    if unknown := [
        *(fields.keys() - {"id", "type", "function", "index"}),
        *(function.keys() - {"name", "arguments"}),
    ]:
        raise ValueError(f"{min(unknown)[:64]} is not supported")
    if fields.get("type", "function") != "function":
        raise ValueError("its type must be function")
    if not _NAME.fullmatch(name := text(function.get("name"))):
        raise ValueError("its function has no name of 1 to 64 characters")
    return WrittenCall(id=read_id(fields.get("id")), name=name, arguments=_arguments(function))


def _arguments(function: Json) -> Json:
    """Raises TypeError, ValueError."""
    written = text(function.get("arguments"))
    if len(written) > MAX_ARGUMENTS_CHARACTERS:
        raise ValueError(f"its arguments have more than {MAX_ARGUMENTS_CHARACTERS} characters")
    try:
        arguments = mapping(json.loads(written or "{}"))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("its arguments are not a JSON object") from error
    if not is_plain(arguments, MAX_DEPTH):
        raise ValueError(f"its arguments are nested more than {MAX_DEPTH} deep, or no JSON")
    return arguments


def _wrong(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)
