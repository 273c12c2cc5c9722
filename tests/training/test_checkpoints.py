"""Checkpoints: whole or ignored."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainer.checkpoints import Checkpoints, Progress
from trainer.config import Hyperparameters
from trainer.optimization import apply_step, make_optimizer

Weights = dict[str, nn.Parameter]


def fresh() -> tuple[Weights, torch.optim.AdamW]:
    weights = {"a": nn.Parameter(torch.zeros(3, 2)), "b": nn.Parameter(torch.ones(4))}
    return weights, make_optimizer(list(weights.values()), Hyperparameters())


def move(weights: Weights, optimizer: torch.optim.AdamW, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in weights.values():
        weight.grad = torch.randn(weight.shape, generator=generator)
    apply_step(optimizer, list(weights.values()), rate=0.1, max_grad_norm=1.0)


def save_steps(directory: Path, steps: int) -> tuple[Checkpoints, Weights, torch.optim.AdamW]:
    checkpoints = Checkpoints(directory, "run")
    weights, optimizer = fresh()
    for step in range(1, steps + 1):
        move(weights, optimizer, step)
        checkpoints.save(Progress(step=step, tokens=10 * step, seconds=1.5 * step), weights, optimizer)
    return checkpoints, weights, optimizer


def test_a_resumed_optimizer_moves_exactly_as_the_one_that_went_on(tmp_path: Path) -> None:
    checkpoints, weights, optimizer = save_steps(tmp_path, 3)
    resumed, resumed_optimizer = fresh()
    progress = checkpoints.resume(resumed, resumed_optimizer)
    assert progress == Progress(step=3, tokens=30, seconds=4.5)
    for seed in (8, 9):
        move(weights, optimizer, seed)
        move(resumed, resumed_optimizer, seed)
    for name, weight in weights.items():
        assert torch.equal(weight, resumed[name])


def test_only_the_newest_two_stay_and_no_half_written_one(tmp_path: Path) -> None:
    save_steps(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize(
    "name", ["adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_ignored_for_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    checkpoints, _, _ = save_steps(tmp_path, 2)
    file = tmp_path / "step-00000002" / name
    content = file.read_bytes()
    match damage:
        case "flip":
            file.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "remove":
            file.unlink()
    progress = checkpoints.resume(*fresh())
    assert progress is not None
    assert progress.step == 1


def test_where_all_are_damaged_the_run_begins_anew(tmp_path: Path) -> None:
    checkpoints, _, _ = save_steps(tmp_path, 2)
    for file in tmp_path.glob("*/manifest.json"):
        file.write_text("{}")
    assert checkpoints.resume(*fresh()) is None


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    assert Checkpoints(tmp_path, "another run").resume(*fresh()) is None


def test_a_write_that_was_cut_off_leaves_nothing_that_counts(tmp_path: Path) -> None:
    checkpoints, weights, optimizer = save_steps(tmp_path, 1)
    half = tmp_path / ".writing-12345" / "content"
    half.mkdir(parents=True)
    (half / "adapter.safetensors").write_bytes(b"half")
    progress = checkpoints.resume(*fresh())
    assert progress is not None
    assert progress.step == 1
    checkpoints.save(Progress(step=2, tokens=0, seconds=0.0), weights, optimizer)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000001", "step-00000002"]
