"""Folded groups of fields on the page."""

from playwright.sync_api import Page, expect

_TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def unfold(page: Page, title: str) -> None:
    """Open a group, and wait until its fields keep what is put in.

    Gradio mounts a group's fields when it opens, and an animation frame later sets them all once more to what
    they were: faster than a person types, and slower than a test.
    """
    button = page.locator("button.label-wrap:visible", has_text=title)
    button.click()
    expect(page.locator(".block", has=button).last.locator("input, textarea").first).to_be_attached()
    page.evaluate(_TWO_FRAMES)
