"""The Compare tab, in a real browser."""

import pytest
from playwright.sync_api import Browser, Page, expect

from hotlora.v1.adapter_service_pb2 import AdapterVersion
from tests.browser.stage import ADAPTER, BASE, Part, Stage, adapter

pytestmark = pytest.mark.browser


def ask(page: Page, question: str) -> None:
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")


def test_both_sides_answer_one_question_with_their_figures(page: Page, stage: Stage) -> None:
    for name, word in ((BASE, "plain"), (ADAPTER, "tuned")):
        stage.parts[name] = Part(before=[word, " answer"])
        stage.parts[name].gate.set()
    ask(page, "Where is my parcel?")
    expect(page.locator("#left-chat")).to_contain_text("plain answer")
    expect(page.locator("#right-chat")).to_contain_text("tuned answer")
    for side, name in (("left", BASE), ("right", ADAPTER)):
        expect(page.locator(f"#{side}-figures")).to_contain_text(name)
        expect(page.locator(f"#{side}-figures")).to_contain_text("first token 0.25 s")
        expect(page.locator(f"#{side}-figures")).to_contain_text("5.0 tok/s")
    expect(page.locator("#question textarea")).to_have_value("")
    assert {request.model for request in stage.asked} == {BASE, ADAPTER}


@pytest.mark.parametrize(("slow", "fast"), [("left", "right"), ("right", "left")])
def test_a_side_that_stalls_does_not_hold_up_the_other(
    page: Page, stage: Stage, slow: str, fast: str
) -> None:
    names = {"left": BASE, "right": ADAPTER}
    stage.parts[names[slow]] = Part(before=["begun"], after=[" and", " ended"])
    stage.parts[names[fast]] = Part(before=["whole", " answer"])
    stage.parts[names[fast]].gate.set()
    ask(page, "Hello?")
    expect(page.locator(f"#{fast}-chat")).to_contain_text("whole answer")
    expect(page.locator(f"#{slow}-chat")).to_contain_text("begun")
    assert stage.parts[names[fast]].ended.wait(10)
    assert not stage.parts[names[slow]].ended.is_set()
    stage.parts[names[slow]].gate.set()
    expect(page.locator(f"#{slow}-chat")).to_contain_text("begun and ended")


def test_stop_ends_both_answers_at_the_service_and_keeps_what_was_said(page: Page, stage: Stage) -> None:
    for name in (BASE, ADAPTER):
        stage.parts[name] = Part(before=["half an"], after=[" answer"])
    ask(page, "Tell me a long story.")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("half an")
    page.click("#stop button, button#stop")
    for name in (BASE, ADAPTER):
        assert stage.parts[name].ended.wait(10)
        assert not stage.parts[name].finished
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-figures")).to_contain_text("stopped")
        expect(page.locator(f"#{side}-chat")).to_contain_text("half an")


def hold(stage: Stage, words: str) -> None:
    """Both models say these words and then nothing until the test lets them."""
    for name in (BASE, ADAPTER):
        stage.parts[name] = Part(before=[words], after=[" and on"])


def half_answered(page: Page, stage: Stage) -> dict[str, Part]:
    """Ask a first question that both models have answered half; gives what is held of their answers."""
    hold(stage, "half")
    ask(page, "First?")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("half")
    return dict(stage.parts)


def are_stopped(held: dict[str, Part]) -> bool:
    """Whether the service's side of these answers ended before they were said."""
    stopped = all(part.ended.wait(10) and not part.finished for part in held.values())
    for part in held.values():
        part.gate.set()
    return stopped


@pytest.mark.parametrize("press", ["Enter", "button"])
def test_a_new_question_stops_answers_that_still_come_and_is_answered_after_them(
    page: Page, stage: Stage, press: str
) -> None:
    held = half_answered(page, stage)
    hold(stage, "quick")
    for part in stage.parts.values():
        part.gate.set()
    if press == "Enter":
        ask(page, "Second?")
    else:
        page.fill("#question textarea", "Second?")
        page.click("button#send")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("quick and on")
        expect(page.locator(f"#{side}-chat")).to_contain_text("Second?")
        expect(page.locator(f"#{side}-chat")).to_contain_text("half")
    assert are_stopped(held)
    said = [[message.content for message in request.messages] for request in stage.asked]
    assert said == [["First?"]] * 2 + [["First?", "half", "Second?"]] * 2


def test_nothing_sent_by_mistake_leaves_a_running_answer_alone(page: Page, stage: Stage) -> None:
    half_answered(page, stage)
    page.click("button#send")
    expect(page.locator(".toast-body")).to_contain_text("Type a question first.")
    for part in stage.parts.values():
        part.gate.set()
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("half and on")


def test_retry_while_answers_come_stops_them_and_asks_anew(page: Page, stage: Stage) -> None:
    held = half_answered(page, stage)
    hold(stage, "anew")
    page.click("button#retry")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("anew")
        expect(page.locator(f"#{side}-chat")).not_to_contain_text("half")
    assert are_stopped(held)


def test_clear_while_answers_come_stops_them_and_leaves_nothing(page: Page, stage: Stage) -> None:
    held = half_answered(page, stage)
    page.click("button#clear")
    assert are_stopped(held)
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).not_to_contain_text("First?")
        expect(page.locator(f"#{side}-figures")).to_have_text("")


def test_retry_of_one_side_leaves_the_other_sides_answer_running(page: Page, stage: Stage) -> None:
    hold(stage, "half")
    stage.parts[BASE].gate.set()
    ask(page, "First?")
    expect(page.locator("#left-chat")).to_contain_text("half and on")
    expect(page.locator("#right-chat")).to_contain_text("half")
    stage.parts[BASE].before = ["anew"]
    page.locator("#left-chat").get_by_label("Retry").click()
    expect(page.locator("#left-chat")).to_contain_text("anew and on")
    assert not stage.parts[ADAPTER].ended.is_set()
    stage.parts[ADAPTER].gate.set()
    expect(page.locator("#right-chat")).to_contain_text("half and on")


def test_one_sides_error_is_a_toast_in_plain_words_and_the_other_side_answers(
    page: Page, stage: Stage
) -> None:
    stage.parts[BASE] = Part(before=["fine"])
    stage.parts[BASE].gate.set()
    ask(page, "Hello?")
    expect(page.locator(".toast-body")).to_contain_text(f"{ADAPTER} is PENDING; ask again once it is ACTIVE.")
    expect(page.locator("#left-chat")).to_contain_text("fine")
    assert "Traceback" not in page.content()


def test_retry_asks_the_last_question_again_and_clear_empties_both_sides(page: Page, stage: Stage) -> None:
    for name in (BASE, ADAPTER):
        stage.parts[name] = Part(before=["first"])
        stage.parts[name].gate.set()
    ask(page, "Hello?")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-figures")).to_contain_text("1 tokens")
        expect(page.locator(f"#{side}-chat")).to_contain_text("first")
    for name in (BASE, ADAPTER):
        stage.parts[name].before = ["second"]
    page.click("button#retry")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("second")
        expect(page.locator(f"#{side}-chat")).not_to_contain_text("first")
    assert [len(request.messages) for request in stage.asked] == [1, 1, 1, 1]
    page.click("button#clear")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).not_to_contain_text("second")


def test_system_prompt_and_sampling_reach_both_models(page: Page, stage: Stage) -> None:
    for name in (BASE, ADAPTER):
        stage.parts[name] = Part(before=["ok"])
        stage.parts[name].gate.set()
    page.click("#settings button")
    page.fill("#system-prompt textarea", "Answer in French.")
    page.fill("#temperature input[type=number]", "0.7")
    page.fill("#seed textarea, #seed input", "11")
    page.press("#seed textarea, #seed input", "Tab")
    ask(page, "Hello?")
    for side in ("left", "right"):
        expect(page.locator(f"#{side}-chat")).to_contain_text("ok")
    for request in stage.asked:
        assert [m.role for m in request.messages] == ["system", "user"]
        assert request.messages[0].content == "Answer in French."
        assert request.temperature == pytest.approx(0.7)
        assert request.seed == 11


def test_the_pickers_show_every_model_with_its_state(page: Page, stage: Stage) -> None:
    expect(page.locator("#left-model input")).to_have_value(f"{BASE} · base")
    expect(page.locator("#right-model input")).to_have_value(f"{ADAPTER} · active")
    page.click("#right-model input")
    expect(page.locator("ul[role=listbox]")).to_contain_text("broken@1 · failed")


def test_an_open_picker_goes_on_to_offer_every_model_when_their_states_change(
    page: Page, stage: Stage
) -> None:
    late = adapter("late@1", 300)
    late.state = AdapterVersion.STATE_VERIFYING
    late.available = False
    stage.models = [*stage.models, late]
    page.click("#right-model input")
    expect(page.locator("ul[role=listbox]")).to_contain_text("late@1 · being verified")
    stage.models = [*stage.models[:-1], adapter("late@1", 300)]
    expect(page.locator("ul[role=listbox]")).to_contain_text("late@1 · active")
    page.locator("ul[role=listbox] li", has_text="late@1").click()
    expect(page.locator("#right-model input")).to_have_value("late@1 · active")


def test_the_newest_adapter_is_picked_whatever_its_name(browser: Browser, stage: Stage, url: str) -> None:
    ages = {"ancient@1": 100, "new@2": 300, "new@1": 200}
    stage.models = [*stage.models[:1], *(adapter(name, seconds) for name, seconds in ages.items())]
    context = browser.new_context()
    visitor = context.new_page()
    visitor.goto(url, wait_until="domcontentloaded")
    expect(visitor.locator("#right-model input")).to_have_value("new@2 · active")
    context.close()


def test_an_empty_question_is_refused_at_the_page(page: Page, stage: Stage) -> None:
    page.click("button#send")
    expect(page.locator(".toast-body")).to_contain_text("Type a question first.")
    assert stage.asked == []


def test_a_phone_shows_both_sides_without_scrolling_sideways(
    browser: Browser, stage: Stage, url: str
) -> None:
    for name in (BASE, ADAPTER):
        stage.parts[name] = Part(before=["ok"])
        stage.parts[name].gate.set()
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True, has_touch=True
    )
    phone = context.new_page()
    phone.goto(url, wait_until="domcontentloaded")
    phone.wait_for_function("document.querySelector('#right-model input')?.value.includes('@1')")
    ask(phone, "Hello?")
    for side in ("left", "right"):
        expect(phone.locator(f"#{side}-chat")).to_contain_text("ok")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    expect(phone.locator("#question textarea")).to_be_in_viewport()
    context.close()


def test_the_page_asks_nothing_of_any_other_host(browser: Browser, stage: Stage, url: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2].split(":")[0]))
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_selector("#question textarea")
    context.close()
    assert hosts == {"127.0.0.1"}
