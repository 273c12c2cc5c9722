"""What a model's name means is read once, and again as soon as anybody has changed anything."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from service.errors import NotFound
from service.registry import VersionState
from tests.service.registry_stage import active, numbered, open_registry


async def test_a_name_is_read_once_until_something_changes(tmp_path: Path) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    async with open_registry(tmp_path) as registry:
        first = await active(registry)
        assert await registry.resolve_model("support") == first
        event.listen(Engine, "before_cursor_execute", note)
        try:
            assert [await registry.resolve_model("support") for _ in range(3)] == [first] * 3
            assert not statements
            second = await active(registry)
            statements.clear()
            assert await registry.resolve_model("support") == second
            assert statements
        finally:
            event.remove(Engine, "before_cursor_execute", note)


async def test_what_another_service_changes_holds_from_the_next_request_on(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as one, open_registry(tmp_path, ids=numbered("other")) as other:
        first = await active(one)
        assert await one.resolve_model("support") == await other.resolve_model("support") == first
        second = await active(other)
        assert await one.resolve_model("support") == second
        await one.move_version(second, VersionState.RETIRING)
        assert await other.resolve_model("support") == first


async def test_a_name_that_meant_nothing_means_something_once_there_is_something(tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry:
        with pytest.raises(NotFound):
            await registry.resolve_model("support")
        made = await active(registry)
        assert await registry.resolve_model("support") == made
