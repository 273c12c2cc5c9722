"""The comments of the protos are the manual: a bound that is checked is a bound that is told."""

import math
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from hotlora.buf.validate import validate_pb2

ROOT = Path(__file__).resolve().parents[2]
LOWER, UPPER = ("gte", "min_len", "min_items"), ("lte", "max_len", "max_items", "max_pairs")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "MB": 10**6, "GB": 10**9}
Field = tuple[descriptor_pb2.FieldDescriptorProto, str]
"""With its comment."""


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Field]]:
    """Every field of ours, by its path."""
    path = tmp_path_factory.mktemp("manual") / "ours.binpb"
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "build", "--path", "hotlora", "-o", path], cwd=ROOT / "protos", check=True)
    files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file
    return [
        found
        for file in files
        if file.name.startswith("hotlora/v1/")
        for index, message in enumerate(file.message_type)
        for found in _fields(
            message, (4, index), {tuple(at.path): at for at in file.source_code_info.location}
        )
    ]


def _fields(
    message: descriptor_pb2.DescriptorProto,
    path: tuple[int, ...],
    places: Mapping[tuple[int, ...], descriptor_pb2.SourceCodeInfo.Location],
) -> Iterator[tuple[str, Field]]:
    for index, field in enumerate(message.field):
        if not message.options.map_entry:
            yield f"{message.name}.{field.name}", (field, places[*path, 2, index].leading_comments)
    for index, nested in enumerate(message.nested_type):
        yield from _fields(nested, (*path, 3, index), places)


def _bounds(rules: Message) -> Iterator[tuple[str, float]]:
    """Those of a field, of its items and of its values."""
    for rule, value in rules.ListFields():
        if rule.name in LOWER + UPPER:
            yield rule.name, float(value)
        elif isinstance(value, Message):
            yield from _bounds(value)


def _numbers(comment: str) -> set[float]:
    """Those that a comment names, in any of the ways in which a person writes them."""
    found = {
        float(digits.replace(",", "")) * UNITS.get(unit, 1)
        for digits, unit in re.findall(r"(\d[\d,]*(?:\.\d+)?)(?: (\w+))?", comment)
    }
    return found | {10.0 ** int(exponent) for exponent in re.findall(r"10\^(\d+)", comment)}


def test_every_bound_of_a_field_stands_in_its_comment(fields: list[tuple[str, Field]]) -> None:
    untold = [
        f"{path}: {rule} {bound:g}"
        for path, (field, comment) in fields
        for rule, bound in _bounds(field.options.Extensions[validate_pb2.field])
        if not any(math.isclose(bound, number) for number in _numbers(comment))
        and (rule, bound) not in {("min_len", 1.0), ("min_items", 1.0)}  # what must be there, in any words
    ]

    assert untold == []
    assert len(fields) > 300
