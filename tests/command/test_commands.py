"""Each command against a service: what a person reads, what a program gets, how it ends."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier

import pytest

from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.chat_service_pb2 import ChatRequest, ChatResponse
from hotlora.v1.resources_pb2 import Failure
from hotlora.v1.tuning_service_pb2 import (
    OBJECTIVE_PREFERENCE,
    OBJECTIVE_UNSPECIFIED,
    SCHEDULE_LINEAR,
    TECHNIQUE_PROMPT_TUNING,
    TECHNIQUE_QLORA,
    Fit,
    StateChange,
    TuningEvent,
    TuningJob,
)
from tests.command.conftest import GOOD_ROW, Hotlora
from tests.command.service import State, course


def test_training_ends_when_the_new_version_is_active(state: State, hotlora: Hotlora, rows: Path) -> None:
    version = state.versions["adapters/triage/versions/1"]
    state.version_course = course(
        version, AdapterVersion.STATE_PENDING, AdapterVersion.STATE_VERIFYING, AdapterVersion.STATE_ACTIVE
    )

    followed = hotlora("train", str(rows), "--adapter", "triage")

    assert followed.code == 0
    assert "loss 0.5000" in followed.out
    assert "SUCCEEDED" in followed.out
    assert "triage@1 is VERIFYING" in followed.out
    assert "0.0100 nats from the trained adapter (at most 0.0500)" in followed.out


def test_training_passes_every_setting_on_and_leaves_the_rest_to_the_service(
    state: State, hotlora: Hotlora, rows: Path
) -> None:
    hotlora(
        *("train", str(rows), "--adapter", "a", "--no-watch", "--technique", "qlora", "--rank", "8"),
        *("--learning-rate", "nan", "--schedule", "linear", "--target-module", "q_proj"),
        *("--target-module", "v_proj", "--max-grad-norm", "0"),
    )

    (request,) = state.created
    settings = request.hyperparameters
    assert request.technique == TECHNIQUE_QLORA
    assert (settings.rank, settings.schedule, list(settings.target_modules)) == (
        8,
        SCHEDULE_LINEAR,
        ["q_proj", "v_proj"],
    )
    assert settings.learning_rate != settings.learning_rate
    assert settings.HasField("max_grad_norm")
    assert not settings.HasField("epochs")
    assert request.request_id


def test_training_passes_the_settings_of_techniques_and_objectives_on(
    state: State, hotlora: Hotlora, rows: Path
) -> None:
    train = ("train", str(rows), "--adapter", "a", "--no-watch")
    hotlora(
        *train,
        *("--technique", "prompt-tuning", "--virtual-tokens", "8"),
        *("--initial-prompt", "Sort it"),
    )
    hotlora(*train, "--rslora", "--target-module", "all-linear")
    hotlora(*train, "--objective", "preference", "--dpo-beta", "0.3")

    prompt, low_rank, preference = state.created
    assert (preference.objective, preference.hyperparameters.dpo_beta) == (OBJECTIVE_PREFERENCE, 0.3)
    assert prompt.objective == OBJECTIVE_UNSPECIFIED
    assert prompt.technique == TECHNIQUE_PROMPT_TUNING
    assert (prompt.hyperparameters.virtual_tokens, prompt.hyperparameters.initial_prompt) == (8, "Sort it")
    assert not prompt.hyperparameters.HasField("use_rslora")
    assert low_rank.hyperparameters.use_rslora
    assert list(low_rank.hyperparameters.target_modules) == ["all-linear"]


def test_the_same_file_is_uploaded_once_and_another_file_is_another_dataset(
    state: State, hotlora: Hotlora, rows: Path
) -> None:
    for _ in range(2):
        assert hotlora("train", str(rows), "--adapter", "a", "--no-watch").code == 0
    rows.write_bytes(GOOD_ROW)
    assert hotlora("train", str(rows), "--adapter", "a", "--no-watch").code == 0

    first, again, other = (request.dataset for request in state.created)
    assert first == again != other
    assert first.startswith("datasets/my-rows-")


def test_a_file_whose_dataset_was_deleted_gets_a_new_id(state: State, hotlora: Hotlora, rows: Path) -> None:
    hotlora("train", str(rows), "--adapter", "a", "--no-watch")
    hotlora("datasets", "delete", state.created[0].dataset)

    assert hotlora("train", str(rows), "--adapter", "a", "--no-watch").code == 0
    assert state.created[1].dataset == "datasets/made-up"


def test_training_on_a_dataset_that_is_there_uploads_nothing(
    state: State, hotlora: Hotlora, rows: Path
) -> None:
    hotlora("datasets", "upload", str(rows), "--id", "mine")

    assert hotlora("train", "datasets/mine", "--adapter", "a", "--no-watch").code == 0
    assert state.created[0].dataset == "datasets/mine"
    assert list(state.datasets) == ["datasets/mine"]


def test_training_that_ends_badly_says_why_and_ends_with_1(
    state: State, hotlora: Hotlora, rows: Path
) -> None:
    failure = Failure(reason="NAN_LOSS", message="The loss is not a number; lower the learning rate.")
    change = StateChange(state=TuningJob.STATE_FAILED, attempt=1, failure=failure)
    state.events = [TuningEvent(sequence=1, state_change=change)]

    run = hotlora("train", str(rows), "--adapter", "a")

    assert run.code == 1
    assert "NAN_LOSS: The loss is not a number; lower the learning rate." in run.out


def test_a_version_that_cannot_be_proven_ends_with_1_and_its_reason(state: State, hotlora: Hotlora) -> None:
    failure = Failure(reason="NO_EFFECT", message="The engine answers as the base does.")
    version = state.versions["adapters/triage/versions/1"]
    state.version_course = course(
        version, AdapterVersion.STATE_PENDING, AdapterVersion.STATE_FAILED, failure=failure
    )

    run = hotlora("adapters", "load", "triage@1")

    assert run.code == 1
    assert "NO_EFFECT: The engine answers as the base does." in run.out


def test_a_file_with_bad_lines_is_refused_line_by_line(hotlora_process: Hotlora, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD_ROW + b"{oops\n" + GOOD_ROW + b"\xff\xfe\n")

    run = hotlora_process("datasets", "upload", str(path))

    assert run.code == 2
    assert run.err.splitlines() == [
        "hotlora: The file is not a dataset.",
        "  line 2: is not JSON",
        "  line 4: is not JSON",
    ]
    assert run.out == ""


def test_jobs_are_listed_newest_first_over_several_pages(state: State, hotlora: Hotlora, rows: Path) -> None:
    for _ in range(4):
        hotlora("train", str(rows), "--adapter", "a", "--no-watch")

    table = hotlora("jobs").out.splitlines()
    document = json.loads(hotlora("jobs", "--json", "--limit", "3").out)

    assert [line.split()[0] for line in table] == ["JOB", "j5", "j4", "j3", "j2", "j0"]
    assert [job["name"] for job in document["tuningJobs"]] == [
        "tuningJobs/j5",
        "tuningJobs/j4",
        "tuningJobs/j3",
    ]


def test_jobs_can_be_picked_by_state(hotlora: Hotlora, rows: Path) -> None:
    hotlora("train", str(rows), "--adapter", "a", "--no-watch")

    assert "j0" in hotlora("jobs", "--state", "running").out
    assert "j2" not in hotlora("jobs", "--state", "running").out
    assert hotlora("jobs", "--state", "failed").out == "There are no jobs. Start one with `hotlora train`.\n"


def test_one_job_is_shown_with_what_it_makes(hotlora: Hotlora) -> None:
    shown = hotlora("jobs", "j0").out

    assert "RUNNING" in shown
    assert "triage@1" in shown


def test_a_watched_job_shows_milestones_losses_and_its_end(hotlora: Hotlora) -> None:
    run = hotlora("watch", "j0")

    assert run.code == 0
    words = run.out.splitlines()
    assert words[0] == "tuningJobs/j0 is RUNNING"
    assert "first forward pass" in words
    assert "step 4: loss 0.7500 on the 3 rows set aside" in words
    assert words[-1] == "SUCCEEDED"


def test_a_watch_that_is_cut_shows_every_event_once(state: State, hotlora_process: Hotlora) -> None:
    state.cuts_after = [3, 7]

    run = hotlora_process("watch", "tuningJobs/j0", "--json")

    sequences = [document["event"]["sequence"] for document in run.documents() if "event" in document]  # type: ignore[index]
    assert sequences == [str(number) for number in range(1, 10)]
    assert run.code == 0


def test_a_job_is_cancelled_and_a_finished_one_is_a_conflict(state: State, hotlora: Hotlora) -> None:
    assert hotlora("cancel", "j0").out == "j0 is CANCELLED.\n"
    state.jobs["tuningJobs/j0"].state = TuningJob.STATE_SUCCEEDED

    run = hotlora("cancel", "j0")

    assert run.code == 5
    assert run.err == ("hotlora: The job is SUCCEEDED; only QUEUED and RUNNING jobs can be cancelled.\n")


def test_a_job_is_paused_and_resumed(state: State, hotlora: Hotlora) -> None:
    assert hotlora("pause", "j0").out == "j0 is PAUSING.\n"
    (resumed,) = hotlora("resume", "tuningJobs/j0", "--json").documents()
    assert resumed["state"] == "STATE_QUEUED"


def test_the_verdict_is_shown_with_the_job_and_in_the_watch(state: State, hotlora: Hotlora) -> None:
    sentence = "Overfitting since step 2: evaluation loss rose."
    fit = Fit(verdict=Fit.VERDICT_OVERFITTING, step=4, since_step=2, best_step=2, sentence=sentence)
    state.jobs["tuningJobs/j0"].fit.CopyFrom(fit)
    state.jobs["tuningJobs/j0"].best_step = 2
    state.events.insert(0, TuningEvent(sequence=1, fit=fit))

    assert sentence in hotlora("jobs", "j0").out
    assert "OVERFITTING" in hotlora("jobs").out
    assert f"step 4: {sentence}" in hotlora("watch", "j0").out


def test_datasets_are_uploaded_listed_shown_and_deleted(hotlora: Hotlora, rows: Path) -> None:
    (uploaded,) = hotlora("datasets", "upload", str(rows), "--id", "mine", "--json").documents()
    listed = hotlora("datasets", "list").out
    shown = hotlora("datasets", "show", "mine").out
    (deleted,) = hotlora("datasets", "delete", "mine", "--json").documents()

    assert uploaded["name"] == "datasets/mine"
    assert uploaded["displayName"] == "My Rows.jsonl"
    assert listed.splitlines()[1].split()[:2] == ["mine", "3"]
    assert "sha256" in shown
    assert deleted == {"deleted": "datasets/mine"}
    assert hotlora("datasets", "show", "mine").code == 3
    assert hotlora("datasets", "upload", str(rows), "--id", "mine").code == 5


def test_a_preview_marks_what_is_trained_and_lets_nothing_steer_the_terminal(hotlora: Hotlora) -> None:
    shown = hotlora("datasets", "preview", "mine").out

    assert "line 1: 9 tokens, 4 of them trained" in shown
    assert "<user>hi</user>«hello[31m»" in shown


def test_adapters_and_versions_are_listed_and_shown(hotlora: Hotlora) -> None:
    assert hotlora("adapters", "list").out.splitlines()[1].split()[:3] == ["triage", "1", "1"]
    assert hotlora("adapters", "versions", "triage").out.splitlines()[1].split()[:3] == [
        "triage@1",
        "ACTIVE",
        "16",
    ]
    assert "active version  1" in hotlora("adapters", "show", "triage").out
    assert "0.0100 (at most 0.0500)" in hotlora("adapters", "show", "triage@1").out
    (document,) = hotlora("adapters", "show", "triage@1", "--json").documents()
    assert document["verification"]["adapterDifference"] == 0.01  # type: ignore[index]


def test_a_version_is_loaded_unloaded_and_its_adapter_deleted(state: State, hotlora: Hotlora) -> None:
    assert hotlora("adapters", "load", "triage@1").code == 0
    assert hotlora("adapters", "load", "triage@1", "--no-watch").out == "triage@1 is PENDING\n"
    assert hotlora("adapters", "unload", "triage@1").out == "triage@1 is RETIRING\n"
    assert hotlora("adapters", "delete", "triage").out == "adapters/triage is deleted.\n"
    assert hotlora("adapters", "show", "triage").code == 3
    assert not state.adapters


def test_loading_without_a_number_says_how_to_name_a_version(hotlora: Hotlora) -> None:
    run = hotlora("adapters", "load", "triage")

    assert run.code == 2
    assert run.err == "hotlora: 'triage' does not name a version; write it as triage@1.\n"


def test_a_question_is_answered_on_stdout_with_its_figures_on_stderr(state: State, hotlora: Hotlora) -> None:
    run = hotlora("chat", "triage", "--prompt", "Who?", "--system", "Be brief.", "--temperature", "0.5")

    assert run.out == "It is triage.\n"
    assert "3 tokens · first after 0.10 s · 10 tok/s" in run.err
    (request,) = state.chats
    assert [(turn.role, turn.content) for turn in request.messages] == [
        ("system", "Be brief."),
        ("user", "Who?"),
    ]
    assert request.temperature == 0.5
    assert not request.HasField("max_tokens")


def test_a_question_may_come_by_stdin_and_its_answer_as_json_lines(hotlora: Hotlora) -> None:
    run = hotlora("chat", "--json", stdin="Who?\n")

    documents = run.documents()
    assert "".join(str(document["delta"]) for document in documents) == "It is tiny-base."
    assert documents[-1]["finishReason"] == "FINISH_REASON_STOP"


def test_nothing_to_ask_is_a_bad_argument(hotlora: Hotlora) -> None:
    run = hotlora("chat", stdin="")

    assert run.code == 2
    assert run.err == "hotlora: There is nothing to ask; give --prompt TEXT or text on stdin.\n"


def test_an_engine_that_is_starting_is_unavailable_with_the_time_to_wait(hotlora: Hotlora) -> None:
    run = hotlora("chat", "loading", "--prompt", "Who?")

    assert run.code == 4
    assert run.err == "hotlora: The engine is starting.\n  Try again in 8 s.\n"


def test_two_models_are_compared_and_one_may_be_left_out(hotlora: Hotlora) -> None:
    run = hotlora("compare", "triage", "--prompt", "Who?")

    assert run.code == 0
    assert "It is tiny-base." in run.out
    assert "It is triage." in run.out


def test_both_sides_are_asked_at_the_same_time(state: State, hotlora: Hotlora) -> None:
    together = Barrier(2)

    def answer(request: ChatRequest) -> Iterator[ChatResponse]:
        together.wait(timeout=20)
        yield ChatResponse(delta=f"from {request.model}", model=request.model, completion_tokens=1)

    state.answer = answer

    run = hotlora("compare", "one", "two", "--prompt", "Who?")

    assert run.code == 0
    assert "from one" in run.out
    assert "from two" in run.out


def test_a_side_that_fails_does_not_silence_the_other(hotlora: Hotlora) -> None:
    run = hotlora("compare", "loading", "triage", "--prompt", "Who?", "--json")

    documents = run.documents()
    left = [document for document in documents if document["side"] == "left"]
    right = [document for document in documents if document["side"] == "right"]
    assert left[-1]["error"]["reason"] == "ENGINE_STARTING"  # type: ignore[index]
    assert "".join(str(document["delta"]) for document in right) == "It is triage."
    assert run.code == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("jobs", "nope"), 3),
        (("watch", "nope"), 3),
        (("datasets", "delete", "nope"), 3),
        (("adapters", "show", "nope@3"), 3),
        (("adapters", "versions"), 2),
        (("train", "nowhere.jsonl", "--adapter", "a"), 2),
        (("datasets", "upload", "nowhere.jsonl"), 2),
        (("jobs", "--limit", "0"), 2),
        (("chat", "--seed", str(2**31), "--prompt", "x"), 2),
    ],
)
def test_what_goes_wrong_has_its_own_exit_code_and_no_traceback(
    hotlora: Hotlora, arguments: tuple[str, ...], code: int
) -> None:
    run = hotlora(*arguments)

    assert run.code == code
    assert run.err
    assert "Traceback" not in run.err + run.out


def test_errors_are_one_json_document_for_programs(hotlora: Hotlora, rows: Path) -> None:
    run = hotlora("train", str(rows), "--adapter", "../etc", "--rank", "1000000000", "--json")

    error = json.loads(run.err)["error"]
    assert run.code == 2
    assert error["code"] == "InvalidArgument"
    assert [one["field"] for one in error["violations"]] == ["adapter_id", "hyperparameters.rank"]


def test_an_argument_that_is_no_text_is_refused_by_its_place(hotlora_process: Hotlora) -> None:
    run = hotlora_process("jobs", "\udcff")

    assert run.code == 2
    assert run.err == "hotlora: argument 2 is not UTF-8 text.\n"
