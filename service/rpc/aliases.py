"""AliasService: asks the gate where there is one, and passes on what is asked of aliases."""

from collections.abc import Sequence, Set
from dataclasses import replace

import structlog

from hotlora.v1 import alias_service_pb2 as pb
from hotlora.v1 import alias_service_pb2_grpc as pb_grpc
from service.errors import FieldViolation, InvalidRequest
from service.evaluation import Gate
from service.registry import AliasChangeKind, AliasRow, Registry, Share, alias_model
from service.rpc import conversion
from service.rpc.alias_conversion import (
    alias_message,
    alias_of,
    change_message,
    shares_of,
    wish_of,
    wrong_shares,
)
from service.rpc.boundary import Context
from service.rpc.findings import Findings

_log = structlog.get_logger(__name__)


class AliasServicer(pb_grpc.AliasServiceServicer):
    """See the proto."""

    def __init__(self, *, registry: Registry) -> None:
        self._aliases = registry.aliases
        self._gate = Gate(registry)

    async def GetAlias(self, request: pb.GetAliasRequest, context: Context) -> pb.Alias:
        return alias_message(await self._aliases.get(*alias_of(request.name)))

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Context) -> pb.ListAliasesResponse:
        page = await self._aliases.listing(
            conversion.id_of(request.parent),
            limit=conversion.limit_of(request.page_size),
            cursor=request.page_token,
        )
        return pb.ListAliasesResponse(aliases=map(alias_message, page.rows), next_page_token=page.next_cursor)

    async def PromoteVersion(self, request: pb.PromoteVersionRequest, context: Context) -> pb.Alias:
        shares = (Share(version=request.version, percent=100),)
        return await self._point(request, shares, AliasChangeKind.PROMOTED)

    async def SplitTraffic(self, request: pb.SplitTrafficRequest, context: Context) -> pb.Alias:
        shares = shares_of(request.shares)
        if violations := wrong_shares(shares):
            raise InvalidRequest(violations)
        return await self._point(request, shares, AliasChangeKind.SPLIT)

    async def split_problems(
        self, request: pb.SplitTrafficRequest, broken: Set[str]
    ) -> Sequence[FieldViolation]:
        """What is wrong besides the fields that are `broken`, and that `request` comes without."""
        findings = Findings(broken)
        if findings.knows("shares"):
            findings.add(wrong_shares(shares_of(request.shares)))
        return findings.violations

    async def RollBackAlias(self, request: pb.RollBackAliasRequest, context: Context) -> pb.Alias:
        return _told(await self._aliases.roll_back(wish_of(request), request.steps or 1))

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Context) -> pb.DeleteAliasResponse:
        wish = wish_of(request)
        await self._aliases.delete(wish)
        _log.info("alias deleted", model=alias_model(wish.adapter_id, wish.alias_id))
        return pb.DeleteAliasResponse()

    async def ListAliasChanges(
        self, request: pb.ListAliasChangesRequest, context: Context
    ) -> pb.ListAliasChangesResponse:
        page = await self._aliases.history(
            *alias_of(request.parent),
            limit=conversion.limit_of(request.page_size),
            cursor=request.page_token,
        )
        return pb.ListAliasChangesResponse(
            changes=map(change_message, page.rows), next_page_token=page.next_cursor
        )

    async def _point(
        self,
        request: pb.PromoteVersionRequest | pb.SplitTrafficRequest,
        shares: tuple[Share, ...],
        kind: AliasChangeKind,
    ) -> pb.Alias:
        wish = wish_of(request)
        is_gated = request.gated if request.HasField("gated") else None
        alias = await self._aliases.find(wish.adapter_id, wish.alias_id)
        gated = (alias is not None and alias.is_gated) if is_gated is None else is_gated
        if gated and alias is not None and alias.shares and not request.force:
            had = {share.version: share.percent for share in alias.shares}
            for share in shares:
                if share.version != alias.main_version and share.percent > had.get(share.version, 0):
                    await self._gate.refuse_worse(
                        alias.adapter_id, new=share.version, present=alias.main_version
                    )
            if wish.expected_revision is None:
                # What the gate compared with must still be there when the alias moves.
                wish = replace(wish, expected_revision=alias.revision)
        row = await self._aliases.point(
            wish, shares, kind=kind, is_gated=is_gated, is_forced=gated and request.force
        )
        return _told(row)


def _told(row: AliasRow) -> pb.Alias:
    """An alias that somebody pointed elsewhere, of which the log hears too."""
    shares = {f"{row.adapter_id}@{share.version}": share.percent for share in row.shares}
    _log.info("alias points", model=row.model, shares=shares, revision=row.revision)
    return alias_message(row)
