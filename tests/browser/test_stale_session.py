"""A page whose browser session the server no longer knows: it was restarted, or the machine slept."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.browser.conftest import BASE
from tests.stage.service import Stage

pytestmark = pytest.mark.browser


@pytest.fixture
def gradio(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


def listener(config: dict[str, Any], *, fills: str, at: str = "tick") -> dict[str, Any]:
    """The listener that fills the part of that id at an event, which is that of a timer unless named."""
    ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
    return next(
        listener
        for listener in config["dependencies"]
        if ids[fills] in listener["outputs"] and {event for _, event in listener["targets"]} == {at}
    )


def ask(
    gradio: httpx.Client, listener: dict[str, Any], data: list[object], session: str = ""
) -> dict[str, Any]:
    """What the listener answers, in a session that begins with this unless it is given."""
    session = session or uuid.uuid4().hex
    asked = {"data": data, "fn_index": listener["id"], "session_hash": session, "event_data": None}
    gradio.post("/gradio_api/queue/join", json=asked).raise_for_status()
    with gradio.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answers:
        for line in answers.iter_lines():
            if line.startswith("data: "):
                message: dict[str, Any] = json.loads(line.removeprefix("data: "))
                if message["msg"] == "process_completed":
                    return message
    raise AssertionError("The page ended the stream without an answer.")


def test_the_pickers_of_a_forgotten_session_go_on_with_what_stands_in_them(
    stage: Stage, gradio: httpx.Client
) -> None:
    config = gradio.get("/config").json()
    for part, held in (("job", "tuningJobs/of-before"), ("evaluation", "evaluations/of-before")):
        inputs = listener(config, fills=part)["inputs"]
        answer = ask(gradio, listener(config, fills=part), [held, *[None] * (len(inputs) - 1)])
        assert answer["success"], (part, answer)
    answer = ask(gradio, listener(config, fills="left-model"), [BASE, "gone@1", None])
    assert answer["success"], answer
    left, right, *_ = answer["output"]["data"]
    assert left["value"] == BASE
    assert right["value"] in {model_id for _, model_id in right["choices"]}


@pytest.mark.parametrize(
    ("model", "error"), [(BASE, None), ("gone@1", "there is no version 1 of adapter 'gone'")]
)
def test_a_question_of_a_forgotten_session_is_put_to_what_stands_in_its_picker(
    stage: Stage, gradio: httpx.Client, model: str, error: str | None
) -> None:
    config = gradio.get("/config").json()
    session = uuid.uuid4().hex
    history = [{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}]
    ask(gradio, listener(config, fills="left-chat", at="retry"), [history, None], session)
    answering = listener(config, fills="left-chat", at="change")
    answer = ask(gradio, answering, [None, None, model, history, "", 0, 1, 256, ""], session)
    assert answer["output"].get("error") == error
    assert [question.model for question in stage.questions] == ([] if error else [model])


def test_a_picker_hands_on_no_more_than_text(gradio: httpx.Client) -> None:
    ticking = listener(gradio.get("/config").json(), fills="job")
    for hostile in ([["a"]], {"path": "/etc/passwd"}, 10**9, True):
        assert ask(gradio, ticking, [hostile, None, None])["success"]
