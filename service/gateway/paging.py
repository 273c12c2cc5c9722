"""Lists of the OpenAI API: `limit`, and `after` the id of the last one seen."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from aiohttp import web

from service.errors import FieldViolation, InvalidRequest
from service.registry import Page

Item = TypeVar("Item")
_PAGE_ROWS = 500


class Listing(Protocol[Item]):
    """A list of the registry."""

    def __call__(self, *, limit: int, cursor: str) -> Awaitable[Page[Item]]: ...


@dataclass(frozen=True, kw_only=True)
class Paging:
    """Which part of a list is asked for."""

    after: str
    limit: int

    @classmethod
    def of(cls, request: web.Request, *, most: int, default: int, others: Sequence[str] = ()) -> Self:
        """Out of a query, which may have `others` besides. Raises InvalidRequest with all that is wrong."""
        wrong = [
            FieldViolation(field=name[:64], description="is not supported")
            for name in request.query
            if name not in ("after", "limit", *others)
        ]
        text = request.query.get("limit", str(default))
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= most):
            rule = f"must be a whole number from 1 to {most}, got {text[:20]!r}"
            wrong.append(FieldViolation(field="limit", description=rule))
        if wrong:
            raise InvalidRequest(wrong)
        return cls(after=request.query.get("after", ""), limit=int(text))

    async def answer(
        self,
        listing: Listing[Item],
        id_of: Callable[[Item], str],
        shown: Callable[[Item], dict[str, object] | Awaitable[dict[str, object]]],
    ) -> web.Response:
        """The part as JSON. Raises InvalidRequest where nothing in the list has the id in `after`."""
        items = await self._items(listing, id_of)
        data = []
        for item in items[: self.limit]:
            found = shown(item)
            data.append(found if isinstance(found, dict) else await found)
        return web.json_response(
            {"object": "list", "data": data, "has_more": len(items) > self.limit}
            | ({"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {})
        )

    async def _items(self, listing: Listing[Item], id_of: Callable[[Item], str]) -> list[Item]:
        """One more than asked for, where there are more."""
        items: list[Item] = []
        has_begun, cursor = not self.after, ""
        while True:
            page = await listing(limit=_PAGE_ROWS, cursor=cursor)
            for item in page.rows:
                if has_begun:
                    items.append(item)
                has_begun = has_begun or id_of(item) == self.after
            cursor = page.next_cursor
            if len(items) > self.limit or not cursor:
                break
        if not has_begun:
            rule = f"must be the id of one of the list, got {self.after[:60]!r}"
            raise InvalidRequest([FieldViolation(field="after", description=rule)])
        return items
