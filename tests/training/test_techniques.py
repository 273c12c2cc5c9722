"""What each technique trains and publishes, against PEFT and plain transformers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.training.conftest import Bases, Jobs, Recorder
from trainer import events
from trainer.channel import Channel
from trainer.config import Hyperparameters, JobFile, Technique
from trainer.events import FailureReason
from trainer.forward import RowLoss
from trainer.model import load_base
from trainer.rendering import Renderer
from trainer.rows import Row, load_rows
from trainer.run import prepare, run
from trainer.steps import Trainee, train_step
from trainer.techniques import VirtualPrompt

CPU = torch.device("cpu")
QUIET = Channel(lambda line: None)
ROWS = [
    Row(token_ids=(5, 9, 200, 31, 7), trained=(False, False, False, True, True)),
    Row(token_ids=(7, 90, 2), trained=(False, True, True)),
    Row(token_ids=(11, 12, 13, 14, 15, 16, 17), trained=(False,) * 3 + (True,) * 4),
]


def prompt_settings(**settings: object) -> Hyperparameters:
    chosen = {"virtual_tokens": 5, "learning_rate": 1e-2, **settings}
    return Hyperparameters(**chosen)  # type: ignore[arg-type]  # tests name fields freely


def published(job: JobFile) -> Path:
    recorder = Recorder()
    assert run(job, recorder.channel, dtype=torch.float32) == 0, recorder.events
    last = recorder.events[-1]
    assert isinstance(last, events.Published)
    assert last.rank == (0 if job.technique in (Technique.PROMPT_TUNING, Technique.FULL) else 4)
    return job.artifacts_path / last.digest


@torch.no_grad()
def logprobs(model: torch.nn.Module, token_ids: list[int], virtual_tokens: int = 0) -> list[float]:
    """Of each token but the first, as a plain forward pass gives it."""
    logits = model(input_ids=torch.tensor([token_ids])).logits[0, virtual_tokens:-1]
    found: list[float] = logits.log_softmax(-1).gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0].tolist()
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_virtual_tokens_give_the_losses_and_gradients_of_peft(base_of: Bases, family: str) -> None:
    base = load_base(base_of(family), torch.float32)
    ours = Trainee.of(base, prompt_settings(), CPU, Technique.PROMPT_TUNING)
    (table,) = ours.matrices.values()
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5, prompt_tuning_init=PromptTuningInit.RANDOM
    )
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(base_of(family)), config)
    weight = theirs.prompt_encoder["default"].embedding.weight
    weight.data.copy_(table.data)
    expected = torch.zeros(())
    for row in ROWS:
        ids = torch.tensor([row.token_ids])
        logits = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 5:-1]
        picked = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        expected = expected - picked[torch.tensor(row.trained[1:])].sum()
    expected.backward()
    forms = [base.packs, False] if base.packs else [False]
    for packed in forms:
        if not packed:
            base.model.set_attn_implementation("sdpa" if family != "bloom" else "eager")
        table.grad = None
        loss = RowLoss(ours.adapted, packed=packed, device=CPU)(ROWS)
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
        assert table.grad is not None
        assert weight.grad is not None
        assert torch.allclose(table.grad, weight.grad, atol=1e-4)
        assert all(parameter.grad is None for parameter in base.model.parameters())


def test_virtual_tokens_begin_as_words_drawn_by_the_seed_or_as_a_text(base_of: Bases) -> None:
    base = load_base(base_of("llama"), torch.float32)
    words = base.model.get_input_embeddings()(torch.arange(base.model.config.vocab_size))

    def table(**settings: object) -> torch.Tensor:
        (weight,) = VirtualPrompt(base, prompt_settings(**settings), CPU).trained.values()
        return weight.detach()

    assert torch.equal(table(seed=3), table(seed=3))
    assert not torch.equal(table(seed=3), table(seed=4))
    assert all(bool((words == row).all(1).any()) for row in table(seed=3))
    ids = [Renderer.from_directory(base.path)._encode(text).ids[0] for text in "abab"]
    text = table(initial_prompt="ab", virtual_tokens=4)
    assert torch.equal(text, words[torch.tensor(ids)])
    assert torch.equal(text[:3], table(initial_prompt="abab and more", virtual_tokens=3))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_published_prompt_is_read_by_peft_and_its_canary_is_what_peft_measures(
    make_job: Jobs, family: str
) -> None:
    job = make_job(family, technique=Technique.PROMPT_TUNING, virtual_tokens=6, learning_rate=0.1)
    directory = published(job)
    tensors = load_file(directory / "adapter_model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"prompt_embeddings": (6, 32)}
    assert tensors["prompt_embeddings"].dtype is torch.bfloat16
    manifest = json.loads((directory / "MANIFEST.json").read_bytes())
    assert manifest["virtual_tokens"] == 6
    base = AutoModelForCausalLM.from_pretrained(job.base_model.path, dtype=torch.float32)
    sequences = manifest["canary"]["sequences"]
    before = [logprobs(base, sequence["token_ids"]) for sequence in sequences]
    adapted = PeftModel.from_pretrained(base, directory)
    for sequence, expected in zip(sequences, before, strict=True):
        assert sequence["base_logprobs"] == pytest.approx(expected, abs=1e-4)
        assert sequence["adapter_logprobs"] == pytest.approx(
            logprobs(adapted, sequence["token_ids"], virtual_tokens=6), abs=1e-4
        )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_fully_trained_model_is_published_whole_and_is_what_transformers_reads(
    make_job: Jobs, family: str
) -> None:
    job = make_job(family, technique=Technique.FULL, learning_rate=1e-2)
    directory = published(job)
    assert json.loads((directory / "config.json").read_bytes())["dtype"] == "bfloat16"
    weights = load_file(directory / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert (
        Renderer.from_directory(directory).contract()
        == Renderer.from_directory(job.base_model.path).contract()
    )
    base = AutoModelForCausalLM.from_pretrained(job.base_model.path, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    changed = [
        name
        for (name, weight), old in zip(model.named_parameters(), base.parameters(), strict=True)
        if not torch.equal(weight, old)
    ]
    assert len(changed) == len(list(model.parameters()))
    for sequence in json.loads((directory / "MANIFEST.json").read_bytes())["canary"]["sequences"]:
        ids = sequence["token_ids"]
        assert sequence["base_logprobs"] == pytest.approx(logprobs(base, ids), abs=1e-4)
        assert sequence["adapter_logprobs"] == pytest.approx(logprobs(model, ids), abs=1e-4)


def test_steps_too_small_for_16_bit_weights_add_up_in_their_32_bit_masters(
    base_of: Bases, rows_path: Path
) -> None:
    rows = load_rows(rows_path, Renderer.from_directory(base_of("llama")), max_length=512)[:4]
    settings = Hyperparameters(weight_decay=0.0)
    moved = []
    for dtype in (torch.bfloat16, torch.float32):
        made = Trainee.of(load_base(base_of("llama"), dtype), settings, CPU, Technique.FULL)
        start = {name: weight.detach().clone() for name, weight in made.matrices.items()}
        assert {weight.dtype for weight in start.values()} == {torch.float32}
        for step in range(5):
            train_step(made, rows, step, 2e-5, QUIET)
        moved.append({name: weight.detach() - start[name] for name, weight in made.matrices.items()})
        assert all(parameter.grad is None for parameter in made.model.parameters())
    for name, by_master in moved[0].items():
        assert by_master.abs().max() > 5e-5, name
    whole = torch.cat([weight.flatten() for weight in moved[0].values()])
    exact = torch.cat([weight.flatten() for weight in moved[1].values()])
    assert torch.nn.functional.cosine_similarity(whole, exact, dim=0) > 0.9


def test_rslora_scales_by_the_root_of_the_rank_and_says_so_to_the_engine(make_job: Jobs) -> None:
    job = make_job(use_rslora=True, target_modules=("all-linear",))
    directory = published(job)
    config = json.loads((directory / "adapter_config.json").read_bytes())
    assert config["use_rslora"] is True
    assert {"q_proj", "down_proj"} < set(config["target_modules"])
    base = AutoModelForCausalLM.from_pretrained(job.base_model.path, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, directory)
    layer = adapted.base_model.model.model.layers[0].mlp.up_proj
    assert layer.scaling["default"] == pytest.approx(8.0 / 2.0)  # alpha / sqrt(rank)
    for sequence in json.loads((directory / "MANIFEST.json").read_bytes())["canary"]["sequences"]:
        assert sequence["adapter_logprobs"] == pytest.approx(
            logprobs(adapted, sequence["token_ids"]), abs=1e-4
        )


@pytest.mark.parametrize("technique", [Technique.PROMPT_TUNING, Technique.FULL])
def test_training_that_changes_nothing_publishes_nothing(make_job: Jobs, technique: Technique) -> None:
    recorder = Recorder()
    job = make_job(technique=technique, learning_rate=1e-60, max_steps=1)
    assert run(job, recorder.channel, dtype=torch.float32) == 1
    last = recorder.events[-1]
    assert isinstance(last, events.Failed)
    assert "changed nothing" in last.message


def test_rows_need_room_for_the_virtual_tokens_in_the_bases_context(make_job: Jobs) -> None:
    job = make_job(technique=Technique.PROMPT_TUNING, virtual_tokens=500)
    recorder = Recorder()
    assert run(replace(job), recorder.channel, dtype=torch.float32) == 1
    last = recorder.events[-1]
    assert isinstance(last, events.Failed)
    assert "12 are accepted" in last.message


def test_the_base_in_4_bits_is_gone_before_the_whole_one_is_loaded_for_publication(
    make_job: Jobs, tmp_path: Path
) -> None:
    job = make_job(technique=Technique.QLORA)
    base = shutil.copytree(job.base_model.path, tmp_path / "base")
    job = replace(job, base_model=replace(job.base_model, path=base))
    prepared = prepare(base, torch.float32)
    at_first_step: list[str] = []

    def break_base(channel: Channel, event: events.TrainerEvent) -> None:
        if isinstance(event, events.FirstStep):
            at_first_step.extend(type(module).__name__ for module in prepared.base.model.modules())
            (base / "model.safetensors").unlink()

    recorder = Recorder(break_base)
    assert run(job, recorder.channel, prepared=prepared, dtype=torch.float32) == 1
    assert "Linear4bit" in at_first_step
    failed = recorder.events[-1]
    assert isinstance(failed, events.Failed)
    assert failed.reason is FailureReason.BASE_MODEL_ERROR
    assert [event.kind for event in recorder.of(events.Saving)] == ["saving"]
    assert not list(prepared.base.model.parameters())
