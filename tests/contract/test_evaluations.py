"""EvaluationService, over the wire."""

import json
from dataclasses import replace

import grpc
import pytest

from hotlora.v1 import dataset_service_pb2 as datasets_pb
from hotlora.v1 import evaluation_service_pb2 as pb
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from hotlora.v1.resources_pb2 import TASK_CLASSIFICATION, TASK_GENERATION
from service.evaluation import Example, Figure, GeneralSkill, Kind, Report, Table
from service.registry import EvaluationRow
from tests.contract.stage import GOOD_LINE, Stage, refused
from tests.contract.test_adapters import VERSION, a_version, proven
from trainer.config import Task

REPORT = Report(
    summary="accuracy from 0.000 to 1.000 on 2 unseen rows (2 better, 0 worse).",
    task=Task.CLASSIFICATION,
    rows=2,
    held_out_rows=3,
    seen_rows=1,
    refused_rows=0,
    figures=(
        Figure(name="accuracy", base=0.0, adapter=1.0, constrained=True),
        Figure(name="perplexity", base=9.0, adapter=2.0, higher_is_better=False),
    ),
    tables=(Table(adapter=True, constrained=False, labels=("a", "b"), counts=((1, 0, 0), (0, 1, 0))),),
    wins=2,
    losses=0,
    ties=0,
    regressions=1,
    examples=(
        Example(
            kind=Kind.REGRESSION,
            line=0,
            prompt="Which?",
            expected="a",
            base_answer="a",
            adapter_answer="b",
            base_credit=1.0,
            adapter_credit=0.0,
        ),
    ),
    general_skill=GeneralSkill(items=32, base_right=20, adapter_right=19, forgotten=1),
    rows_digest="those",
)


async def created(stage: Stage, **fields: object) -> pb.AdapterEvaluation:
    return await stage.evaluations.CreateEvaluation(
        pb.CreateEvaluationRequest(**{"adapter_version": VERSION, **fields})
    )


async def upload(stage: Stage, dataset_id: str, content: bytes, task: int | None) -> None:
    header = datasets_pb.UploadHeader(dataset_id=dataset_id, task=task)
    messages = [
        datasets_pb.UploadDatasetRequest(header=header),
        datasets_pb.UploadDatasetRequest(chunk=content),
    ]
    await stage.datasets.UploadDataset(iter(messages))


async def got(stage: Stage, name: str) -> pb.AdapterEvaluation:
    return await stage.evaluations.GetEvaluation(pb.GetEvaluationRequest(name=name))


async def claimed(stage: Stage) -> EvaluationRow:
    row = await stage.registry.evaluations.claim("an evaluator")
    assert row is not None
    return row


async def test_an_evaluation_is_queued_and_names_what_it_compares(stage: Stage) -> None:
    await proven(stage, await a_version(stage))

    evaluation = await created(stage)

    assert evaluation.name == "evaluations/support-1"
    assert evaluation.state == pb.AdapterEvaluation.STATE_QUEUED
    assert (evaluation.adapter_version, evaluation.tuning_job) == (VERSION, "tuningJobs/job-1")
    assert (evaluation.dataset, evaluation.from_validation_split) == ("datasets/rows", True)
    assert not evaluation.HasField("report") and not evaluation.HasField("failure")
    assert await got(stage, evaluation.name) == evaluation
    job = await stage.tuning.GetTuningJob(tuning_pb.GetTuningJobRequest(name="tuningJobs/job-1"))
    assert job.evaluation == evaluation.name


async def test_a_finished_evaluation_carries_its_whole_report_and_a_list_the_figures_alone(
    stage: Stage,
) -> None:
    await proven(stage, await a_version(stage))
    name = (await created(stage)).name
    await stage.registry.evaluations.succeed(await claimed(stage), REPORT.encode())

    evaluation = await got(stage, name)

    report = evaluation.report
    assert evaluation.state == pb.AdapterEvaluation.STATE_SUCCEEDED
    assert (report.task, report.rows, report.seen_rows) == (TASK_CLASSIFICATION, 2, 1)
    assert [(each.name, each.base, each.adapter) for each in report.figures] == [
        ("accuracy", 0.0, 1.0), ("perplexity", 9.0, 2.0),
    ]  # fmt: skip
    assert [each.higher_is_better for each in report.figures] == [True, False]
    assert [list(row.counts) for row in report.confusion_tables[0].rows] == [[1, 0, 0], [0, 1, 0]]
    assert report.examples[0].kind == pb.ReportExample.KIND_REGRESSION
    assert report.general_skill.forgotten == 1
    listed = await stage.evaluations.ListEvaluations(pb.ListEvaluationsRequest(parent=VERSION))
    assert listed.evaluations[0].report.figures == report.figures
    assert not listed.evaluations[0].report.examples
    assert not listed.evaluations[0].report.confusion_tables


async def test_a_report_is_read_back_as_it_was_written() -> None:
    assert Report.decode(REPORT.encode()) == REPORT
    earlier = json.loads(REPORT.encode())
    del earlier["rows_digest"]
    assert Report.decode(json.dumps(earlier)) == replace(REPORT, rows_digest="")


async def test_a_failed_evaluation_says_why(stage: Stage) -> None:
    await proven(stage, await a_version(stage))
    name = (await created(stage)).name
    await stage.registry.evaluations.fail(await claimed(stage), "ENGINE_AWAY", "The engine was away.")

    failure = (await got(stage, name)).failure

    assert (failure.reason, failure.message) == ("ENGINE_AWAY", "The engine was away.")


async def test_a_watch_shows_each_change_and_ends_with_the_evaluation(stage: Stage) -> None:
    await proven(stage, await a_version(stage))
    watch = stage.evaluations.WatchEvaluation(pb.WatchEvaluationRequest(name=(await created(stage)).name))
    assert (await watch.read()).state == pb.AdapterEvaluation.STATE_QUEUED
    row = await claimed(stage)
    assert (await watch.read()).state == pb.AdapterEvaluation.STATE_RUNNING
    await stage.registry.evaluations.progress(row, 3, 10)
    assert (await watch.read()).done_answers == 3
    await stage.registry.evaluations.succeed(row, REPORT.encode())
    assert (await watch.read()).report.wins == 2
    assert await watch.read() is grpc.aio.EOF


async def test_the_same_request_gives_the_same_evaluation_and_another_is_refused(stage: Stage) -> None:
    await proven(stage, await a_version(stage))
    await stage.upload(GOOD_LINE, "others")

    first = await created(stage, request_id="one", dataset="datasets/others")
    second = await created(stage, request_id="one", dataset="datasets/others")
    refusal = await refused(created(stage, request_id="one"))

    assert first == second
    assert (first.dataset, first.from_validation_split) == ("datasets/others", False)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_USED")


async def test_only_an_active_version_can_be_evaluated(stage: Stage) -> None:
    await a_version(stage)

    refusal = await refused(created(stage))

    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.message == "support@1 is PENDING; to be evaluated it must be ACTIVE"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"adapter_version": "adapters/support/versions/7"}, "VERSION_NOT_FOUND"),
        ({"dataset": "datasets/nowhere"}, "DATASET_NOT_FOUND"),
    ],
)
async def test_what_does_not_exist_is_not_found(stage: Stage, fields: dict[str, str], reason: str) -> None:
    await proven(stage, await a_version(stage))

    refusal = await refused(created(stage, **fields))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, reason)


async def test_everything_that_is_wrong_with_a_request_is_told_at_once(stage: Stage) -> None:
    await a_version(stage)

    refusal = await refused(created(stage, request_id="no spaces", dataset="datasets/nowhere"))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"request_id", "adapter_version", "dataset"}
    assert "support@1 is PENDING" in refusal.violations["adapter_version"]
    both = await refused(created(stage, dataset="datasets/nowhere"))
    assert set(both.violations) == {"adapter_version", "dataset"}


async def test_an_unknown_evaluation_is_not_found(stage: Stage) -> None:
    refusal = await refused(got(stage, "evaluations/nobody-1"))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "EVALUATION_NOT_FOUND")


async def test_evaluations_are_listed_in_pages(stage: Stage) -> None:
    await proven(stage, await a_version(stage))
    for _ in range(3):
        await created(stage)

    first = await stage.evaluations.ListEvaluations(
        pb.ListEvaluationsRequest(page_size=2, parent="adapters/support")
    )
    rest = await stage.evaluations.ListEvaluations(
        pb.ListEvaluationsRequest(page_size=2, parent="adapters/support", page_token=first.next_page_token)
    )
    other = await stage.evaluations.ListEvaluations(pb.ListEvaluationsRequest(parent="adapters/other"))

    assert [one.name for one in (*first.evaluations, *rest.evaluations)] == [
        "evaluations/support-1.3", "evaluations/support-1.2", "evaluations/support-1",
    ]  # fmt: skip
    assert not other.evaluations


async def test_a_job_may_name_a_dataset_to_be_evaluated_on(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.upload(GOOD_LINE, "others")

    job = await stage.job(evaluation_dataset="datasets/others")
    missing = await refused(stage.job(evaluation_dataset="datasets/nowhere"))

    assert job.evaluation_dataset == "datasets/others"
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")


def labelled(*labels: str) -> bytes:
    rows = ({"prompt": f"about {index}", "completion": label} for index, label in enumerate(labels))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("content", "task", "words"),
    [
        (b'{"text": "hello world"}\n', None, ["holds text", "conversations"]),
        (labelled("right"), TASK_GENERATION, ["task generation", "classification"]),
        (
            labelled("Left", "right", "up", "down", "over"),
            TASK_CLASSIFICATION,
            ["does not teach: 'Left', 'down', 'over' and 1 more"],
        ),
    ],
)
async def test_a_job_is_refused_rows_to_be_evaluated_on_that_are_of_another_kind_task_or_label(
    stage: Stage, content: bytes, task: int | None, words: list[str]
) -> None:
    await upload(stage, "rows", labelled("left", "right"), TASK_CLASSIFICATION)
    await upload(stage, "alike", labelled("right"), TASK_CLASSIFICATION)
    await upload(stage, "others", content, task)

    await stage.job(evaluation_dataset="datasets/alike")
    refusal = await refused(stage.job(evaluation_dataset="datasets/others"))

    assert list(refusal.violations) == ["evaluation_dataset"]
    assert all(each in refusal.violations["evaluation_dataset"] for each in ["'others'", "'rows'", *words])


async def test_a_dataset_that_a_job_will_be_evaluated_on_cannot_be_deleted(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.upload(GOOD_LINE, "others")
    await stage.job(evaluation_dataset="datasets/others")

    refusal = await refused(
        stage.datasets.DeleteDataset(datasets_pb.DeleteDatasetRequest(name="datasets/others"))
    )

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DATASET_IN_USE")
