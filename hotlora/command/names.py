"""Short names as people type them, and the resource names they stand for. The service judges both."""

import re
from typing import Final

from hotlora.errors import InvalidArgument
from hotlora.v1.dataset_service_pb2 import HubSplit

_HUB: Final = "hf:"
_VERSION: Final = re.compile(r"(?P<adapter>[^@/]+)@(?P<number>[0-9]+)")


def job(text: str) -> str:
    """tuningJobs/{id} of an id or a whole name."""
    return text if text.startswith("tuningJobs/") else f"tuningJobs/{text}"


def dataset(text: str) -> str:
    """datasets/{id} of an id or a whole name."""
    return text if text.startswith("datasets/") else f"datasets/{text}"


def hub_split(text: str, *, config: str = "", split: str = "", max_rows: int = 0) -> HubSplit | None:
    """The rows that `hf:OWNER/NAME` names; None for a text that begins otherwise."""
    if not text.startswith(_HUB):
        return None
    return HubSplit(repository=text.removeprefix(_HUB), config=config, split=split, max_rows=max_rows)


def adapter(text: str) -> str:
    """adapters/{id} of an id or a whole name."""
    return text if text.startswith("adapters/") else f"adapters/{text}"


def alias(adapter_name: str, alias_id: str) -> str:
    """adapters/{id}/aliases/{alias} of an adapter and the id of an alias."""
    return f"{adapter(adapter_name)}/aliases/{alias_id}"


def short_alias(name: str) -> str:
    """The id of an alias."""
    return name.rpartition("/")[2]


def evaluation(text: str) -> str:
    """evaluations/{id} of an id or a whole name."""
    return text if text.startswith("evaluations/") else f"evaluations/{text}"


def is_version(text: str) -> bool:
    """Whether the text names one version of an adapter, as opposed to the adapter."""
    return _VERSION.fullmatch(text) is not None or "/versions/" in text


def version(text: str) -> str:
    """adapters/{id}/versions/{n} of {id}@{n} or a whole name. Raises InvalidArgument on anything else."""
    if match := _VERSION.fullmatch(text):
        return f"adapters/{match['adapter']}/versions/{match['number']}"
    if "/versions/" in text:
        return text
    raise InvalidArgument(f"{text!r} does not name a version; write it as {text}@1.", reason="BAD_NAME")


def short(name: str) -> str:
    """The short form: the id, or {id}@{n} for a version."""
    match name.split("/"):
        case ["adapters", identifier, "versions", number]:
            return f"{identifier}@{number}"
        case [_, identifier]:
            return identifier
        case _:
            return name
