"""What every listener of the page has in common: it is no API, and its errors are toasts."""

import gradio as gr

PRIVATE = "private"
"""Visibility of listeners: Gradio would offer each as an endpoint to programs, which have the service."""


def toast(words: str, *, seconds: float = 15) -> gr.Error:
    """An error to be raised: plain words that go away by themselves, and nothing in the log."""
    return gr.Error(words, duration=seconds, print_exception=False)
