"""The loss: exactly the assistant's tokens, whatever the batch looks like."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests.training.conftest import Bases
from tests.training.tiny import VOCABULARY
from trainer.batches import pack, pad, split_by_tokens
from trainer.channel import Channel
from trainer.config import Hyperparameters, Technique
from trainer.forward import RowLoss, cross_entropies
from trainer.model import Base, load_base
from trainer.rendering import Renderer
from trainer.rows import Row, StepOrder, load_rows, split_validation
from trainer.steps import Trainee, train_step

CPU = torch.device("cpu")
QUIET = Channel(lambda line: None)


def rows_of(base: Path, dataset: Path) -> list[Row]:
    return load_rows(dataset, Renderer.from_directory(base), max_length=512)


def trainee(base: Base, technique: Technique = Technique.LORA, **settings: object) -> Trainee:
    """A trainee whose adapter already does something, so that its gradients reach both matrices."""
    chosen = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "learning_rate": 1e-2, **settings}
    made = Trainee.of(base, Hyperparameters(**chosen), CPU, technique)  # type: ignore[arg-type]
    torch.manual_seed(1)
    for matrix in made.matrices.values():
        matrix.data.add_(torch.randn_like(matrix), alpha=0.05)
    return made


def test_only_the_assistants_words_and_the_end_of_its_turn_are_predicted(
    base_of: Bases, rows_path: Path
) -> None:
    base = base_of("llama")
    renderer = Renderer.from_directory(base)
    rows = rows_of(base, rows_path)[:3]
    batch = pack(rows, CPU)
    ids = batch.inputs["input_ids"][0]
    assert torch.equal(ids[batch.predicting + 1], batch.targets)
    said = [json.loads(line)["messages"][-1]["content"] for line in rows_path.read_text().splitlines()[:3]]
    assert renderer.decode(batch.targets.tolist()).split("<|im_end|>") == [*said, ""]
    assert batch.inputs["position_ids"][0].tolist() == [i for r in rows for i in range(len(r.token_ids))]


def test_nothing_predicts_across_the_border_of_two_rows() -> None:
    row = Row(token_ids=(5, 6, 7), trained=(False, False, True))
    batch = pack([row, row], CPU)
    assert batch.predicting.tolist() == [1, 4]
    assert batch.targets.tolist() == [7, 7]


def test_padded_rows_pick_the_same_targets_as_packed_ones(base_of: Bases, rows_path: Path) -> None:
    rows = rows_of(base_of("llama"), rows_path)[:5]
    padded, packed = pad(rows, CPU), pack(rows, CPU)
    assert padded.targets.tolist() == packed.targets.tolist()
    assert padded.tokens == packed.tokens == int(padded.inputs["attention_mask"].sum())


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_packed_rows_padded_rows_and_plain_transformers_agree(
    base_of: Bases, rows_path: Path, family: str
) -> None:
    rows = rows_of(base_of(family), rows_path)[:7]
    base = load_base(base_of(family), torch.float32)
    assert base.packs
    made = trainee(base)
    made.model.eval()
    packed = RowLoss(made.adapted, packed=True, device=CPU)
    packed_loss = packed(rows)
    packed_loss.backward()
    packed_gradients = [matrix.grad.clone() for matrix in made.matrices.values() if matrix.grad is not None]
    alone = sum(packed([row]).item() for row in rows)
    base.model.set_attn_implementation("sdpa")
    made.optimizer.zero_grad()
    padded_loss = RowLoss(made.adapted, packed=False, device=CPU)(rows)
    padded_loss.backward()
    plain = 0.0
    with torch.no_grad():
        for row in rows:
            logits = made.model(input_ids=torch.tensor([row.token_ids])).logits[0, :-1]
            mask = torch.tensor(row.trained[1:])
            plain += float(
                cross_entropy(logits[mask], torch.tensor(row.token_ids[1:])[mask], reduction="sum")
            )
    trained = sum(row.trained_tokens for row in rows)
    assert packed_loss.item() / trained == pytest.approx(plain / trained, abs=1e-5)
    assert padded_loss.item() / trained == pytest.approx(plain / trained, abs=1e-5)
    assert alone / trained == pytest.approx(plain / trained, abs=1e-5)
    for matrix, expected in zip(made.matrices.values(), packed_gradients, strict=True):
        assert matrix.grad is not None
        assert torch.allclose(matrix.grad, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["bloom", "mamba"])
@pytest.mark.filterwarnings("ignore")
def test_a_family_that_cannot_keep_packed_rows_apart_is_found_out(base_of: Bases, family: str) -> None:
    assert not load_base(base_of(family), torch.float32).packs


def test_a_sliding_window_is_kept_within_packed_rows(base_of: Bases, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_of("qwen2"))
    model.config.update(
        {"use_sliding_window": True, "sliding_window": 6, "layer_types": ["sliding_attention"] * 2}
    )
    model.save_pretrained(tmp_path)
    row = Row(token_ids=tuple(range(1, 41)), trained=(False, *[True] * 39))
    base = load_base(tmp_path, torch.float32)
    assert base.packs
    made = trainee(base)
    packed = RowLoss(made.adapted, packed=True, device=CPU)([row, row]).item()
    base.model.set_attn_implementation("sdpa")
    padded = RowLoss(made.adapted, packed=False, device=CPU)([row, row]).item()
    assert packed / 78 == pytest.approx(padded / 78, abs=1e-5)


@pytest.mark.parametrize(
    ("family", "technique"),
    [
        ("llama", Technique.LORA),
        ("gpt2", Technique.LORA),
        ("bloom", Technique.LORA),
        ("llama", Technique.PROMPT_TUNING),
        ("bloom", Technique.PROMPT_TUNING),
        ("llama", Technique.FULL),
    ],
)
def test_accumulated_gradients_equal_those_of_one_large_batch(
    base_of: Bases, rows_path: Path, family: str, technique: Technique
) -> None:
    rows = rows_of(base_of(family), rows_path)[:8]
    moved = []
    for tokens_per_pass in (10_000, 120, 1):
        made = trainee(load_base(base_of(family), torch.float32), technique, virtual_tokens=4)
        made = Trainee(**{**vars(made), "tokens_per_pass": tokens_per_pass})
        loss, norm, tokens = train_step(made, rows, 0, 1e-2, QUIET)
        assert tokens == sum(len(row.token_ids) for row in rows)
        moved.append((loss, norm, [matrix.detach().clone() for matrix in made.matrices.values()]))
    for loss, norm, matrices in moved[1:]:
        assert loss == pytest.approx(moved[0][0], abs=1e-5)
        assert norm == pytest.approx(moved[0][1], rel=1e-4)
        for matrix, expected in zip(matrices, moved[0][2], strict=True):
            assert torch.allclose(matrix, expected, atol=2e-4)


def test_groups_hold_every_row_once_and_stay_within_the_budget() -> None:
    rows = [Row(token_ids=(0,) * length, trained=(True,) * length) for length in (3, 9, 4, 30, 5, 5, 8)]
    for padded in (False, True):
        groups = split_by_tokens(rows, 20, padded=padded)
        assert sorted(len(row.token_ids) for group in groups for row in group) == [3, 4, 5, 5, 8, 9, 30]
        for group in groups:
            longest = max(len(row.token_ids) for row in group)
            cost = longest * len(group) if padded else sum(len(row.token_ids) for row in group)
            assert cost <= 20 or len(group) == 1


def test_a_vocabulary_larger_than_a_chunk_has_the_same_loss_and_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, 1_000_000, requires_grad=True)
    targets = torch.randint(0, 1_000_000, (9,))
    ours = cross_entropies(logits, targets).sum()
    (gradient,) = torch.autograd.grad(ours * 0.5, logits)
    reference = cross_entropy(logits, targets, reduction="sum")
    (expected,) = torch.autograd.grad(reference * 0.5, logits)
    assert ours.item() == pytest.approx(reference.item(), rel=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_an_epoch_sees_every_row_once_and_the_next_in_another_order(base_of: Bases, rows_path: Path) -> None:
    rows = rows_of(base_of("llama"), rows_path)
    order = StepOrder(rows=rows, batch_size=5, seed=3)
    assert order.steps_per_epoch == 5
    epochs = [
        [row for step in range(5) for row in order.rows_of_step(epoch * 5 + step)] for epoch in range(2)
    ]
    assert sorted(row.token_ids for row in epochs[0]) == sorted(row.token_ids for row in rows)
    assert epochs[0] != epochs[1]
    assert len(order.rows_of_step(4)) == 4


@pytest.mark.parametrize(
    ("count", "fraction", "aside"), [(1, 0.5, 0), (2, 0.01, 1), (2, 0.5, 1), (20, 0.1, 2), (20, 0.0, 0)]
)
def test_validation_takes_its_share_and_leaves_one_to_train(count: int, fraction: float, aside: int) -> None:
    rows = [Row(token_ids=(index, 1), trained=(False, True)) for index in range(count)]
    training, validation = split_validation(rows, fraction, seed=7)
    assert len(validation) == aside
    assert sorted(row.token_ids for row in [*training, *validation]) == [row.token_ids for row in rows]
    assert split_validation(rows, fraction, seed=7) == (training, validation)


def test_the_vocabulary_of_the_tiny_bases_covers_their_tokenizer(base_of: Bases, rows_path: Path) -> None:
    assert all(max(row.token_ids) < VOCABULARY for row in rows_of(base_of("gpt2"), rows_path))
