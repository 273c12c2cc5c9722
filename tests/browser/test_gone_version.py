"""A version that goes away while the page has it picked, in a real browser."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, Route, expect

from hotlora.client import Client
from tests.browser.conftest import ADAPTER, BASE, ask, pick
from tests.stage.service import Stage
from tests.stage.trained import train

pytestmark = pytest.mark.browser

EVENTS = "**/gradio_api/queue/join*"
LOOK = """window.gradio_config.dependencies.find(
    ({targets, outputs}) => targets.some(([, event]) => event == "tick")
        && outputs.includes(window.gradio_config.components.find(it => it.props.elem_id == "left-model").id)
).id"""
"""Id of the listener that looks which models there are, every other second."""


def _unload(client: Client, adapter: str) -> None:
    name = f"adapters/{adapter}/versions/1"
    client.unload_adapter_version(name)
    for _ in client.watch_adapter_version(name):
        pass


def _delete(client: Client, adapter: str) -> None:
    client.delete_adapter(f"adapters/{adapter}")


@contextmanager
def _not_looking(page: Page) -> Iterator[None]:
    """The page does not learn meanwhile which models there are."""
    look, held = page.evaluate(LOOK), list[Route]()

    def keep(route: Route) -> None:
        asked = route.request.post_data_json or {}
        if asked.get("fn_index") == look:
            held.append(route)
        else:
            route.continue_()

    page.route(EVENTS, keep)
    while not held:  # a look that was on its way before may see anything
        page.wait_for_event("request")
        page.evaluate("0")  # a request is told of before its route is
    yield
    page.unroute(EVENTS, keep)  # which lets go what is held


@pytest.mark.parametrize(
    ("adapter", "goes", "told"),
    [
        ("unloaded", _unload, "unloaded@1 is RETIRED; to answer it must be ACTIVE"),
        ("deleted", _delete, "there is no version 1 of adapter 'deleted'"),
    ],
)
def test_a_question_to_a_version_that_has_just_gone_is_told_in_a_toast_and_the_next_one_is_answered(
    page: Page, stage: Stage, client: Client, adapter: str, goes: Callable[[Client, str], None], told: str
) -> None:
    train(stage, adapter)
    pick(page, "right", f"{adapter}@1")
    with _not_looking(page):
        goes(client, adapter)
        ask(page, "Are you there?")
        expect(page.locator(".toast-body")).to_contain_text(told)
        expect(page.locator("#right-figures")).to_contain_text("no answer")
        expect(page.locator("#left-chat")).to_contain_text(f"It is {BASE}.")
        assert "Traceback" not in page.content()
    expect(page.locator("#right-model input")).not_to_have_value(re.compile(adapter))
    pick(page, "right", ADAPTER)
    ask(page, "And now?")
    expect(page.locator("#right-chat")).to_contain_text(f"It is {ADAPTER}.")
