"""The Reports tab: whether a training helped, for each adapter version that was compared with its base."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from hotlora.aio import AsyncClient
from hotlora.errors import HotloraError
from ui.listening import keep_up, still_there
from ui.report_html import NO_REPORTS, report_html, title

REFRESH_SECONDS = 2.0
MAX_REPORTS = 50


def reports_tab(client: Callable[[], AsyncClient]) -> None:
    """Lay out the tab and wire it. `client` gives what belongs to the running event loop."""
    picker = gr.Dropdown(choices=[], label="Report", elem_id="evaluation", interactive=True, filterable=False)
    panel = gr.HTML(NO_REPORTS, elem_id="report")
    seen = gr.State(None)
    events = [picker.input, gr.Timer(REFRESH_SECONDS).tick]
    keep_up(events, _refresh(client), [picker, seen], [picker, panel, seen])


def _refresh(client: Callable[[], AsyncClient]) -> Callable[..., Any]:
    async def refresh(chosen: object, before: object) -> Any:
        try:
            found = list((await client().list_evaluations(page_size=MAX_REPORTS)).evaluations)
            value = still_there(chosen, [one.name for one in found])
            shown = NO_REPORTS if value is None else report_html(await client().get_evaluation(value))
        except HotloraError:
            return gr.skip(), gr.skip(), before
        choices = [(title(one), one.name) for one in found]
        now = (choices, value, shown)
        if now == before:
            return gr.skip(), gr.skip(), gr.skip()
        return gr.Dropdown(choices=choices, value=value), shown, now

    return refresh
