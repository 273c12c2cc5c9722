"""The OpenAI API from file to answer, with the `openai` package and nothing changed but its base_url."""

import io
import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from hotlora.client import Client
from tests.stage.service import Stage
from tests.stage.trained import GOOD_ROW

BASE = "tiny-base"


@pytest.fixture
def ai(stage: Stage) -> Iterator[OpenAI]:
    with OpenAI(base_url=stage.gateway_url, api_key="none", max_retries=0) as client:
        yield client


def uploaded(ai: OpenAI, content: bytes = GOOD_ROW * 3) -> str:
    return ai.files.create(file=("rows.jsonl", content), purpose="fine-tune").id


def ended(ai: OpenAI, job_id: str) -> FineTuningJob:
    """Asked again and again, as callers of that API do."""
    while True:
        job = ai.fine_tuning.jobs.retrieve(job_id)
        if job.finished_at is not None:
            return job


def test_a_file_becomes_a_model_that_answers(ai: OpenAI, adapter: str) -> None:
    file = ai.files.create(file=("my rows.jsonl", GOOD_ROW * 3), purpose="fine-tune")
    assert (file.filename, file.bytes, file.status) == ("my rows.jsonl", len(GOOD_ROW) * 3, "processed")
    job = ai.fine_tuning.jobs.create(
        model=BASE,
        training_file=file.id,
        suffix=adapter,
        seed=7,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}},
        },
    )
    assert (job.model, job.training_file, job.seed) == (BASE, file.id, 7)
    assert job.hyperparameters.n_epochs == 2

    job = ended(ai, job.id)

    assert (job.status, job.fine_tuned_model, job.error) == ("succeeded", f"{adapter}@1", None)
    assert job.trained_tokens
    answer = ai.chat.completions.create(
        model=str(job.fine_tuned_model), messages=[{"role": "user", "content": "Who are you?"}]
    )
    assert answer.choices[0].message.content == f"It is {adapter}@1."
    (checkpoint,) = ai.fine_tuning.jobs.checkpoints.list(job.id).data
    assert checkpoint.fine_tuned_model_checkpoint == f"{adapter}@1"
    assert checkpoint.step_number > 0
    events = list(ai.fine_tuning.jobs.list_events(job.id, limit=3))
    assert events[0].message == "The job is succeeded" and events[-1].message == "The job is queued"
    assert len({event.id for event in events}) == len(events), "page by page, each once"
    metrics = [event.data for event in events if event.type == "metrics"]
    assert {"step", "train_loss"} <= dict(metrics[-1]).keys()  # type: ignore[call-overload]


def test_a_job_goes_on_from_a_version_and_its_learning_rate_is_a_multiple(
    ai: OpenAI, stage: Stage, adapter: str
) -> None:
    file_id = uploaded(ai)
    first = ai.fine_tuning.jobs.create(model=BASE, training_file=file_id, suffix=adapter)
    assert ended(ai, first.id).status == "succeeded"
    second = ai.fine_tuning.jobs.create(
        model=f"{adapter}@1",
        training_file=file_id,
        suffix=adapter,
        hyperparameters={"learning_rate_multiplier": 0.5},
    )
    with Client(stage.address) as client:
        jobs = [client.get_tuning_job(f"tuningJobs/{job.id}") for job in (first, second)]
    assert jobs[1].start_version == f"adapters/{adapter}/versions/1"
    assert jobs[1].hyperparameters.learning_rate == 0.5 * jobs[0].hyperparameters.learning_rate
    assert ended(ai, second.id).fine_tuned_model == f"{adapter}@2"


def test_a_job_is_paused_resumed_and_cancelled(ai: OpenAI, stage: Stage, adapter: str) -> None:
    stage.gate(adapter)
    job = ai.fine_tuning.jobs.create(model=BASE, training_file=uploaded(ai), suffix=adapter)
    ai.fine_tuning.jobs.pause(job.id)
    while ai.fine_tuning.jobs.retrieve(job.id).status != "paused":
        pass
    assert ai.fine_tuning.jobs.resume(job.id).status in ("queued", "running")
    ai.fine_tuning.jobs.cancel(job.id)
    job = ended(ai, job.id)
    assert (job.status, job.fine_tuned_model) == ("cancelled", None)
    listed = [each.id for each in ai.fine_tuning.jobs.list(limit=1)]
    assert listed[0] == job.id and len(set(listed)) == len(listed)


def test_a_version_that_cannot_be_proven_fails_its_job_with_the_reason(
    ai: OpenAI, stage: Stage, adapter: str
) -> None:
    stage.engine.faults.refused_loads = {f"{adapter}@1"}
    job = ai.fine_tuning.jobs.create(model=BASE, training_file=uploaded(ai), suffix=adapter)
    job = ended(ai, job.id)
    assert (job.status, job.fine_tuned_model) == ("failed", None)
    assert job.error is not None and job.error.code == "load_refused"
    for wish in (ai.fine_tuning.jobs.cancel, ai.fine_tuning.jobs.pause, ai.fine_tuning.jobs.resume):
        with pytest.raises(openai.ConflictError, match="SUCCEEDED"):
            wish(job.id)


def test_files_are_listed_read_and_deleted(ai: OpenAI) -> None:
    ids = [uploaded(ai, GOOD_ROW * (number + 1)) for number in range(3)]
    listed = [file.id for file in ai.files.list(limit=2)]
    assert listed[:3] == ids[::-1] and len(set(listed)) == len(listed)
    rows = ai.files.content(ids[1]).read().splitlines()
    assert [json.loads(row) for row in rows] == [json.loads(GOOD_ROW)] * 2
    assert ai.files.delete(ids[0]).deleted
    with pytest.raises(openai.NotFoundError, match="there is no dataset"):
        ai.files.retrieve(ids[0])


def test_a_bad_file_is_refused_by_its_line_and_leaves_nothing(ai: OpenAI) -> None:
    before = [file.id for file in ai.files.list()]
    with pytest.raises(openai.BadRequestError, match="line 4: the last line is cut off") as refused:
        uploaded(ai, GOOD_ROW * 3 + b"{")
    assert refused.value.code == "bad_lines"
    with pytest.raises(openai.BadRequestError, match="must be 'fine-tune'"):
        ai.files.create(file=("rows.jsonl", GOOD_ROW), purpose="assistants")
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        ai.files.create(
            file=("rows.jsonl", io.BytesIO(GOOD_ROW)),
            purpose="fine-tune",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
    assert [file.id for file in ai.files.list()] == before


def multipart(boundary: str) -> bytes:
    parts = [
        b'Content-Disposition: form-data; name="purpose"\r\n\r\nfine-tune',
        b'Content-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n' + GOOD_ROW * 3,
    ]
    mark = b"--" + boundary.encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


@pytest.mark.parametrize(
    ("header", "body", "status"),
    [
        (f"; boundary={'b' * 70}", multipart("b" * 70), 200),
        (f"; boundary={'b' * 71}", multipart("b" * 71), 400),
        ("", multipart("b"), 400),
        ("; boundary=other", multipart("b"), 400),
        ("; boundary=b", multipart("b")[:-20], 400),
        ("; boundary=b", b"", 400),
    ],
    ids=["longest", "too-long", "unnamed", "another", "cut-off", "empty"],
)
def test_a_form_is_read_by_the_boundary_that_its_header_names(
    ai: OpenAI, stage: Stage, header: str, body: bytes, status: int
) -> None:
    before = [file.id for file in ai.files.list()]
    told = {"Content-Type": f"multipart/form-data{header}"}
    answer = httpx.post(f"{stage.gateway_url}/files", headers=told, content=body)
    assert answer.status_code == status, answer.text
    if status == 200:
        ai.files.delete(answer.json()["id"])
    else:
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert [file.id for file in ai.files.list()] == before


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"suffix": "../etc"}, "suffix", "suffix"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "greater than or equal to 1"),
        ({"hyperparameters": {"batch_size": "many"}}, "hyperparameters.batch_size", "whole number"),
        ({"hyperparameters": {"rank": 8}}, "hyperparameters.rank", "is not supported"),
        ({"method": {"type": "reinforcement"}}, "method.type", "must be one of supervised, dpo"),
        ({"method": {"type": "dpo"}}, "method.type", "which holds conversations"),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "is not supported"),
        ({"metadata": {"a": "b"}}, "metadata", "is not supported"),
        ({"seed": 10**12}, "seed", "far outside"),
        ({"extra": 1}, "extra", "is not supported"),
        ({"model": 7}, "model", "a text was expected"),
    ],
)
def test_what_is_wrong_with_a_job_is_told_by_the_names_of_that_api(
    ai: OpenAI, adapter: str, fields: dict[str, object], param: str, message: str
) -> None:
    body = {"model": BASE, "training_file": uploaded(ai), "suffix": adapter, **fields}
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        ai.post("/fine_tuning/jobs", body=body, cast_to=object)
    assert refused.value.param == param


def test_half_of_a_surrogate_pair_is_no_name(stage: Stage) -> None:
    body = b'{"model": "any", "training_file": "\\ud800", "suffix": "\\udfff"}'
    answer = httpx.post(
        f"{stage.gateway_url}/fine_tuning/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "training_file")


def test_what_is_not_there_is_not_found(ai: OpenAI, adapter: str) -> None:
    with pytest.raises(openai.NotFoundError):
        ai.fine_tuning.jobs.create(model=BASE, training_file="nobody", suffix=adapter)
    with pytest.raises(openai.NotFoundError):
        ai.fine_tuning.jobs.create(model="nobody", training_file=uploaded(ai), suffix=adapter)
    jobs = ai.fine_tuning.jobs
    for call in (
        *(jobs.retrieve, jobs.list_events, jobs.checkpoints.list),
        *(jobs.cancel, jobs.pause, jobs.resume),
    ):
        with pytest.raises(openai.NotFoundError):
            call("nobody")
    with pytest.raises(openai.BadRequestError, match="limit"):
        ai.fine_tuning.jobs.list(limit=1000)
    with pytest.raises(openai.BadRequestError, match="after"):
        ai.fine_tuning.jobs.list(after="nobody")


@pytest.mark.parametrize("origin", ["https://stranger.example", "null", "http://127.0.0.1.stranger.example"])
def test_a_page_of_another_machine_may_neither_upload_nor_cancel(
    ai: OpenAI, stage: Stage, origin: str
) -> None:
    before = [file.id for file in ai.files.list()]
    files = {"purpose": (None, "fine-tune"), "file": ("rows.jsonl", GOOD_ROW * 3)}
    for path, sent in (("/files", {"files": files}), ("/fine_tuning/jobs/any/cancel", {})):
        answer = httpx.post(stage.gateway_url + path, headers={"Origin": origin}, **sent)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")
    assert [file.id for file in ai.files.list()] == before
    renamed = httpx.get(f"{stage.gateway_url}/files", headers={"Host": "stranger.example"})
    assert (renamed.status_code, renamed.json()["error"]["code"]) == (403, "wrong_host")
    local = httpx.get(f"{stage.gateway_url}/files", headers={"Origin": "http://localhost:7860"})
    assert local.status_code == 200
