"""Checkpoints: whole or ignored."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainer.checkpoints import Checkpoints, Progress
from trainer.config import Hyperparameters
from trainer.curve import Curve
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


def save_with_best(directory: Path) -> tuple[Checkpoints, Weights]:
    """Checkpoints of steps 1 to 4, each calling step 2 the best; gives the weights of that step."""
    checkpoints = Checkpoints(directory, "run")
    weights, optimizer = fresh()
    best: Weights = {}
    for step in range(1, 5):
        move(weights, optimizer, step)
        if step in (1, 2):
            checkpoints.save_best(step, weights)
            best = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
        progress = Progress(step=step, tokens=0, seconds=0.0, best_step=min(step, 2))
        checkpoints.save(progress, weights, optimizer)
    return checkpoints, best


def test_the_best_state_comes_back_as_it_will_be_published(tmp_path: Path) -> None:
    checkpoints, best = save_with_best(tmp_path)
    weights, _ = fresh()
    checkpoints.restore_best(2, weights)
    for name, weight in weights.items():
        assert torch.equal(weight, best[name].to(torch.bfloat16).float())


def test_a_best_state_stays_for_as_long_as_a_checkpoint_calls_it_the_best(tmp_path: Path) -> None:
    checkpoints, _ = save_with_best(tmp_path)
    weights, optimizer = fresh()
    move(weights, optimizer, 1)
    checkpoints.save_best(5, weights)
    assert {path.name for path in tmp_path.glob("best-*")} == {"best-00000002", "best-00000005"}
    # Whoever is killed here goes on at step 4, to which step 2 was the best.
    progress = checkpoints.resume(*fresh())
    assert progress is not None
    assert (progress.step, progress.best_step) == (4, 2)
    for step in (5, 6):
        checkpoints.save(Progress(step=step, tokens=0, seconds=0.0, best_step=5), weights, optimizer)
    checkpoints.save_best(7, weights)
    assert {path.name for path in tmp_path.glob("best-*")} == {"best-00000005", "best-00000007"}


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_checkpoint_whose_best_state_is_damaged_is_ignored(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path, "run")
    weights, optimizer = fresh()
    for step in (1, 2):
        move(weights, optimizer, step)
        checkpoints.save_best(step, weights)
        checkpoints.save(Progress(step=step, tokens=0, seconds=0.0, best_step=step), weights, optimizer)
    file = tmp_path / "best-00000002" / "best.safetensors"
    if damage == "flip":
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.unlink()
    progress = checkpoints.resume(*fresh())
    assert progress is not None
    assert progress.step == 1


def test_the_loss_curve_comes_back_exactly(tmp_path: Path) -> None:
    curve = Curve()
    for loss in (2.5, 1.0 / 3.0):
        curve = curve.stepped(loss)
    curve = curve.evaluated(2, 0.1 + 0.2, 0.75).stepped(0.7)
    weights, optimizer = fresh()
    move(weights, optimizer, 1)
    checkpoints = Checkpoints(tmp_path, "run")
    saved = Progress(step=3, tokens=1, seconds=1.0, curve=curve)
    checkpoints.save(saved, weights, optimizer)
    assert checkpoints.resume(*fresh()) == saved
