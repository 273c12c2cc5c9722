"""The commands below `aliases` with their options. Each loads what it needs when it runs."""

# ruff: noqa: PLC0415 -- gRPC and rich take longer to load than `--help` may take

from typing import Annotated

import typer

from hotlora.command import options
from hotlora.command.options import Address, AsJson, Limit

aliases_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Names that point at versions: roll out, roll back, split.",
)

Adapter = Annotated[str, typer.Argument(show_default=False)]
Alias = Annotated[str, typer.Option("--alias", help="Asked as ADAPTER@ALIAS; `default` is asked as ADAPTER.")]
Gated = Annotated[
    bool | None,
    typer.Option(
        "--gated/--not-gated",
        help="From now on, refuse versions whose evaluation is worse. Default: as it is.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overrule the gate.")]


@aliases_app.command("list")
def aliases_list(
    adapter: Adapter, limit: Limit = 50, address: Address = None, as_json: AsJson = False
) -> None:
    """Lists an adapter's aliases by name."""
    from hotlora.command import aliases

    aliases.list_aliases(address, adapter, limit=limit, as_json=as_json)


@aliases_app.command("promote")
def aliases_promote(
    version: Annotated[str, typer.Argument(metavar="ADAPTER@N", show_default=False)],
    alias: Alias = "default",
    gated: Gated = None,
    force: Force = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Points an alias at a version, from the next request on."""
    from hotlora.command import aliases

    aliases.promote(address, version, alias, gated=gated, force=force, as_json=as_json)


@aliases_app.command("split")
def aliases_split(
    adapter: Adapter,
    shares: Annotated[list[str], typer.Argument(metavar="VERSION=PERCENT...", show_default=False)],
    alias: Alias = "default",
    gated: Gated = None,
    force: Force = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Has versions share an alias's requests, for example 7=95 8=5; a user stays with one version."""
    from hotlora.command import aliases

    aliases.split(address, adapter, shares, alias, gated=gated, force=force, as_json=as_json)


@aliases_app.command("rollback")
def aliases_rollback(
    adapter: Adapter,
    alias: Alias = "default",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Settings to go back.")] = 1,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Points an alias at what it pointed at before."""
    from hotlora.command import aliases

    aliases.roll_back(address, adapter, alias, steps=steps, as_json=as_json)


@aliases_app.command("history")
def aliases_history(
    adapter: Adapter,
    alias: Alias = "default",
    limit: Limit = 50,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Lists what was done to an alias, newest first: what, from where, to where, by whom, when."""
    from hotlora.command import aliases

    aliases.history(address, adapter, alias, limit=limit, as_json=as_json)


@aliases_app.command("delete")
def aliases_delete(
    adapter: Adapter,
    alias: Annotated[str, typer.Argument(show_default=False)],
    yes: options.Yes = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Deletes an alias; its history stays."""
    from hotlora.command import aliases

    options.confirm(f"Delete alias {alias} of {adapter}?", yes=yes)
    aliases.delete(address, adapter, alias, as_json=as_json)
