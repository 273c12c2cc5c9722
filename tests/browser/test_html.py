"""What the page says of plans and files, as the HTML that it is; no browser is needed for that."""

from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1.dataset_service_pb2 import Dataset, DatasetReport, LabelCount
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_LORA, SettingWarning, TuningJob
from ui.cards import cards
from ui.findings import findings
from ui.plan_html import plan_html

GIB = 1 << 30


def test_a_plan_tells_each_term_of_memory_each_default_with_its_reason_and_what_the_primer_says() -> None:
    plan = pb.TechniquePlan(
        technique=TECHNIQUE_LORA,
        total_bytes=2 * GIB,
        steps=1234,
        tokens=567890,
        memory=[
            pb.MemoryLine(part=pb.MEMORY_PART_WEIGHTS, bytes=GIB, explanation="2 bytes <each>"),
            pb.MemoryLine(part=pb.MEMORY_PART_OPTIMIZER, bytes=GIB // 2, explanation="two states"),
        ],
        reasons=[pb.SettingReason(field="learning_rate", value=2e-4, reason="usual for LoRA")],
        textbook=[
            pb.TextbookLine(
                part=pb.MEMORY_PART_GRADIENTS,
                bytes=3 * GIB,
                rule="2 bytes",
                printed_bytes=4 * GIB,
                real_bytes=5,
            )
        ],
    )
    shown = plan_html(pb.PlanResponse(techniques=[plan]))
    assert "1,234 steps, 567,890 tokens" in shown
    assert "<td>weights</td><td>1.00 GiB</td><td>2 bytes &lt;each&gt;</td>" in shown
    assert "<td>optimizer</td><td>0.50 GiB</td><td>two states</td>" in shown
    assert "<td>learning rate</td><td>0.0002</td><td>usual for LoRA</td>" in shown
    assert "<td>gradients</td><td>3.00 GiB</td><td>4.00 GiB</td><td>0.00 GiB</td><td>2 bytes</td>" in shown


def test_the_balance_of_labels_is_told_with_what_a_file_holds() -> None:
    labels = [LabelCount(label="<billing>", rows=1200), LabelCount(label="delivery", rows=3)]
    shown = findings(Dataset(report=DatasetReport(rows_kept=1203, labels=labels)))
    assert "Rows by label: &lt;billing&gt; 1,200, delivery 3</p>" in shown


def test_a_job_tells_what_will_have_less_effect_than_its_settings_say() -> None:
    job = TuningJob(
        name="tuningJobs/1",
        warnings=[
            SettingWarning(field="hyperparameters.batch_size", description="64 is above the run's <9> rows")
        ],
    )
    assert ">Batch size: 64 is above the run&#x27;s &lt;9&gt; rows</div>" in cards([job], {})
