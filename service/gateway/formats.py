"""What an answer has to look like: `response_format`, read by our rules.

Engines compile a schema into a grammar, so a caller's schema is bounded before one sees it: known keywords
only, none that takes regular expressions or looks elsewhere, with limits on size, depth and repetition.
"""

import json
from collections.abc import Iterator

from service.errors import FieldViolation
from service.jsonshape import Json, is_plain, mapping

MAX_SCHEMA_BYTES = 16_384
MAX_DEPTH = 16
MAX_COUNT = 1_000
"""Of minLength, maxItems and their kin: grammars spell repetition out."""

_NAMES = frozenset({"title", "description", "default", "examples", "$schema"})
"""Say something to people."""
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_SCHEMAS = frozenset({"items", "additionalProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_MAPS = frozenset({"properties", "$defs", "definitions"})
_VALUES = frozenset({"type", "enum", "const", "required", "format"})
_PLAIN = _NAMES | _NUMBERS | _VALUES
"""Their values may be any JSON."""
ANY_JSON: Json = {"type": ["object", "array", "string", "number", "boolean", "null"]}
_LOCAL = ("#/$defs/", "#/definitions/")


def read_format(value: object) -> tuple[Json | None, list[FieldViolation]]:
    """What an answer has to fit, as `ChatTurn.json_schema` has it; and what is wrong with `value`."""
    try:
        fields = mapping(value)
        match fields.get("type"):
            case "text":
                return None, _unknown(fields, {"type"}, "response_format")
            case "json_object":
                return {}, _unknown(fields, {"type"}, "response_format")
            case "json_schema":
                wrapped = mapping(fields.get("json_schema"))
                schema = mapping(wrapped.get("schema"))
            case _:
                return None, [_wrong("response_format.type", "must be text, json_object or json_schema")]
    except TypeError as error:
        return None, [_wrong("response_format", str(error))]
    path = "response_format.json_schema"
    violations = [
        *_unknown(fields, {"type", "json_schema"}, "response_format"),
        *_unknown(wrapped, {"name", "description", "schema", "strict"}, path),
    ]
    # An empty schema admits any JSON, where {} of ours stands for objects alone.
    return schema or ANY_JSON, [*violations, *schema_faults(schema, f"{path}.schema")]


def schema_faults(schema: object, path: str) -> list[FieldViolation]:
    """What is wrong with a JSON schema that stands at `path`."""
    faults = list(_faults(schema, path, MAX_DEPTH)) or list(_loops(mapping(schema), path))
    if not faults and len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
        faults.append(_wrong(path, f"may have up to {MAX_SCHEMA_BYTES} bytes"))
    return faults


def _faults(schema: object, path: str, depth: int) -> Iterator[FieldViolation]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield _wrong(path, "must be a JSON schema")
    elif not depth:
        yield _wrong(path, f"is nested more than {MAX_DEPTH} deep")
    else:
        for name, value in schema.items():
            yield from _faults_of_keyword(name, value, f"{path}.{name[:64]}", depth - 1)


def _faults_of_keyword(name: str, value: object, path: str, depth: int) -> Iterator[FieldViolation]:
    if name in _SCHEMAS:
        yield from _faults(value, path, depth)
    elif name in _LISTS:
        for index, each in enumerate(value if isinstance(value, list) else [None]):
            yield from _faults(each, f"{path}[{index}]", depth)
    elif name in _MAPS:
        for key, each in value.items() if isinstance(value, dict) else [("", None)]:
            yield from _faults(each, f"{path}.{key[:64]}", depth)
    elif name in _COUNTS:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
            yield _wrong(path, f"must be a whole number from 0 to {MAX_COUNT}")
    elif name == "$ref":
        if not (isinstance(value, str) and value.startswith(_LOCAL)):
            yield _wrong(path, f"must begin with {' or '.join(_LOCAL)}")
    elif name not in _PLAIN:
        yield _wrong(path, "is not supported")
    elif not is_plain(value, depth):
        yield _wrong(path, f"is nested more than {MAX_DEPTH} deep, or no JSON")


def _loops(schema: Json, path: str) -> Iterator[FieldViolation]:
    """Definitions that are not there, or that come back to themselves: their grammar would have no end."""
    defined = {
        f"#/{name}/{key}": each
        for name in ("$defs", "definitions")
        for key, each in mapping(schema.get(name, {})).items()
    }
    uses = {name: set(_references(each)) for name, each in defined.items()}
    for name in sorted({*_references(schema)} - defined.keys()):
        yield _wrong(path, f"refers to {name[:64]!r}, which is not defined")
    for name in sorted(defined):
        seen: set[str] = set()
        ahead = set(uses[name])
        while ahead:
            seen |= ahead
            ahead = set().union(*(uses.get(each, set()) for each in ahead)) - seen
        if name in seen:
            yield _wrong(path, f"{name[:64]!r} refers to itself")


def _references(schema: object) -> Iterator[str]:
    """Of all subschemas. A property that is called $ref is none."""
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name == "$ref":
            yield str(value)
        elif name in _SCHEMAS:
            yield from _references(value)
        elif name in _LISTS:
            for each in value:
                yield from _references(each)
        elif name in _MAPS:
            for each in value.values():
                yield from _references(each)


def _unknown(fields: Json, known: set[str], path: str) -> list[FieldViolation]:
    return [_wrong(f"{path}.{name[:64]}", "is not supported") for name in fields if name not in known]


def _wrong(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)
