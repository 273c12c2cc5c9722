"""The plan panel of the Training tab, in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_FULL, TECHNIQUE_LORA
from tests.browser.stage import Stage

pytestmark = pytest.mark.browser
GIB = 1 << 30


def test_a_plan_for_the_chosen_file_shows_memory_time_and_advice(
    page: Page, stage: Stage, tmp_path: Path
) -> None:
    stage.plan = pb.PlanResponse(
        data=pb.DataDescription(rows=3, tokens=90),
        device=pb.Device(memory_bytes=24 * GIB, available_bytes=8 * GIB),
        techniques=[
            pb.TechniquePlan(technique=TECHNIQUE_LORA, total_bytes=2 * GIB, fits=True, seconds=754),
            pb.TechniquePlan(technique=TECHNIQUE_FULL, total_bytes=16 * GIB),
        ],
        recommendation=pb.Recommendation(
            technique=TECHNIQUE_LORA, fits=True, reasons=["3 rows are <b>few</b>"]
        ),
    )
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"messages": []}\n' * 3)

    page.get_by_role("tab", name="Training").click()
    page.set_input_files("#examples input[type=file]", str(examples))
    expect(page.locator("#examples")).to_contain_text("examples")
    page.get_by_text("Plan: what it will need").click()
    page.get_by_label("Measure this machine first").check()
    page.click("button#plan")

    planned = page.locator("#planned")
    expect(planned).to_contain_text("Recommended: LoRA")
    expect(planned.locator("tr.right")).to_have_text("LoRA2.0 GiByes13 min")
    expect(planned).to_contain_text("16.0 GiB")
    expect(planned).to_contain_text("3 rows are <b>few</b>")
    (request,) = stage.planned
    assert request.probe
    assert (request.data.rows, request.data.tokens, request.data.trained_share) == (
        3,
        90,
        pytest.approx(1 / 3),
    )
    assert stage.uploads == []
