"""Preferences: the loss by its definition, the base as reference, and whole runs."""

import math
from pathlib import Path

import pytest
import torch

from tests.training.conftest import Bases, Jobs, Recorder
from tests.training.tiny import write_pairs
from trainer import events
from trainer.channel import Channel
from trainer.config import Hyperparameters, Objective, Technique
from trainer.events import FailureReason
from trainer.forward import RowLoss
from trainer.model import load_base
from trainer.rendering import Renderer
from trainer.rows import Pair, load_pairs
from trainer.run import run
from trainer.steps import Trainee, evaluate, train_step

CPU = torch.device("cpu")
QUIET = Channel(lambda line: None)


@pytest.fixture(scope="module")
def pairs_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


def pairs_of(base: Path, dataset: Path) -> list[Pair]:
    return load_pairs(dataset, Renderer.from_directory(base), max_length=512)


def trainee(base: Path, technique: Technique, **settings: object) -> Trainee:
    chosen = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "virtual_tokens": 4, **settings}
    hyperparameters = Hyperparameters(**chosen)  # type: ignore[arg-type]  # tests name fields freely
    return Trainee.of(load_base(base, torch.float32), hyperparameters, CPU, technique, Objective.PREFERENCE)


@pytest.mark.parametrize("technique", [Technique.LORA, Technique.PROMPT_TUNING, Technique.FULL])
def test_the_loss_is_that_of_the_paper_with_the_base_as_reference(
    base_of: Bases, pairs_path: Path, technique: Technique
) -> None:
    pairs = pairs_of(base_of("llama"), pairs_path)[:4]
    made = trainee(base_of("llama"), technique, dpo_beta=0.3)
    made.criterion.prepare([pairs], lambda: None)
    made.adapted.take_over()
    generator = torch.Generator().manual_seed(1)
    for weight in made.matrices.values():
        weight.data.add_(torch.randn(weight.shape, generator=generator), alpha=0.02)
    base = RowLoss(
        Trainee.of(load_base(base_of("llama"), torch.float32), Hyperparameters(rank=1), CPU).adapted,
        packed=True,
        device=CPU,
    )

    expected = []
    for pair in pairs:
        with torch.no_grad():
            chosen, rejected = (
                (base([row]) - made.row_loss([row])).item() for row in (pair.chosen, pair.rejected)
            )
        expected.append(0.3 * (chosen - rejected))
    found = evaluate(made, pairs, QUIET)
    rewards = made.criterion.take_rewards(training=False)

    assert found == pytest.approx(sum(math.log1p(math.exp(-one)) for one in expected) / 4, abs=1e-4)
    assert rewards is not None
    assert rewards.reward_margin == pytest.approx(sum(expected) / 4, abs=1e-4)
    assert rewards.reward_accuracy == sum(one > 0 for one in expected) / 4


def test_before_the_first_step_no_answer_is_preferred_to_the_other(base_of: Bases, pairs_path: Path) -> None:
    made = trainee(base_of("llama"), Technique.LORA, dropout=0.0)
    loss, _, _ = train_step(made, pairs_of(base_of("llama"), pairs_path)[:4], 0, 1e-3, QUIET)
    assert loss == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_pairs_in_many_passes_move_the_model_as_in_one(base_of: Bases, pairs_path: Path, family: str) -> None:
    pairs = pairs_of(base_of(family), pairs_path)[:6]
    moved = []
    for tokens_per_pass in (10_000, 150, 1):
        made = trainee(base_of(family), Technique.LORA)
        made = Trainee(**{**vars(made), "tokens_per_pass": tokens_per_pass})
        figures = [train_step(made, pairs, step, 1e-2, QUIET)[:2] for step in range(2)]
        moved.append((figures, [matrix.detach().clone() for matrix in made.matrices.values()]))
    for figures, matrices in moved[1:]:
        for found, expected in zip(figures, moved[0][0], strict=True):
            assert found == pytest.approx(expected, rel=1e-4)
        for matrix, first in zip(matrices, moved[0][1], strict=True):
            assert torch.allclose(matrix, first, atol=2e-4)


@pytest.mark.parametrize("technique", list(Technique))
def test_a_run_on_preferences_learns_them_and_says_how_well(
    make_job: Jobs, pairs_path: Path, technique: Technique
) -> None:
    recorder = Recorder()
    job = make_job(
        technique=technique,
        objective=Objective.PREFERENCE,
        dataset=pairs_path,
        max_steps=12,
        warmup_ratio=0.0,
        learning_rate={Technique.PROMPT_TUNING: 0.3, Technique.FULL: 3e-3}.get(technique, 2e-2),
        virtual_tokens=4,
    )
    assert run(job, recorder.channel, dtype=torch.float32) == 0, recorder.events
    metrics = recorder.of(events.Metrics)
    assert metrics[0].reward_margin is not None
    last = recorder.of(events.Evaluation)[-1]
    # Four virtual tokens in front of a random model move it less than anything inside it.
    assert last.eval_loss < (0.99 if technique is Technique.PROMPT_TUNING else 0.9) * math.log(2)
    assert last.reward_margin is not None
    assert last.reward_margin > 0
    assert metrics[-1].reward_accuracy is not None
    assert metrics[-1].reward_accuracy >= 0.5


def test_conversations_are_no_preferences(make_job: Jobs) -> None:
    recorder = Recorder()
    assert run(make_job(objective=Objective.PREFERENCE), recorder.channel, dtype=torch.float32) == 1
    last = recorder.events[-1]
    assert isinstance(last, events.Failed)
    assert last.reason is FailureReason.DATA_ERROR
    assert "line 1 is no preference" in last.message
