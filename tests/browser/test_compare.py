"""The Compare tab, in a real browser."""

import re
import threading

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import ADAPTER, BASE, ask, pick
from tests.stage.folds import unfold
from tests.stage.service import Stage
from tests.stage.trained import train

pytestmark = pytest.mark.browser


@pytest.fixture
def page(page: Page) -> Page:
    """The page with the base on its left and support@1 on its right."""
    pick(page, "right", ADAPTER)
    return page


def test_both_sides_answer_one_question_with_their_figures(page: Page, stage: Stage) -> None:
    ask(page, "Where is my parcel?")
    for side, name in (("left", BASE), ("right", ADAPTER)):
        expect(page.locator(f"#{side}-chat")).to_contain_text(f"It is {name}.")
        expect(page.locator(f"#{side}-figures")).to_contain_text(name)
        expect(page.locator(f"#{side}-figures")).to_contain_text(re.compile(r"first token \d+\.\d\d s"))
        expect(page.locator(f"#{side}-figures")).to_contain_text("3 tokens")
    expect(page.locator("#question textarea")).to_have_value("")
    assert sorted(question.model for question in stage.questions) == [ADAPTER, BASE]


def test_each_side_answers_as_the_model_that_was_picked_for_it(page: Page) -> None:
    pick(page, "left", ADAPTER)
    pick(page, "right", BASE)
    ask(page, "Who are you?")
    for side, name in (("left", ADAPTER), ("right", BASE)):
        expect(page.locator(f"#{side}-chat")).to_contain_text(f"It is {name}.")
        expect(page.locator(f"#{side}-figures")).to_contain_text(name)


@pytest.mark.parametrize(("slow", "fast"), [("left", "right"), ("right", "left")])
def test_a_side_that_stalls_does_not_hold_up_the_other(
    page: Page, stage: Stage, slow: str, fast: str
) -> None:
    stage.say("begun", " and", " ended")
    stage.hold({"left": BASE, "right": ADAPTER}[slow])
    ask(page, "Hello?")
    expect(page.locator(f"#{fast}-chat")).to_contain_text("begun and ended")
    expect(page.locator(f"#{slow}-chat")).to_contain_text("begun")
    assert stage.engine.streams == 1
    stage.release()
    expect(page.locator(f"#{slow}-chat")).to_contain_text("begun and ended")


def half_answered(page: Page, stage: Stage) -> None:
    """Ask a first question that both models have answered half, and go on to answer only once released."""
    stage.say("half", " and on")
    stage.hold()
    ask(page, "First?")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("half")


def test_each_side_shows_its_tokens_per_second_once_later_tokens_come(page: Page, stage: Stage) -> None:
    half_answered(page, stage)
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-figures")).not_to_contain_text("tok/s")
    stage.release()
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-figures")).to_contain_text(re.compile(r"\d+\.\d tok/s · 2 tokens"))


def are_stopped(stage: Stage) -> bool:
    """Whether the engine was freed of both answers that it held, before they were said."""
    stage.run(stage.answers_ended())
    return stage.engine.broken_off == {BASE: 1, ADAPTER: 1}


def test_stop_ends_both_answers_at_the_engine_and_keeps_what_was_said(page: Page, stage: Stage) -> None:
    half_answered(page, stage)
    page.click("button#stop")
    assert are_stopped(stage)
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-figures")).to_contain_text("stopped")
        expect(page.locator(f"#{side}-chat")).to_contain_text("half")


@pytest.mark.parametrize("press", ["Enter", "button"])
def test_a_new_question_stops_answers_that_still_come_and_is_answered_after_them(
    page: Page, stage: Stage, press: str
) -> None:
    half_answered(page, stage)
    stage.say("quick", " and on")
    stage.hold_no_more()
    if press == "Enter":
        ask(page, "Second?")
    else:
        page.fill("#question textarea", "Second?")
        page.click("button#send")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("quick and on")
        expect(page.locator(f"#{side}-chat")).to_contain_text("Second?")
        expect(page.locator(f"#{side}-chat")).to_contain_text("half")
    assert are_stopped(stage)
    said = [[content for _, content in question.messages] for question in stage.questions]
    assert said == [["First?"]] * 2 + [["First?", "half", "Second?"]] * 2


def test_nothing_sent_by_mistake_leaves_a_running_answer_alone(page: Page, stage: Stage) -> None:
    half_answered(page, stage)
    page.click("button#send")
    expect(page.locator(".toast-body")).to_contain_text("Type a question first.")
    stage.release()
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("half and on")


def test_retry_while_answers_come_stops_them_and_asks_anew(page: Page, stage: Stage) -> None:
    half_answered(page, stage)
    stage.say("anew")
    stage.hold_no_more()
    page.click("button#retry")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("anew")
        expect(page.locator(f"#{side}-chat")).not_to_contain_text("half")
    assert are_stopped(stage)


def test_clear_while_answers_come_stops_them_and_leaves_nothing(page: Page, stage: Stage) -> None:
    half_answered(page, stage)
    page.click("button#clear")
    assert are_stopped(stage)
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).not_to_contain_text("First?")
        expect(page.locator(f"#{side}-figures")).to_have_text("")


def test_retry_of_one_side_leaves_the_other_sides_answer_running(page: Page, stage: Stage) -> None:
    stage.say("half", " and on")
    stage.hold(ADAPTER)
    ask(page, "First?")
    expect(page.locator("#left-chat")).to_contain_text("half and on")
    expect(page.locator("#right-chat")).to_contain_text("half")
    stage.say("anew", " and on")
    page.locator("#left-chat").get_by_label("Retry").click()
    expect(page.locator("#left-chat")).to_contain_text("anew and on")
    assert stage.engine.streams == 1
    stage.release()
    expect(page.locator("#right-chat")).to_contain_text("half and on")


def test_one_sides_error_is_a_toast_in_plain_words_and_the_other_side_answers(page: Page) -> None:
    pick(page, "right", "broken@1")
    ask(page, "Hello?")
    expect(page.locator(".toast-body")).to_contain_text("broken@1 is FAILED")
    expect(page.locator("#left-chat")).to_contain_text(f"It is {BASE}.")
    assert "Traceback" not in page.content()


def test_retry_asks_the_last_question_again_and_clear_empties_both_sides(page: Page, stage: Stage) -> None:
    stage.say("first")
    ask(page, "Hello?")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-figures")).to_contain_text("1 tokens")
        expect(page.locator(f"#{side}-chat")).to_contain_text("first")
    stage.say("second")
    page.click("button#retry")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("second")
        expect(page.locator(f"#{side}-chat")).not_to_contain_text("first")
    assert [question.messages for question in stage.questions] == [[("user", "Hello?")]] * 4
    page.click("button#clear")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).not_to_contain_text("second")


def test_system_prompt_and_sampling_reach_both_models(page: Page, stage: Stage) -> None:
    unfold(page, "Sampling and system prompt")
    page.fill("#system-prompt textarea", "Answer in French.")
    page.fill("#temperature input[type=number]", "0.7")
    page.fill("#top-p input[type=number]", "0.85")
    page.fill("#max-tokens input[type=number]", "77")
    page.fill("#seed textarea, #seed input", "11")
    page.press("#seed textarea, #seed input", "Tab")
    ask(page, "In which language?")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("It is")
    # Alone what this page asked: an answer of one that was closed may still be on its way.
    asked = [question for question in stage.questions if question.text == "In which language?"]
    assert {question.model for question in asked} == {BASE, ADAPTER}
    for question in asked:
        assert question.messages == [("system", "Answer in French."), ("user", "In which language?")]
        assert question.fields["temperature"] == pytest.approx(0.7)
        assert question.fields["top_p"] == pytest.approx(0.85)
        assert question.fields["max_tokens"] == 77
        assert question.fields["seed"] == 11


def test_the_pickers_show_every_model_with_its_state(page: Page) -> None:
    expect(page.locator("#left-model input")).to_have_value(f"{BASE} · base")
    expect(page.locator("#right-model input")).to_have_value(f"{ADAPTER} · active")
    page.click("#right-model input")
    expect(page.locator("ul[role=listbox]")).to_contain_text("broken@1 · failed")


def test_an_open_picker_goes_on_to_offer_every_model_when_their_states_change(
    page: Page, stage: Stage
) -> None:
    stage.hold("late@1")
    training = threading.Thread(target=train, args=(stage, "late"))
    training.start()
    page.click("#right-model input")
    expect(page.locator("ul[role=listbox]")).to_contain_text("late@1 · being verified")
    stage.release()
    expect(page.locator("ul[role=listbox]")).to_contain_text("late@1 · active")
    page.locator("ul[role=listbox] li", has_text="late@1").click()
    expect(page.locator("#right-model input")).to_have_value("late@1 · active")
    training.join()


def test_the_newest_adapter_is_picked_whatever_its_name(
    _desktop: BrowserContext, stage: Stage, url: str
) -> None:
    for adapter in ("new", "ancient", "new"):
        train(stage, adapter)
    visitor = _desktop.new_page()
    visitor.goto(url, wait_until="domcontentloaded")
    expect(visitor.locator("#right-model input")).to_have_value("new@2 · active")
    visitor.close()


def test_an_empty_question_is_refused_at_the_page(page: Page, stage: Stage) -> None:
    page.click("button#send")
    expect(page.locator(".toast-body")).to_contain_text("Type a question first.")
    assert stage.questions == []


def test_a_phone_shows_both_sides_without_scrolling_sideways(phone: Page, stage: Stage) -> None:
    stage.say("ok")
    expect(phone.locator("#right-model input")).to_have_value(re.compile("@"))
    ask(phone, "Hello?")
    for side in ("left", "right"):
        expect(phone.locator(f"#{side}-chat")).to_contain_text("ok")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    expect(phone.locator("#question textarea")).to_be_in_viewport()


def test_the_page_asks_nothing_of_any_other_host(browser: Browser, stage: Stage, url: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2].split(":")[0]))
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_selector("#question textarea")
    context.close()
    assert hosts == {"127.0.0.1"}
