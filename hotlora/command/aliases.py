"""`aliases list | promote | split | rollback | history | delete`."""

import getpass
from collections.abc import Sequence

from hotlora.command import names, output
from hotlora.command.calling import connected
from hotlora.errors import InvalidArgument
from hotlora.v1.alias_service_pb2 import (
    Alias,
    AliasChange,
    ListAliasChangesResponse,
    ListAliasesResponse,
    TrafficShare,
)


def list_aliases(address: str | None, adapter: str, *, limit: int, as_json: bool) -> None:
    """Prints the aliases of an adapter by name."""
    with connected(address) as client:
        found = output.newest(
            lambda page_size, token: client.list_aliases(
                names.adapter(adapter), page_size=page_size, page_token=token
            ),
            lambda page: page.aliases,
            limit=limit,
        )
    if as_json:
        output.print_json(ListAliasesResponse(aliases=found))
        return
    rows = [
        (
            names.short_alias(alias.name),
            alias.model,
            _shares(alias.shares),
            "yes" if alias.gated else "no",
            str(alias.revision),
            output.when(alias.update_time),
        )
        for alias in found
    ]
    columns = ("ALIAS", "ASKED AS", "VERSIONS", "GATED", "REVISION", "CHANGED")
    newest = "Its name means its newest ACTIVE version."
    output.table(columns, rows, empty=f"{adapter} has no aliases. {newest}")


def promote(
    address: str | None, version: str, alias: str, *, gated: bool | None, force: bool, as_json: bool
) -> None:
    """Points an alias at a version."""
    adapter, _, number = names.version(version).removeprefix("adapters/").partition("/versions/")
    with connected(address) as client:
        found = client.promote_version(
            names.alias(adapter, alias), int(number), gated=gated, force=force, author=getpass.getuser()
        )
    _print(found, as_json=as_json)


def split(
    address: str | None,
    adapter: str,
    shares: Sequence[str],
    alias: str,
    *,
    gated: bool | None,
    force: bool,
    as_json: bool,
) -> None:
    """Has versions share an alias's requests. Raises InvalidArgument for what is not VERSION=PERCENT."""
    percents: dict[int, int] = {}
    for share in shares:
        version, separator, percent = share.partition("=")
        if not (separator and version.isdecimal() and percent.isdecimal()) or int(version) in percents:
            raise InvalidArgument(
                f"{share!r} is not VERSION=PERCENT of a version named once; write for example 7=95 8=5.",
                reason="BAD_SHARE",
            )
        percents[int(version)] = int(percent)
    with connected(address) as client:
        found = client.split_traffic(
            names.alias(adapter, alias), percents, gated=gated, force=force, author=getpass.getuser()
        )
    _print(found, as_json=as_json)


def roll_back(address: str | None, adapter: str, alias: str, *, steps: int, as_json: bool) -> None:
    """Points an alias at what it pointed at before."""
    with connected(address) as client:
        found = client.roll_back_alias(names.alias(adapter, alias), steps=steps, author=getpass.getuser())
    _print(found, as_json=as_json)


def history(address: str | None, adapter: str, alias: str, *, limit: int, as_json: bool) -> None:
    """Prints what was done to an alias, newest first."""
    with connected(address) as client:
        found = output.newest(
            lambda page_size, token: client.list_alias_changes(
                names.alias(adapter, alias), page_size=page_size, page_token=token
            ),
            lambda page: page.changes,
            limit=limit,
        )
    if as_json:
        output.print_json(ListAliasChangesResponse(changes=found))
        return
    rows = [
        (
            str(change.revision),
            _what(change),
            _shares(change.before) or "nothing",
            _shares(change.after) or "nothing",
            change.author,
            output.when(change.time),
        )
        for change in found
    ]
    output.table(("REVISION", "WHAT", "FROM", "TO", "BY", "WHEN"), rows, empty="Nothing was done to it.")


def delete(address: str | None, adapter: str, alias: str, *, as_json: bool) -> None:
    """Deletes an alias."""
    with connected(address) as client:
        client.delete_alias(names.alias(adapter, alias), author=getpass.getuser())
    if as_json:
        output.print_json({"deleted": names.alias(adapter, alias)})
    else:
        output.console().print(f"Alias {alias} of {adapter} is deleted.")


def _what(change: AliasChange) -> str:
    if change.kind == AliasChange.KIND_GATE_CHANGED:
        return "gate on" if change.gated else "gate off"
    words = AliasChange.Kind.Name(change.kind).removeprefix("KIND_").replace("_", " ").lower()
    return f"{words}, forced" if change.forced else words


def _print(alias: Alias, *, as_json: bool) -> None:
    if as_json:
        output.print_json(alias)
    else:
        output.console().print(f"{alias.model} is {_shares(alias.shares)} (revision {alias.revision}).")


def _shares(shares: Sequence[TrafficShare]) -> str:
    return " + ".join(f"{share.percent} % version {share.version}" for share in shares)
