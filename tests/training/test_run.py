"""A whole run in this process: what it says, what it publishes, and how it fails."""

import errno
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.training.conftest import Jobs, Recorder
from tests.training.tiny import write_pairs, write_rows
from trainer import events
from trainer.channel import Channel
from trainer.config import BaseModel, JobFile, Objective, Technique
from trainer.events import FailureReason
from trainer.failures import explain
from trainer.run import run

FAMILIES = ["llama", "qwen2", "gpt2", "bloom"]


def published(job: JobFile, recorder: Recorder) -> Path:
    """Run the job to its end and give the artifact's directory."""
    assert run(job, recorder.channel, dtype=torch.float32) == 0, recorder.events
    last = recorder.events[-1]
    assert isinstance(last, events.Published)
    return job.artifacts_path / last.digest


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_learns_and_tells_its_story_in_order(make_job: Jobs, family: str) -> None:
    recorder = Recorder()
    job = make_job(family, max_steps=12, warmup_ratio=0.25, learning_rate=2e-2)
    published(job, recorder)
    pulse = (events.Heartbeat, events.Working)  # which only a slow machine makes it say
    kinds = [event.kind for event in recorder.events if not isinstance(event, pulse)]
    assert kinds[:4] == ["loading", "first_forward", "first_step", "metrics"]
    assert kinds[-2:] == ["saving", "published"]
    assert [event.step for event in recorder.of(events.Metrics)] == list(range(1, 13))
    assert [event.step for event in recorder.of(events.Evaluation)] == [3, 6, 9, 12]
    assert [event.step for event in recorder.of(events.CheckpointSaved)] == [3, 6, 9]
    metrics = recorder.of(events.Metrics)
    assert recorder.of(events.Evaluation)[-1].eval_loss < 0.9 * metrics[0].loss
    rates = [event.learning_rate for event in metrics]
    assert rates[:4] == pytest.approx([5e-3, 1e-2, 1.5e-2, 2e-2]), "the warm-up, and the first step after it"
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[3:]))
    assert all(event.tokens_per_second > 0 for event in metrics)
    weights_bytes = (job.base_model.path / "model.safetensors").stat().st_size
    assert all(event.peak_memory_bytes > weights_bytes for event in metrics)
    assert all(event.eta_seconds > 0 for event in metrics[:-1])
    assert metrics[-1].eta_seconds == 0
    assert metrics[-1].tokens > metrics[0].tokens > 0
    assert recorder.of(events.Evaluation)[-1].rows == 2


@pytest.mark.parametrize("objective", list(Objective))
def test_a_run_says_that_it_lives_while_it_reads_a_dataset_however_long_that_takes(
    make_job: Jobs, tmp_path: Path, objective: Objective
) -> None:
    heard: list[events.TrainerEvent] = []
    ticks = itertools.count(step=11)  # every look at the clock finds more than a heartbeat's time gone
    channel = Channel(lambda line: heard.append(events.decode(line)), clock=lambda: float(next(ticks)))
    write = write_pairs if objective is Objective.PREFERENCE else write_rows
    job = make_job(objective=objective, dataset=write(tmp_path / "rows.jsonl", 30), max_steps=1)
    assert run(job, channel, dtype=torch.float32) == 0
    kinds = [event.kind for event in heard]
    assert kinds[: kinds.index("first_forward")].count("heartbeat") > 30


def test_the_same_job_twice_has_the_same_losses(make_job: Jobs) -> None:
    curves = []
    for job_id in ("one", "two"):
        recorder = Recorder()
        published(make_job(job_id=job_id, dropout=0.2), recorder)
        curves.append([event.loss for event in recorder.of(events.Metrics)])
    assert curves[0] == curves[1]


def test_another_seed_has_other_losses(make_job: Jobs) -> None:
    curves = []
    for seed in (1, 2):
        recorder = Recorder()
        published(make_job(job_id=f"seed-{seed}", seed=seed), recorder)
        curves.append([event.loss for event in recorder.of(events.Metrics)])
    assert curves[0] != curves[1]


@pytest.mark.parametrize("technique", list(Technique))
def test_an_artifact_is_whole_and_named_by_its_digest(make_job: Jobs, technique: Technique) -> None:
    job = make_job(technique=technique)
    directory = published(job, Recorder())
    content = (directory / "MANIFEST.json").read_bytes()
    manifest = json.loads(content)
    assert directory.name == hashlib.sha256(content).hexdigest()
    assert {file.name for file in directory.iterdir()} == {"MANIFEST.json", *manifest["files"]}
    expected = {"adapter_config.json", "adapter_model.safetensors"}
    if technique is Technique.FULL:
        expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
        expected.add("generation_config.json")
    assert set(manifest["files"]) == expected
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == entry["sha256"]
        assert (directory / name).stat().st_size == entry["size"]
    assert manifest["technique"] == technique
    assert manifest["rank"] == (4 if "lora" in technique else 0)
    assert manifest["base_model"] == {"name": "tiny-llama", "revision": "sha256:0"}
    assert list(job.artifacts_path.iterdir()) == [directory]


def test_the_adapter_lies_as_peft_and_engines_expect_it(make_job: Jobs) -> None:
    directory = published(make_job(), Recorder())
    tensors = load_file(directory / "adapter_model.safetensors")
    modules = ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"]
    for module in modules:
        for matrix in ("lora_A", "lora_B"):
            assert f"base_model.model.model.layers.1.{module}.{matrix}.weight" in tensors
    assert len(tensors) == 2 * 7 * 2
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    config = json.loads((directory / "adapter_config.json").read_bytes())
    assert config["r"] == 4
    assert config["peft_type"] == "LORA"
    assert "lm_head" not in config["target_modules"]
    assert config["base_model_name_or_path"] == "tiny-llama"


@pytest.mark.parametrize("technique", [Technique.LORA, Technique.QLORA])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_canary_is_what_plain_peft_measures(make_job: Jobs, family: str, technique: Technique) -> None:
    job = make_job(family, technique=technique)
    directory = published(job, Recorder())
    base = AutoModelForCausalLM.from_pretrained(job.base_model.path, dtype=torch.float32)
    sequences = json.loads((directory / "MANIFEST.json").read_bytes())["canary"]["sequences"]
    assert 3 <= len(sequences) <= 4
    base_logprobs = [logprobs(base, sequence["token_ids"]) for sequence in sequences]
    adapted = PeftModel.from_pretrained(base, directory)
    for sequence, expected in zip(sequences, base_logprobs, strict=True):
        assert len(sequence["token_ids"]) <= 64
        assert sequence["base_logprobs"] == pytest.approx(expected, abs=1e-4)
        assert sequence["adapter_logprobs"] == pytest.approx(
            logprobs(adapted, sequence["token_ids"]), abs=1e-4
        )
        assert sequence["adapter_logprobs"] != pytest.approx(expected, abs=1e-2)
        quantised = sequence["quantised_logprobs"]
        assert (quantised is None) == (technique is Technique.LORA)
        if quantised is not None:  # the same adapter on other weights: near, and not the same
            assert quantised == pytest.approx(sequence["adapter_logprobs"], abs=1.0)
            assert quantised != pytest.approx(sequence["adapter_logprobs"], abs=1e-3)


@torch.no_grad()
def logprobs(model: torch.nn.Module, token_ids: list[int]) -> list[float]:
    """Of each token but the first, as transformers' plain forward pass gives it."""
    logits = model(input_ids=torch.tensor([token_ids])).logits[0, :-1]
    found: list[float] = logits.log_softmax(-1).gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0].tolist()
    return found


def failure(job: JobFile) -> events.Failed:
    """Run a job that has to fail, and give its last word."""
    recorder = Recorder()
    assert run(job, recorder.channel, dtype=torch.float32) == 1
    last = recorder.events[-1]
    assert isinstance(last, events.Failed)
    assert not job.artifacts_path.exists()
    return last


def test_a_loss_that_is_not_finite_ends_the_job_with_a_reason(make_job: Jobs) -> None:
    failed = failure(make_job(learning_rate=1e30, max_grad_norm=0.0, max_steps=50, schedule="constant"))
    assert failed.reason is FailureReason.NAN_LOSS
    assert "lower the learning rate" in failed.message


def test_a_learning_rate_without_effect_publishes_nothing(make_job: Jobs) -> None:
    failed = failure(make_job(learning_rate=1e-60, max_steps=1))
    assert failed.reason is FailureReason.INTERNAL
    assert "changed nothing" in failed.message


def test_a_row_that_is_too_long_is_named(make_job: Jobs, tmp_path: Path) -> None:
    dataset = tmp_path / "long.jsonl"
    dataset.write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": "%s", "completion": "b"}\n' % ("a" * 200)
    )
    failed = failure(make_job(dataset=dataset, max_sequence_length=100))
    assert failed.reason is FailureReason.DATA_ERROR
    assert "line 2" in failed.message


def test_a_broken_line_is_named(make_job: Jobs, tmp_path: Path) -> None:
    dataset = tmp_path / "broken.jsonl"
    dataset.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    failed = failure(make_job(dataset=dataset))
    assert failed.reason is FailureReason.DATA_ERROR
    assert "line 2" in failed.message


def test_target_modules_that_the_base_has_not_are_named_with_those_it_has(make_job: Jobs) -> None:
    failed = failure(make_job(target_modules=("q_proj", "wishful")))
    assert failed.reason is FailureReason.BASE_MODEL_ERROR
    assert "wishful" in failed.message
    assert "down_proj" in failed.message


def test_a_base_that_is_not_there_is_an_error_of_the_base(make_job: Jobs, tmp_path: Path) -> None:
    job = make_job()
    base = BaseModel(name="gone", path=tmp_path / "gone", revision="sha256:0")
    assert failure(replace(job, base_model=base)).reason is FailureReason.BASE_MODEL_ERROR


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FailureReason.DISK_FULL),
        (MemoryError(), FailureReason.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureReason.OUT_OF_MEMORY),
        (ZeroDivisionError("secret detail"), FailureReason.INTERNAL),
    ],
)
def test_what_went_wrong_becomes_a_reason_and_no_detail_leaks(
    error: Exception, reason: FailureReason
) -> None:
    found, message = explain(error)
    assert found is reason
    assert str(error) == "" or str(error) not in message


def test_more_memory_than_there_is_is_told_as_that() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert explain(caught.value)[0] is FailureReason.OUT_OF_MEMORY


def test_a_run_that_is_asked_to_stop_ends_as_cancelled_and_publishes_nothing(make_job: Jobs) -> None:
    def stop(channel: Channel, event: events.TrainerEvent) -> None:
        if isinstance(event, events.FirstStep):
            channel._stop_wished = (
                True  # as ask_to_stop does, without its deadline, which would end this process
            )

    recorder = Recorder(stop)
    job = make_job()
    assert run(job, recorder.channel, dtype=torch.float32) == 3
    assert isinstance(recorder.events[-1], events.Cancelled)
    assert not job.artifacts_path.exists()
