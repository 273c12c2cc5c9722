"""What the page says of plans, files, jobs and answers, word by word; no browser is needed for that."""

from hotlora.v1 import planning_service_pb2 as pb
from hotlora.v1.chat_service_pb2 import FINISH_REASON_STOP, ChatResponse
from hotlora.v1.dataset_service_pb2 import Dataset, DatasetReport, LabelCount
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_LORA, Metrics, SettingWarning, TuningJob
from ui.answers import figures
from ui.cards import cards
from ui.findings import findings
from ui.plan_html import plan_html

GIB = 1 << 30


def test_a_plan_tells_each_term_of_memory_each_default_with_its_reason_and_what_the_primer_says() -> None:
    plan = pb.TechniquePlan(
        technique=TECHNIQUE_LORA,
        total_bytes=2 * GIB,
        seconds=754,
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
    assert "<td>13 min</td>" in shown
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


def test_a_running_job_tells_its_speed_and_what_is_left_of_its_time() -> None:
    metrics = Metrics(step=5, total_steps=10, loss=1.5, tokens_per_second=200, eta_seconds=65)
    shown = cards([TuningJob(state=TuningJob.STATE_RUNNING, latest_metrics=metrics)], {})
    assert "step 5 of 10 · loss 1.500 · 200 tok/s · 1 min 5 s left" in shown


def test_the_speed_of_an_answer_leaves_out_the_time_to_its_first_token() -> None:
    last = ChatResponse(
        model="support@1",
        completion_tokens=2,
        finish_reason=FINISH_REASON_STOP,
        time_to_first_token_seconds=0.25,
        elapsed_seconds=0.45,
    )
    assert figures(last) == "`support@1` · first token 0.25 s · 5.0 tok/s · 2 tokens"
