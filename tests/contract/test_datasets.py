"""DatasetService, over the wire, with everything that an upload may bring."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from hotlora.v1 import dataset_service_pb2 as pb
from hotlora.v1 import resources_pb2 as resources_pb
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from service.datasets import UploadLimits
from tests.contract.stage import (
    GOOD_LINE,
    Refusal,
    Stage,
    datasets_grpc,
    parts,
    refusal_of,
    refused,
    running,
    small,
    until,
)
from tests.malformed import CASES, LIMITS, lines
from trainer.config import Task
from trainer.inspection import Wish
from trainer.records import Record, iter_records, read_file

CONVERSATION = (
    b'{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, '
    b'{"role": "assistant", "content": "Yes?", "weight": 0}, {"role": "user", "content": "Bye"}, '
    b'{"role": "assistant", "content": "Bye."}]}\n'
)


def header(dataset_id: str = "rows") -> pb.UploadDatasetRequest:
    return pb.UploadDatasetRequest(header=pb.UploadHeader(dataset_id=dataset_id))


def blocking_refusal(stage: Stage, messages: Iterator[pb.UploadDatasetRequest]) -> Refusal:
    """How an upload by a caller that uses threads was refused."""
    with grpc.insecure_channel(f"127.0.0.1:{stage.server.port}") as channel:
        call = datasets_grpc.DatasetServiceStub(channel).UploadDataset.future(messages)
        return refusal_of(call.exception())


def asked(content: bytes, wish: Wish, **fields: object) -> Iterator[pb.UploadDatasetRequest]:
    """The messages of an upload with wishes."""
    fields = {
        "format": f"FORMAT_{wish.reading.format.upper()}" if wish.reading.format else None,
        "mapping": dict(wish.reading.mapping),
        "task": f"TASK_{wish.task.upper()}" if wish.task else None,
        **fields,
    }
    yield pb.UploadDatasetRequest(header=pb.UploadHeader(dataset_id="rows", **fields))
    for begin in range(0, len(content), 65_536):
        yield pb.UploadDatasetRequest(chunk=content[begin : begin + 65_536])


async def assert_nothing_was_left(stage: Stage, dataset_id: str = "rows") -> None:
    assert stage.files() == []
    assert not await stage.registry.dataset_id_taken(dataset_id)


async def test_an_uploaded_file_is_kept_in_one_form_line_by_line_and_counted(stage: Stage) -> None:
    content = GOOD_LINE * 3 + b"\r\n" + CONVERSATION
    dataset = await stage.upload(content, chunk_bytes=7)
    assert dataset.name == "datasets/rows"
    assert (dataset.size_bytes, dataset.rows) == (len(content), 4)
    assert dataset.sha256 == hashlib.sha256(content).hexdigest()
    assert dataset.tokens > dataset.longest_row_tokens > 0
    assert dataset.kind == pb.Dataset.KIND_CONVERSATIONS
    assert dataset.task == resources_pb.TASK_UNSPECIFIED
    kept = read_file(stage.home / "datasets" / "rows.jsonl")
    assert kept == [record for record in iter_records([content]) if isinstance(record, Record)]
    assert [record.line for record in kept] == [1, 2, 3, 5]
    assert stage.files() == ["rows.jsonl"]
    assert await stage.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/rows")) == dataset


async def test_without_an_id_one_is_made(stage: Stage) -> None:
    assert (await stage.upload(GOOD_LINE, "")).name == "datasets/dataset-1"


async def test_a_malformed_file_is_refused_by_its_place_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, upload_limits=UploadLimits(records=LIMITS)) as stage:
        for case in CASES:
            refusal = await refused(stage.send(asked(case.content(), case.wish)))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_LINES"), (
                case.name
            )
            assert f"{case.place}: {case.reason}. " in refusal.message, case.name
            await assert_nothing_was_left(stage)


async def test_a_bad_line_is_named(stage: Stage) -> None:
    refusal = await refused(stage.upload(GOOD_LINE + b"{oops}\n" + GOOD_LINE))
    assert list(refusal.violations) == ["line 2"]
    assert "JSON" in refusal.violations["line 2"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        bytes(range(256)) * 8,
        '{"prompt": "a", "completion": "b"}\n'.encode("utf-16"),
        b"[" * 100_000 + b"]" * 100_000 + b"\n",
        b'{"prompt": "a", "completion": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}\n",
        b"x" * (3 << 20),
        b"\x1f\x8b\x08\x00" + bytes(100),
        b'{"prompt": "a", "completion": "b", "lr": 1e999}\n',
    ],
    ids=["empty", "blank", "binary", "utf-16", "deep list", "deep object", "long line", "gzip", "infinite"],
)
async def test_what_is_no_training_data_is_refused(stage: Stage, content: bytes) -> None:
    refusal = await refused(stage.upload(content, chunk_bytes=1 << 20))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    await assert_nothing_was_left(stage)


async def test_the_first_twenty_problems_are_told_and_the_rest_is_not_waited_for(stage: Stage) -> None:
    sent_bytes = 0

    def endless() -> Iterator[pb.UploadDatasetRequest]:
        nonlocal sent_bytes
        yield header()
        yield pb.UploadDatasetRequest(chunk=GOOD_LINE + b"oops\n" * 25)
        while True:
            sent_bytes += 1 << 20
            yield pb.UploadDatasetRequest(chunk=(GOOD_LINE * 25_000)[: 1 << 20])

    # A blocking caller, as one on grpc.aio loses the status of a call that it is still sending.
    refusal = await asyncio.to_thread(blocking_refusal, stage, endless())
    assert [*refusal.violations][:19] == [f"line {line}" for line in range(2, 21)]
    assert refusal.trailer_bytes < 5_000
    assert sent_bytes < 512 << 20, "the refusal did not stop the caller"
    await assert_nothing_was_left(stage)


async def test_one_bad_line_early_is_told_to_an_upload_that_never_ends(stage: Stage) -> None:
    def endless() -> Iterator[pb.UploadDatasetRequest]:
        yield header()
        yield pb.UploadDatasetRequest(chunk=GOOD_LINE + b"oops\n")
        while True:
            yield pb.UploadDatasetRequest(chunk=GOOD_LINE * 100)

    assert list((await refused(stage.send(endless()))).violations) == ["line 2"]


async def test_a_bad_line_is_told_even_if_the_caller_then_says_nothing_more(stage: Stage) -> None:
    call = stage.datasets.UploadDataset()
    await call.write(header())
    await call.write(pb.UploadDatasetRequest(chunk=b"oops\n"))
    async with asyncio.timeout(1):
        assert list((await refused(call)).violations) == ["line 1"]
    await assert_nothing_was_left(stage)


async def test_a_used_id_is_refused_before_the_data_is_sent(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    call = stage.datasets.UploadDataset()
    await call.write(header())
    async with asyncio.timeout(1):
        refusal = await refused(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DATASET_ID_USED")
    assert len(read_file(stage.home / "datasets" / "rows.jsonl")) == 1


async def test_an_id_stays_used_after_its_dataset_is_deleted(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.datasets.DeleteDataset(pb.DeleteDatasetRequest(name="datasets/rows"))
    assert stage.files() == []
    assert (await refused(stage.upload(GOOD_LINE))).reason == "DATASET_ID_USED"
    missing = await refused(stage.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/rows")))
    assert missing.code is grpc.StatusCode.NOT_FOUND


async def test_of_two_uploads_under_one_id_at_the_same_time_one_is_refused(stage: Stage) -> None:
    slow = stage.datasets.UploadDataset()
    await slow.write(header())
    await slow.write(pb.UploadDatasetRequest(chunk=GOOD_LINE))
    await until(lambda: "rows.part" in stage.files())
    assert (await refused(stage.upload(b"{}"))).reason == "DATASET_ID_USED"
    await slow.done_writing()
    assert (await slow).rows == 1


async def test_a_cancelled_upload_leaves_nothing_and_its_id_stays_free(stage: Stage) -> None:
    call = stage.datasets.UploadDataset()
    await call.write(header())
    await call.write(pb.UploadDatasetRequest(chunk=GOOD_LINE * 1000))
    await until(lambda: "rows.part" in stage.files())
    call.cancel()
    async with asyncio.timeout(5):
        await until(lambda: not stage.files())
    await assert_nothing_was_left(stage)
    assert (await stage.upload(GOOD_LINE)).rows == 1


async def test_an_upload_cancelled_at_any_moment_is_there_whole_or_not_at_all(stage: Stage) -> None:
    for number in range(40):
        call = stage.datasets.UploadDataset(parts(GOOD_LINE * 50, f"rows-{number}"))
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(call.code()), number / 1000)
        call.cancel()
    await stage.server.drain()
    page = await stage.registry.list_datasets(limit=1000)
    assert stage.files() == sorted(f"{row.id}.jsonl" for row in page.rows)
    assert all(row.rows == 50 for row in page.rows)


async def test_an_id_that_is_taken_while_its_file_arrives_is_refused_at_the_end(stage: Stage) -> None:
    await stage.upload(GOOD_LINE, "other")
    call = stage.datasets.UploadDataset()
    await call.write(header())
    await call.write(pb.UploadDatasetRequest(chunk=GOOD_LINE))
    await until(lambda: "rows.part" in stage.files())
    await stage.registry.create_dataset(replace(await stage.registry.get_dataset("other"), id="rows"))
    await call.done_writing()
    assert (await refused(call)).reason == "DATASET_ID_USED"
    assert stage.files() == ["other.jsonl"]


async def test_a_file_above_the_limit_is_refused_as_too_large(tmp_path: Path) -> None:
    limits = small(max_file_bytes=1000)
    async with running(tmp_path, upload_limits=limits) as stage:
        assert (await stage.upload(GOOD_LINE * 23, "fits")).size_bytes == 23 * len(GOOD_LINE) <= 1000
        refusal = await refused(stage.upload(GOOD_LINE * 24))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "FILE_TOO_LARGE")
        assert stage.files() == ["fits.jsonl"]


async def test_a_file_with_too_many_rows_is_refused_by_the_row(tmp_path: Path) -> None:
    async with running(tmp_path, upload_limits=small(max_rows=5)) as stage:
        assert (await stage.upload(GOOD_LINE * 5, "fits")).rows == 5
        assert list((await refused(stage.upload(GOOD_LINE * 6))).violations) == ["line 6"]


@pytest.mark.parametrize("begun", [[], [header()], [header(), pb.UploadDatasetRequest(chunk=GOOD_LINE)]])
async def test_an_upload_that_stalls_is_ended(tmp_path: Path, begun: list[pb.UploadDatasetRequest]) -> None:
    limits = replace(UploadLimits(), idle_seconds=0.1)
    async with running(tmp_path, upload_limits=limits) as stage:
        call = stage.datasets.UploadDataset()
        for part in begun:
            await call.write(part)
        async with asyncio.timeout(5):
            refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_STALLED")
        await assert_nothing_was_left(stage)


async def test_an_upload_that_never_ends_is_ended(tmp_path: Path) -> None:
    def trickle() -> Iterator[pb.UploadDatasetRequest]:
        yield header()
        while True:
            yield pb.UploadDatasetRequest(chunk=b"\n")

    limits = replace(UploadLimits(), total_seconds=0.2)
    async with running(tmp_path, upload_limits=limits) as stage:
        refusal = await refused(stage.send(trickle()))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_TOO_LONG")
        await assert_nothing_was_left(stage)


async def test_one_upload_too_many_at_once_is_told_to_wait(tmp_path: Path) -> None:
    limits = replace(UploadLimits(), uploads_at_once=1)
    async with running(tmp_path, upload_limits=limits) as stage:
        first = stage.datasets.UploadDataset()
        await first.write(header("first"))
        await first.write(pb.UploadDatasetRequest(chunk=GOOD_LINE))
        await until(lambda: "first.part" in stage.files())
        refusal = await refused(stage.upload(GOOD_LINE, "second"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_UPLOADS")
        assert refusal.retry_seconds
        first.cancel()


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [pb.UploadDatasetRequest(chunk=GOOD_LINE)],
        [header(), header()],
        [header(), pb.UploadDatasetRequest(chunk=GOOD_LINE), header("other")],
    ],
    ids=["nothing", "no header", "two headers", "a header after data"],
)
async def test_an_upload_is_one_header_and_then_chunks(
    stage: Stage, messages: list[pb.UploadDatasetRequest]
) -> None:
    refusal = await refused(stage.send(iter(messages)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["header"]
    await assert_nothing_was_left(stage)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.UploadDatasetRequest(), "part"),
        (pb.UploadDatasetRequest(chunk=b""), "chunk"),
        (pb.UploadDatasetRequest(chunk=b"x" * ((1 << 20) + 1)), "chunk"),
    ],
    ids=["empty", "empty chunk", "large chunk"],
)
async def test_a_bad_message_in_the_middle_of_an_upload_is_named(
    stage: Stage, message: pb.UploadDatasetRequest, field: str
) -> None:
    stream = iter([header(), pb.UploadDatasetRequest(chunk=GOOD_LINE), message])
    refusal = await refused(stage.send(stream))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [field]
    await assert_nothing_was_left(stage)


@pytest.mark.parametrize(
    "dataset_id", ["../x", "/etc/passwd", "a\0b", "a\n", "A", "-a", "a" * 64, "\u0430bc", "."]
)
async def test_an_id_that_could_be_a_path_is_refused(stage: Stage, dataset_id: str) -> None:
    refusal = await refused(stage.upload(GOOD_LINE, dataset_id))
    assert list(refusal.violations) == ["header.dataset_id"]
    assert stage.files() == []


async def test_a_file_that_says_that_it_is_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with running(tmp_path, upload_limits=small(max_file_bytes=100)) as stage:
        call = stage.datasets.UploadDataset()
        await call.write(pb.UploadDatasetRequest(header=pb.UploadHeader(size_bytes=101)))
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "FILE_TOO_LARGE")
        assert refusal.message.startswith("header.size_bytes: the file has 101 bytes")


async def test_a_list_has_the_figures_of_each_report_and_none_of_its_rows_and_labels(stage: Stage) -> None:
    header = pb.UploadHeader(
        dataset_id="rows", bad_rows=pb.BAD_ROWS_DROP, task=resources_pb.TASK_CLASSIFICATION
    )
    whole = await stage.datasets.UploadDataset(
        iter(
            [
                pb.UploadDatasetRequest(header=header),
                pb.UploadDatasetRequest(chunk=GOOD_LINE * 2 + b"oops\n"),
            ]
        )
    )
    (listed,) = (await stage.datasets.ListDatasets(pb.ListDatasetsRequest())).datasets
    assert (listed.report.rows_dropped, listed.report.duplicates) == (1, 1)
    assert whole.labels
    for name in ("problems", "reasons", "duplicate_rows", "labels"):
        assert getattr(whole.report, name)
        assert not getattr(listed.report, name)
        whole.report.ClearField(name)
    whole.report.ClearField("leaked_rows")
    whole.ClearField("labels")
    assert listed == whole, "all else is there"


async def test_datasets_are_listed_newest_first_in_pages(stage: Stage) -> None:
    for number in range(3):
        await stage.upload(GOOD_LINE, f"rows-{number}")
    first = await stage.datasets.ListDatasets(pb.ListDatasetsRequest(page_size=2))
    rest = await stage.datasets.ListDatasets(
        pb.ListDatasetsRequest(page_size=2, page_token=first.next_page_token)
    )
    names = [dataset.name for dataset in [*first.datasets, *rest.datasets]]
    assert names == ["datasets/rows-2", "datasets/rows-1", "datasets/rows-0"]
    assert rest.next_page_token == ""


async def test_a_dataset_that_a_waiting_job_needs_is_not_deleted(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    job = await stage.job()
    request = pb.DeleteDatasetRequest(name="datasets/rows")
    refusal = await refused(stage.datasets.DeleteDataset(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DATASET_IN_USE")
    assert stage.files() == ["rows.jsonl"]
    await stage.tuning.CancelTuningJob(tuning_pb.CancelTuningJobRequest(name=job.name))
    await stage.datasets.DeleteDataset(request)
    assert stage.files() == []


async def test_a_preview_shows_what_the_model_sees_and_what_is_trained(stage: Stage) -> None:
    await stage.upload(GOOD_LINE + b"\n" + CONVERSATION)
    preview = await stage.datasets.PreviewDataset(pb.PreviewDatasetRequest(name="datasets/rows"))
    first, second = preview.rows
    assert (first.line, second.line) == (1, 3)
    assert [(turn.role, turn.content) for turn in first.messages] == [
        ("user", "hello"),
        ("assistant", "world"),
    ]
    assert [(segment.text, segment.trained) for segment in first.segments] == [
        ("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", False),
        ("world<|im_end|>", True),
        ("\n", False),
    ]
    assert first.trained_tokens == len("world") + 1
    assert first.tokens > first.trained_tokens
    assert [segment.text for segment in second.segments if segment.trained] == ["Bye.<|im_end|>"]


async def test_bad_rows_are_left_out_and_reported_where_that_is_asked_for(stage: Stage) -> None:
    content = GOOD_LINE + b"oops\n" + GOOD_LINE
    dataset = await stage.datasets.UploadDataset(asked(content, Wish(), bad_rows=pb.BAD_ROWS_DROP))
    report = dataset.report
    assert (dataset.rows, report.rows_kept, report.rows_dropped) == (2, 2, 1)
    assert [(problem.place, problem.reason) for problem in report.problems] == [
        ("line 2", "not JSON: expecting value at column 1")
    ]
    assert [(row.line, row.first_line) for row in report.duplicate_rows] == [(3, 1)]
    assert await stage.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/rows")) == dataset


@pytest.mark.parametrize("content", [b"oops\n", b"oops\n" * 30, GOOD_LINE + b"\n" + b"[" * 9])
async def test_a_file_without_a_good_row_is_refused_even_where_bad_rows_are_left_out(
    stage: Stage, content: bytes
) -> None:
    content = content.removeprefix(GOOD_LINE)
    refusal = await refused(stage.send(asked(content, Wish(), bad_rows=pb.BAD_ROWS_DROP)))
    assert refusal.reason == "BAD_LINES"
    assert refusal.violations
    await assert_nothing_was_left(stage)


async def test_a_file_that_is_only_looked_at_is_reported_and_not_kept(stage: Stage) -> None:
    content = GOOD_LINE * 5 + b"oops\n"
    dataset = await stage.datasets.UploadDataset(asked(content, Wish(), validate_only=True))
    assert (dataset.name, dataset.rows, dataset.kind) == ("", 5, pb.Dataset.KIND_CONVERSATIONS)
    assert (dataset.report.rows_dropped, dataset.report.duplicates) == (1, 4)
    assert dataset.report.tokens == dataset.tokens > dataset.report.trained_tokens > 0
    assert [row.line for row in dataset.report.preview] == [1, 2, 3]
    await assert_nothing_was_left(stage)


async def test_a_dataset_of_labels_tells_them(stage: Stage) -> None:
    content = lines("bug", "billing", "bug")
    dataset = await stage.datasets.UploadDataset(asked(content, Wish(task=Task.CLASSIFICATION)))
    assert list(dataset.labels) == ["billing", "bug"]
    assert [(each.label, each.rows) for each in dataset.report.labels] == [("bug", 2), ("billing", 1)]


@pytest.mark.parametrize("key", ["role", "", "x" * 300])
async def test_a_mapping_to_no_known_key_is_refused(stage: Stage, key: str) -> None:
    header = pb.UploadHeader(dataset_id="rows", mapping={key: "question"})
    refusal = await refused(stage.send(iter([pb.UploadDatasetRequest(header=header)])))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert all(field.startswith("header.mapping") for field in refusal.violations)


TEXT_LINE = b'{"text": "The shop is open until six."}\n'
PREFERENCE_LINE = b'{"prompt": "Open?", "chosen": "Yes.", "rejected": "No idea."}\n'


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (GOOD_LINE, pb.Dataset.KIND_CONVERSATIONS),
        (TEXT_LINE, pb.Dataset.KIND_TEXT),
        (PREFERENCE_LINE, pb.Dataset.KIND_PREFERENCES),
    ],
)
async def test_a_file_is_of_the_kind_of_its_rows(stage: Stage, content: bytes, kind: pb.Dataset.Kind) -> None:
    dataset = await stage.upload(content * 2)
    assert (dataset.kind, dataset.rows) == (kind, 2)
    assert await stage.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/rows")) == dataset


async def test_a_file_with_rows_of_two_kinds_is_refused_by_the_line(stage: Stage) -> None:
    refusal = await refused(stage.upload(b"\n" + TEXT_LINE + GOOD_LINE))
    assert refusal.violations == {
        "line 3": "the row is a conversation, but line 2 is a text. "
        "Put rows of different kinds into files of their own."
    }
    await assert_nothing_was_left(stage)


async def test_a_dataset_keeps_the_task_that_its_uploader_named(stage: Stage) -> None:
    named = pb.UploadHeader(dataset_id="rows", task=resources_pb.TASK_CLASSIFICATION)
    messages = [pb.UploadDatasetRequest(header=named), pb.UploadDatasetRequest(chunk=GOOD_LINE)]
    dataset = await stage.datasets.UploadDataset(iter(messages))
    assert dataset.task == resources_pb.TASK_CLASSIFICATION
    assert await stage.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/rows")) == dataset


async def test_a_task_that_the_rows_cannot_have_is_refused(stage: Stage) -> None:
    named = pb.UploadHeader(dataset_id="rows", task=resources_pb.TASK_CLASSIFICATION)
    messages = [pb.UploadDatasetRequest(header=named), pb.UploadDatasetRequest(chunk=TEXT_LINE)]
    refusal = await refused(stage.send(iter(messages)))
    assert list(refusal.violations) == ["header.task"]
    await assert_nothing_was_left(stage)


async def test_a_preview_of_a_text_is_trained_but_for_its_first_token(stage: Stage) -> None:
    await stage.upload(TEXT_LINE)
    preview = await stage.datasets.PreviewDataset(pb.PreviewDatasetRequest(name="datasets/rows"))
    (row,) = preview.rows
    assert [(segment.text, segment.trained) for segment in row.segments] == [
        ("T", False),
        ("he shop is open until six.<|im_end|>", True),
    ]
    assert (row.trained_tokens, len(row.messages)) == (row.tokens - 1, 0)


async def test_a_preview_of_a_preference_shows_both_answers(stage: Stage) -> None:
    await stage.upload(PREFERENCE_LINE)
    preview = await stage.datasets.PreviewDataset(pb.PreviewDatasetRequest(name="datasets/rows"))
    (row,) = preview.rows
    assert [turn.content for turn in row.messages] == ["Open?", "Yes."]
    assert [segment.text for segment in row.segments if segment.trained] == ["Yes.<|im_end|>"]
    assert [segment.text for segment in row.rejected_segments if segment.trained] == ["No idea.<|im_end|>"]


@pytest.mark.parametrize(("asked", "shown"), [(0, 5), (1, 1), (7, 7), (100, 9)])
async def test_a_preview_has_as_many_rows_as_asked_for(stage: Stage, asked: int, shown: int) -> None:
    await stage.upload(GOOD_LINE * 9)
    request = pb.PreviewDatasetRequest(name="datasets/rows", max_rows=asked)
    assert len((await stage.datasets.PreviewDataset(request)).rows) == shown


async def test_a_preview_of_huge_rows_shows_fewer_but_fits_a_message(stage: Stage) -> None:
    line = b'{"text": "' + "ü".encode() * 200_000 + b'"}\n'
    await stage.upload(line * 4, chunk_bytes=1 << 20)
    request = pb.PreviewDatasetRequest(name="datasets/rows", max_rows=100)
    assert 1 <= len((await stage.datasets.PreviewDataset(request)).rows) < 4


@pytest.mark.parametrize("content", [None, b"other bytes\n"])
async def test_a_damaged_file_is_data_loss(stage: Stage, content: bytes | None) -> None:
    await stage.upload(GOOD_LINE)
    path = stage.home / "datasets" / "rows.jsonl"
    path.unlink() if content is None else path.write_bytes(content)
    refusal = await refused(stage.datasets.PreviewDataset(pb.PreviewDatasetRequest(name="datasets/rows")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "DATASET_DAMAGED")
    assert str(stage.home) not in refusal.message


async def test_a_restart_sweeps_what_a_killed_upload_left(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        await stage.upload(GOOD_LINE)
    directory = tmp_path / "datasets"
    (directory / "half.part").write_bytes(GOOD_LINE)
    (directory / "renamed-but-not-recorded.jsonl").write_bytes(GOOD_LINE)
    async with running(tmp_path) as stage:
        assert stage.files() == ["rows.jsonl"]
        assert (await stage.upload(GOOD_LINE, "half")).rows == 1


async def test_a_caller_on_asyncio_that_sends_more_after_a_bad_line_learns_which_line(stage: Stage) -> None:
    content = GOOD_LINE + b"oops\n" * 25 + GOOD_LINE * 500_000
    refusal = await refused(stage.upload(content, chunk_bytes=1 << 20))
    assert len(refusal.violations) == 20


async def test_an_upload_in_full_swing_holds_up_no_other_call(stage: Stage) -> None:
    upload = asyncio.create_task(stage.upload(CONVERSATION * 10_000, chunk_bytes=1 << 20))
    answered = 0
    while not upload.done():
        await stage.datasets.ListDatasets(pb.ListDatasetsRequest())
        answered += 1
    assert (await upload).rows == 10_000
    assert answered > 10
