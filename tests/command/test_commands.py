"""Each command against a service: what a person reads, what a program gets, how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hotlora.client import Client
from hotlora.v1.tuning_service_pb2 import TuningJob
from tests.command.conftest import ROOT, Hotlora, in_process, until
from tests.stage.service import Question, Stage
from tests.stage.trained import GOOD_ROW
from tests.stage.trained import train as trained

PAIR = b'{"prompt": "Open?", "chosen": "Yes.", "rejected": "No."}\n'


def created(run: Hotlora, *arguments: str) -> dict[str, object]:
    """The job that a training makes, which nobody follows."""
    (job,) = run("train", *arguments, "--no-watch", "--json").documents()
    return job


def short(job: dict[str, object]) -> str:
    """Its id."""
    return str(job["name"]).removeprefix("tuningJobs/")


def test_training_ends_when_the_new_version_is_active(hotlora: Hotlora, rows: Path, adapter: str) -> None:
    followed = hotlora("train", str(rows), "--adapter", adapter, "--eval-every-steps", "999")

    assert followed.code == 0
    assert "eval_every_steps: 999 is more than" in followed.out
    assert "loss 0.4000" in followed.out
    assert "SUCCEEDED" in followed.out
    assert f"{adapter}@1 is ACTIVE" in followed.out
    assert "0.0030 nats from the trained adapter (at most 0.0090)" in followed.out


def test_training_passes_every_setting_on_and_leaves_the_rest_to_the_service(
    hotlora: Hotlora, rows: Path, adapter: str
) -> None:
    job = created(
        hotlora,
        *(str(rows), "--adapter", adapter, "--technique", "qlora", "--rank", "8"),
        *("--learning-rate", "0.001", "--schedule", "linear", "--target-module", "q_proj"),
        *("--target-module", "v_proj", "--max-grad-norm", "0"),
    )

    assert job["technique"] == "TECHNIQUE_QLORA"
    assert job["requestId"]
    chosen = {
        "rank": 8,
        "learningRate": 0.001,
        "schedule": "SCHEDULE_LINEAR",
        "targetModules": ["q_proj", "v_proj"],
        "maxGradNorm": 0.0,
    }
    settings = job["hyperparameters"]
    assert isinstance(settings, dict)
    assert {name: settings[name] for name in chosen} == chosen
    assert settings["epochs"] == 3, "what the plan says for few rows"


def test_training_passes_the_settings_of_techniques_and_objectives_on(
    stage: Stage, hotlora: Hotlora, rows: Path, tmp_path: Path, adapter: str
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_bytes(PAIR * 3)
    # A trainer's double makes low-rank adapters alone: the others are cancelled before they make one.
    gate = stage.gate(adapter, step=1)
    prompt = created(
        hotlora,
        *(str(rows), "--adapter", adapter, "--technique", "prompt-tuning"),
        *("--virtual-tokens", "8", "--initial-prompt", "Sort it"),
    )
    low_rank = created(hotlora, str(rows), "--adapter", adapter, "--rslora", "--target-module", "all-linear")
    preference = created(
        hotlora, str(pairs), "--adapter", adapter, "--objective", "preference", "--dpo-beta", "0.3"
    )
    hotlora("cancel", short(prompt))
    gate.touch()

    assert (preference["objective"], prompt["objective"]) == ("OBJECTIVE_PREFERENCE", "OBJECTIVE_SUPERVISED")
    assert preference["hyperparameters"]["dpoBeta"] == 0.3  # type: ignore[index]
    assert prompt["technique"] == "TECHNIQUE_PROMPT_TUNING"
    assert prompt["hyperparameters"]["virtualTokens"] == 8  # type: ignore[index]
    assert prompt["hyperparameters"]["initialPrompt"] == "Sort it"  # type: ignore[index]
    assert low_rank["hyperparameters"]["useRslora"] is True  # type: ignore[index]
    assert low_rank["hyperparameters"]["targetModules"] == ["all-linear"]  # type: ignore[index]


def test_the_same_file_is_uploaded_once_and_another_file_is_another_dataset(
    hotlora: Hotlora, rows: Path, adapter: str
) -> None:
    first, again = (created(hotlora, str(rows), "--adapter", adapter)["dataset"] for _ in range(2))
    rows.write_bytes(GOOD_ROW * 2)
    other = created(hotlora, str(rows), "--adapter", adapter)["dataset"]

    assert first == again != other
    assert str(first).startswith("datasets/my-rows-")


def test_a_file_whose_dataset_was_deleted_gets_a_new_id(hotlora: Hotlora, rows: Path, adapter: str) -> None:
    rows.write_bytes(GOOD_ROW * 4)
    (uploaded,) = hotlora("datasets", "upload", str(rows), "--json").documents()
    hotlora("datasets", "delete", str(uploaded["name"]))

    job = created(hotlora, str(rows), "--adapter", adapter)

    assert str(uploaded["name"]).startswith("datasets/my-rows-")
    assert job["dataset"] != uploaded["name"]


def test_training_on_a_dataset_that_is_there_uploads_nothing(
    hotlora: Hotlora, rows: Path, adapter: str
) -> None:
    hotlora("datasets", "upload", str(rows), "--id", "mine")
    before = hotlora("datasets", "list", "--json").out

    assert created(hotlora, "datasets/mine", "--adapter", adapter)["dataset"] == "datasets/mine"
    assert hotlora("datasets", "list", "--json").out == before


def test_training_that_ends_badly_says_why_and_ends_with_1(
    stage: Stage, hotlora: Hotlora, rows: Path, adapter: str
) -> None:
    stage.plan(adapter, fail_at_step=2)

    run = hotlora("train", str(rows), "--adapter", adapter)

    assert run.code == 1
    assert "NAN_LOSS: The loss is not a number." in run.out


def test_a_version_that_cannot_be_proven_ends_with_1_and_its_reason(
    stage: Stage, hotlora: Hotlora, rows: Path, adapter: str
) -> None:
    stage.engine.faults.as_base.add(f"{adapter}@1")

    trained = hotlora("train", str(rows), "--adapter", adapter)
    loaded = hotlora("adapters", "load", f"{adapter}@1")

    for run in (trained, loaded):
        assert run.code == 1
        assert f"{adapter}@1 is FAILED: NO_EFFECT: the engine answers as the base does" in run.out


def test_a_file_with_bad_lines_is_refused_line_by_line(hotlora_process: Hotlora, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD_ROW + b"{oops\n" + GOOD_ROW + b"\xff\xfe\n")

    run = hotlora_process("datasets", "upload", str(path))

    assert run.code == 2
    sentence, *lines = run.err.splitlines()
    assert sentence.startswith("hotlora: ")
    assert [line.partition(":")[0] for line in lines] == ["  line 2", "  line 4"]
    assert "not JSON" in lines[0]
    assert "UTF-8" in lines[1]
    assert run.out == ""


def test_jobs_are_listed_newest_first(hotlora: Hotlora, rows: Path, adapter: str) -> None:
    jobs = [short(created(hotlora, str(rows), "--adapter", adapter)) for _ in range(3)]

    table = hotlora("jobs", "--adapter", adapter).out.splitlines()
    document = json.loads(hotlora("jobs", "--adapter", adapter, "--json", "--limit", "2").out)

    assert [line.split()[0] for line in table] == ["JOB", *reversed(jobs)]
    assert [short(job) for job in document["tuningJobs"]] == jobs[:0:-1]


def test_jobs_can_be_picked_by_state(stage: Stage, hotlora: Hotlora, rows: Path, adapter: str) -> None:
    gate = stage.gate(adapter)
    running, queued = (short(created(hotlora, str(rows), "--adapter", adapter)) for _ in range(2))
    with Client(stage.address) as client:
        until(client, f"tuningJobs/{running}", TuningJob.STATE_RUNNING)
    picked = hotlora("jobs", "--state", "running", "--adapter", adapter).out
    failed = hotlora("jobs", "--state", "failed", "--adapter", adapter).out
    gate.touch()

    assert running in picked
    assert queued not in picked
    assert failed == "There are no jobs. Start one with `hotlora train`.\n"


def test_one_job_is_shown_with_what_it_makes(hotlora: Hotlora, support: TuningJob) -> None:
    shown = hotlora("jobs", support.name).out

    assert "SUCCEEDED" in shown
    assert "support@1" in shown


def test_a_watched_job_shows_milestones_losses_and_its_end(hotlora: Hotlora, support: TuningJob) -> None:
    run = hotlora("watch", support.name)

    assert run.code == 0
    words = run.out.splitlines()
    assert words[0] == f"{support.name} is SUCCEEDED"
    assert "first forward pass" in words
    assert "step 4: loss 0.5000 on the 3 rows set aside" in words
    assert words[-1] == "SUCCEEDED"


def test_a_watch_that_is_cut_shows_every_event_once(
    stage: Stage, hotlora: Hotlora, rows: Path, adapter: str
) -> None:
    gate = stage.gate(adapter)
    job = short(created(hotlora, str(rows), "--adapter", adapter))
    with stage.proxy() as proxy:
        watch = subprocess.Popen(
            [sys.executable, "-m", "hotlora.command", "watch", job, "--json"],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "HOTLORA_ADDRESS": proxy.address},
        )
        assert watch.stdout is not None
        sequences: list[int] = []
        for line in watch.stdout:
            event = json.loads(line).get("event", {"sequence": 0})
            sequences.append(int(event["sequence"]))
            if "metrics" in event and event["metrics"]["step"] == 1:
                stage.run(proxy.cut_until_back())
                gate.touch()
        watch.stdout.close()

        assert watch.wait() == 0
    assert sequences == list(range(len(sequences)))


def test_a_job_is_cancelled_and_a_finished_one_is_a_conflict(
    stage: Stage, hotlora: Hotlora, rows: Path, adapter: str, support: TuningJob
) -> None:
    stage.gate(adapter)
    job = short(created(hotlora, str(rows), "--adapter", adapter))
    with Client(stage.address) as client:
        until(client, f"tuningJobs/{job}", TuningJob.STATE_RUNNING)
        assert hotlora("cancel", job).out == f"{job} is CANCELLING.\n"
        until(client, f"tuningJobs/{job}", TuningJob.STATE_CANCELLED)

    run = hotlora("cancel", support.name)

    assert run.code == 5
    assert "is SUCCEEDED" in run.err


def test_a_job_is_paused_and_resumed(stage: Stage, hotlora: Hotlora, rows: Path, adapter: str) -> None:
    gate = stage.gate(adapter)
    job = short(created(hotlora, str(rows), "--adapter", adapter))
    with Client(stage.address) as client:
        until(client, f"tuningJobs/{job}", TuningJob.STATE_RUNNING)
        assert hotlora("pause", job).out == f"{job} is PAUSING.\n"
        until(client, f"tuningJobs/{job}", TuningJob.STATE_PAUSED)
        gate.touch()
        (resumed,) = hotlora("resume", f"tuningJobs/{job}", "--json").documents()
        assert resumed["state"] == "STATE_QUEUED"
        until(client, f"tuningJobs/{job}", TuningJob.STATE_SUCCEEDED)


def test_the_verdict_is_shown_with_the_job_and_in_the_watch(hotlora: Hotlora, support: TuningJob) -> None:
    sentence = support.fit.sentence

    assert "evaluation loss" in sentence
    assert sentence in hotlora("jobs", support.name).out
    assert "UNDERFITTING" in hotlora("jobs", "--adapter", "support").out
    assert f"step 5: {sentence}" in hotlora("watch", support.name).out


def test_datasets_are_uploaded_listed_shown_and_deleted(hotlora: Hotlora, rows: Path) -> None:
    (uploaded,) = hotlora("datasets", "upload", str(rows), "--id", "short-lived", "--json").documents()
    listed = hotlora("datasets", "list").out
    shown = hotlora("datasets", "show", "short-lived").out
    (deleted,) = hotlora("datasets", "delete", "short-lived", "--json").documents()

    assert uploaded["name"] == "datasets/short-lived"
    assert uploaded["displayName"] == "My Rows.jsonl"
    assert listed.splitlines()[1].split()[:2] == ["short-lived", "3"]
    assert "sha256" in shown
    assert deleted == {"deleted": "datasets/short-lived"}
    assert hotlora("datasets", "show", "short-lived").code == 3
    assert hotlora("datasets", "upload", str(rows), "--id", "short-lived").code == 5


def test_a_preview_marks_what_is_trained_and_lets_nothing_steer_the_terminal(
    hotlora: Hotlora, tmp_path: Path
) -> None:
    path = tmp_path / "red.jsonl"
    path.write_text(json.dumps({"prompt": "hi", "completion": "hello\x1b[31m"}) + "\n")
    hotlora("datasets", "upload", str(path), "--id", "red")

    shown = hotlora("datasets", "preview", "red").out

    assert "line 1: " in shown
    assert "«hello[31m<|im_end|>»" in shown


def test_adapters_and_versions_are_listed_and_shown(hotlora: Hotlora, support: TuningJob) -> None:
    listed = [line.split()[:3] for line in hotlora("adapters", "list").out.splitlines()]
    assert ["support", "1", "1"] in listed
    versions = hotlora("adapters", "versions", "support").out.splitlines()
    assert versions[1].split()[:3] == ["support@1", "ACTIVE", str(support.hyperparameters.rank)]
    assert "active version  1" in hotlora("adapters", "show", "support").out
    assert "0.0030 (at most 0.0090)" in hotlora("adapters", "show", "support@1").out
    (document,) = hotlora("adapters", "show", "support@1", "--json").documents()
    assert document["verification"]["adapterDifference"] == pytest.approx(0.003)  # type: ignore[index]


@pytest.mark.usefixtures("support")
def test_engines_are_listed_with_what_they_rejected_and_why(
    stage: Stage, hotlora: Hotlora, rows: Path, adapter: str
) -> None:
    stage.engine.faults.as_base.add(f"{adapter}@1")
    hotlora("train", str(rows), "--adapter", adapter)

    heads, engine, _, *rejected = [line.split() for line in hotlora("engines").out.splitlines()]

    shown = dict(zip(["ENGINE", "BASE", *heads[3:]], engine, strict=True))
    assert (shown["ENGINE"], shown["STATE"], shown["SLOTS"]) == (stage.engine.url, "READY", "4")
    (reason,) = [line[2] for line in rejected if line[:2] == [f"{adapter}@1", stage.engine.url]]
    assert reason == "NO_EFFECT"
    (replica,) = json.loads(hotlora("engines", "--json").out)["replicas"]
    assert "support@1" in replica["models"]
    assert f"{adapter}@1" in [each["model"] for each in replica["rejections"]]


def test_a_version_is_loaded_unloaded_and_its_adapter_deleted(
    stage: Stage, hotlora: Hotlora, adapter: str
) -> None:
    trained(stage, adapter)
    version = f"{adapter}@1"

    assert hotlora("adapters", "unload", version).out == f"{version} is RETIRING\n"
    with Client(stage.address) as client:
        for _ in client.watch_adapter_version(f"adapters/{adapter}/versions/1"):
            pass
    assert hotlora("adapters", "load", version).code == 0
    assert hotlora("adapters", "load", version, "--no-watch").out.startswith(f"{version} is ACTIVE: ")
    assert hotlora("adapters", "delete", adapter).out == f"adapters/{adapter} is deleted.\n"
    assert hotlora("adapters", "show", adapter).code == 3


def test_loading_without_a_number_says_how_to_name_a_version(hotlora: Hotlora) -> None:
    run = hotlora("adapters", "load", "triage")

    assert run.code == 2
    assert run.err == "hotlora: 'triage' does not name a version; write it as triage@1.\n"


@pytest.mark.usefixtures("support")
def test_a_question_is_answered_on_stdout_with_its_figures_on_stderr(stage: Stage, hotlora: Hotlora) -> None:
    run = hotlora("chat", "support", "--prompt", "Who?", "--system", "Be brief.", "--temperature", "0.5")

    assert run.out == "It is support@1.\n"
    assert "support@1 · 3 tokens · first after 0.0" in run.err
    (question,) = stage.questions
    assert question.prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert question.fields["temperature"] == 0.5


def test_a_question_may_come_by_stdin_and_its_answer_as_json_lines(hotlora: Hotlora) -> None:
    run = hotlora("chat", "--json", stdin="Who?\n")

    documents = run.documents()
    assert "".join(str(document["delta"]) for document in documents) == "It is tiny-base."
    assert documents[-1]["finishReason"] == "FINISH_REASON_STOP"


def test_nothing_to_ask_is_a_bad_argument(hotlora: Hotlora) -> None:
    run = hotlora("chat", stdin="")

    assert run.code == 2
    assert run.err == "hotlora: There is nothing to ask; give --prompt TEXT or text on stdin.\n"


def test_an_engine_that_is_not_there_is_unavailable_with_the_time_to_wait(without_engine: Stage) -> None:
    run = in_process(without_engine.address)("chat", "--prompt", "Who?")

    assert run.code == 4
    assert without_engine.engine.url in run.err
    assert run.err.endswith("\n  Try again in 5 s.\n")


@pytest.mark.usefixtures("support")
def test_two_models_are_compared_and_one_may_be_left_out(hotlora: Hotlora) -> None:
    run = hotlora("compare", "support", "--prompt", "Who?")

    assert run.code == 0
    assert "It is tiny-base." in run.out
    assert "It is support@1." in run.out


@pytest.mark.usefixtures("support")
def test_both_sides_are_asked_at_the_same_time(stage: Stage, hotlora: Hotlora) -> None:
    stage.hold()

    def answer(question: Question) -> Sequence[str]:
        if len(stage.questions) == 2:
            stage.release()
        return ("from ", question.model)

    stage.answer = answer

    run = hotlora("compare", "tiny-base", "support", "--prompt", "Who?")

    assert run.code == 0
    assert "from tiny-base" in run.out
    assert "from support@1" in run.out


@pytest.mark.usefixtures("support")
def test_a_side_that_fails_does_not_silence_the_other(hotlora: Hotlora) -> None:
    run = hotlora("compare", "nobody", "support", "--prompt", "Who?", "--json")

    documents = run.documents()
    left = [document for document in documents if document["side"] == "left"]
    right = [document for document in documents if document["side"] == "right"]
    assert left[-1]["error"]["reason"] == "MODEL_NOT_FOUND"  # type: ignore[index]
    assert "".join(str(document["delta"]) for document in right) == "It is support@1."
    assert run.code == 3


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
