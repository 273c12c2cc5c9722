"""Greedy answers of the model in training: several prompts at once, each token computed once.

Prompts stand right-aligned in one batch, with a mask over what is left of them, and a cache of keys and
values. Models that cannot keep rows apart answer one prompt at a time and without a cache, which is slow and
right. It does not know texts or scores.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from trainer import effort
from trainer.attention import plain_attention
from trainer.steps import Trainee


@torch.no_grad()
def answer(
    trainee: Trainee,
    prompts: Sequence[Sequence[int]],
    *,
    stops: Collection[int],
    max_tokens: int,
    between: Callable[[], None],
) -> list[list[int]]:
    """The likeliest next token of each prompt, again and again, up to one of `stops` or `max_tokens`.

    The stop is left out. `between` is called before each forward pass.
    """
    trainee.adapted.take_over()
    trainee.model.eval()
    answers: dict[int, list[int]] = {}
    with plain_attention(_base_of(trainee)):
        for chosen in _batches(trainee, prompts, max_tokens):
            batch = _answer_batch(trainee, [prompts[index] for index in chosen], stops, max_tokens, between)
            answers.update(zip(chosen, batch, strict=True))
    return [answers[index] for index in range(len(prompts))]


def work(trainee: Trainee, prompts: Sequence[Sequence[int]], max_tokens: int) -> int:
    """What `answer` takes at most, as the number of tokens whose forward pass takes as long."""
    front = trainee.adapted.virtual_tokens
    total = 0
    for chosen in _batches(trainee, prompts, max_tokens):
        prompt = front + len(prompts[chosen[0]])
        if trainee.packs:
            total += effort.batch_work(len(chosen), prompt, max_tokens, trainee.device.type)
        else:  # every pass computes the whole sequence again
            total += max_tokens * len(chosen) * prompt + max_tokens * max_tokens // 2
    return total


def _batches(trainee: Trainee, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Indices of the prompts that are answered together, the longest first."""
    left = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    batches = []
    while left:
        longest = trainee.adapted.virtual_tokens + len(prompts[left[0]]) + max_tokens
        rows = effort.rows_at_once(longest, trainee.tokens_per_pass) if trainee.packs else 1
        batches.append(left[:rows])
        left = left[rows:]
    return batches


def _answer_batch(
    trainee: Trainee,
    prompts: Sequence[Sequence[int]],
    stops: Collection[int],
    max_tokens: int,
    between: Callable[[], None],
) -> list[list[int]]:
    decode = _Cached(trainee, prompts) if trainee.packs else _Recomputed(trainee, prompts)
    answers: list[list[int]] = [[] for _ in prompts]
    unfinished = set(range(len(prompts)))
    chosen: Tensor | None = None
    for _ in range(max_tokens):
        between()
        chosen = decode.next_logits(chosen).argmax(-1)  # [rows]
        for index, token in enumerate(chosen.tolist()):
            if index in unfinished and token in stops:
                unfinished.discard(index)
            elif index in unfinished:
                answers[index].append(token)
        if not unfinished:
            break
    return answers


class _Cached:
    """Each forward pass computes the newest token alone."""

    def __init__(self, trainee: Trainee, prompts: Sequence[Sequence[int]]) -> None:
        self._model = trainee.adapted.model
        self._embeds, self._mask = _right_aligned(trainee, prompts)
        self._past: object = None

    def next_logits(self, chosen: Tensor | None) -> Tensor:
        """[rows, vocabulary], after the tokens that were chosen; None: after the prompts."""
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        if chosen is None:
            inputs = {"inputs_embeds": self._embeds, "position_ids": positions}
        else:
            self._mask = pad(self._mask, (0, 1), value=1)
            positions = self._mask.sum(1, keepdim=True) - 1
            inputs = {"input_ids": chosen[:, None], "position_ids": positions}
        output = self._model(
            **inputs,
            attention_mask=self._mask,
            past_key_values=self._past,
            use_cache=True,
            logits_to_keep=1,
        )
        self._past = output.past_key_values
        logits: Tensor = output.logits[:, -1]
        return logits


class _Recomputed:
    """Each forward pass computes the whole sequence of one prompt."""

    def __init__(self, trainee: Trainee, prompts: Sequence[Sequence[int]]) -> None:
        assert len(prompts) == 1, "rows that cannot be kept apart come alone"
        self._model = trainee.adapted.model
        self._words = _words_of(trainee)
        self._embeds, _ = _right_aligned(trainee, prompts)

    def next_logits(self, chosen: Tensor | None) -> Tensor:
        """As `_Cached.next_logits`."""
        if chosen is not None:
            self._embeds = torch.cat([self._embeds, self._words(chosen[:, None])], dim=1)
        logits: Tensor = self._model(inputs_embeds=self._embeds, use_cache=False).logits[:, -1]
        return logits


def _right_aligned(trainee: Trainee, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Embeddings [rows, longest, hidden], what the technique puts in front included, and their mask."""
    words = _words_of(trainee)
    front = trainee.adapted.front
    rows = []
    for prompt in prompts:
        own: Tensor = words(torch.tensor([list(prompt)], device=trainee.device))[0]
        rows.append(own if front is None else torch.cat([front.to(own.dtype), own]))
    longest = max(len(row) for row in rows)
    embeds = torch.stack([pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    mask = torch.stack(
        [
            pad(torch.ones(len(row), dtype=torch.int64, device=trainee.device), (longest - len(row), 0))
            for row in rows
        ]
    )
    return embeds, mask


def _base_of(trainee: Trainee) -> PreTrainedModel:
    model = trainee.adapted.model
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)
    return base


def _words_of(trainee: Trainee) -> nn.Module:
    words: nn.Module = _base_of(trainee).get_input_embeddings()
    return words
