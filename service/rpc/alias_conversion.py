"""Aliases as messages, and what is asked of them; other messages are made by `service.rpc.conversion`."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from hotlora.v1 import alias_service_pb2 as pb
from service.errors import FieldViolation
from service.registry import AliasChange, AliasRow, Share, Wish
from service.rpc import conversion


class Naming(Protocol):
    """A request that changes an alias."""

    @property
    def name(self) -> str: ...
    @property
    def author(self) -> str: ...
    @property
    def expected_revision(self) -> int: ...
    def HasField(self, name: str) -> bool: ...


def alias_of(name: str) -> tuple[str, str]:
    """Adapter id and alias id in `adapters/{id}/aliases/{alias}`."""
    _, adapter_id, _, alias_id = name.split("/")
    return adapter_id, alias_id


def wish_of(request: Naming) -> Wish:
    """Whose alias is to be changed, and by whom."""
    adapter_id, alias_id = alias_of(request.name)
    revision = request.expected_revision if request.HasField("expected_revision") else None
    return Wish(adapter_id=adapter_id, alias_id=alias_id, author=request.author, expected_revision=revision)


def shares_of(shares: Iterable[pb.TrafficShare]) -> tuple[Share, ...]:
    """Which versions get how much."""
    return tuple(Share(version=share.version, percent=share.percent) for share in shares)


def wrong_shares(shares: Sequence[Share]) -> list[FieldViolation]:
    """What protos cannot say of several shares."""
    found = []
    named = [share.version for share in shares]
    twice = sorted({version for version in named if named.count(version) > 1})
    if twice:
        found.append(f"must name each version once; {', '.join(map(str, twice))} stands there twice")
    total = sum(share.percent for share in shares)
    if total != 100:
        found.append(f"percentages must make 100, got {total}")
    return [FieldViolation(field="shares", description=each) for each in found]


def alias_message(row: AliasRow) -> pb.Alias:
    """An alias."""
    return pb.Alias(
        name=f"{conversion.adapter_name(row.adapter_id)}/aliases/{row.id}",
        model=row.model,
        shares=_shares_sent(row.shares),
        revision=row.revision,
        gated=row.is_gated,
        create_time=conversion.timestamp(row.create_time),
        update_time=conversion.timestamp(row.update_time),
    )


def change_message(change: AliasChange) -> pb.AliasChange:
    """Something that was done to an alias."""
    return pb.AliasChange(
        revision=change.revision,
        kind=f"KIND_{change.kind.value}",
        time=conversion.timestamp(change.time),
        author=change.author,
        before=_shares_sent(change.before),
        after=_shares_sent(change.after),
        forced=change.is_forced,
        gated=change.is_gated,
    )


def _shares_sent(shares: Sequence[Share]) -> list[pb.TrafficShare]:
    return [pb.TrafficShare(version=share.version, percent=share.percent) for share in shares]
