"""The adapter: low-rank matrices beside a frozen base, injected by PEFT.

PEFT decides where the matrices go, what they are called and how they are saved. Their arithmetic is ours: the
32-bit matrices are cast to the base's type for each product (instead of the activations to theirs), products
are accumulated while they are made, and dropout is cheap on CPUs and keeps one byte an element.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trainer.config import ALL_LINEAR

ADAPTER = "default"
"""PEFT's name for the one adapter of a model."""


class TargetModulesError(Exception):
    """No adapter fits: the text names the modules that were asked for and those that there are."""


def linear_module_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Last parts of the names of all linear layers of the decoder, output head left out; sorted."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return tuple(
        sorted(
            {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, nn.Linear | Conv1D) and module is not head
            }
        )
    )


def inject(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: Sequence[str],
    seed: int,
    use_rslora: bool = False,
) -> PeftModel:
    """Put a fresh adapter into `model`; its matrices are 32-bit, A random by `seed`, B zero.

    Empty `target_modules`, or "all-linear" among them, mean every linear layer. `use_rslora` scales by
    alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732). Raises TargetModulesError.
    """
    present = linear_module_names(model)
    wanted = () if ALL_LINEAR in target_modules else target_modules
    unknown = sorted(set(wanted) - set(present))
    if unknown or not present:
        raise TargetModulesError(
            f"it has no linear layer called {', '.join(unknown)}; it has {', '.join(present)}"
            if unknown
            else "it has no linear layers"
        )
    # The GPT-2 family keeps its matrices transposed, which PEFT wants to be told when it loads the adapter.
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT takes and saves any number
        lora_dropout=dropout,
        target_modules=list(wanted or present),
        use_rslora=use_rslora,
        fan_in_fan_out=transposed,
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )
    config._register_custom_module({nn.Linear: _TrainedLinear, Conv1D: _TrainedLinear})
    torch.manual_seed(seed)
    try:
        adapted = get_peft_model(model, config, adapter_name=ADAPTER, autocast_adapter_dtype=False)
    except ValueError as error:  # some architectures have layers that PEFT knows to work without their module
        raise TargetModulesError(str(error)) from error
    for matrix in matrices_of(adapted).values():
        matrix.data = matrix.data.float()
    return adapted


def matrices_of(model: PeftModel) -> dict[str, nn.Parameter]:
    """The trained matrices under the names that files use, `base_model.model...lora_A.weight`."""
    return {
        name.replace(f".{ADAPTER}.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def target_modules_of(model: PeftModel) -> list[str]:
    """Names of the modules that have an adapter, sorted."""
    config = model.peft_config[ADAPTER]
    assert isinstance(config, LoraConfig)
    return sorted(config.target_modules or ())


class _TrainedLinear(PeftLinear):
    """A linear layer (of any storage: 16-bit, 4-bit, transposed) with its adapter."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`x` is [..., inputs]; returns [..., outputs] in the base layer's type."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        low, high = self.lora_A[ADAPTER].get_parameter("weight"), self.lora_B[ADAPTER].get_parameter("weight")
        drop = self.lora_dropout[ADAPTER]  # PEFT puts an Identity where nothing is ever dropped
        probability = drop.p if self.training and isinstance(drop, nn.Dropout) else 0.0
        return add_low_rank(result, x, low, high, self.scaling[ADAPTER], probability)


class _AddLowRank(torch.autograd.Function):
    """result + scale * (dropout(x) A^T) B^T.

    What is kept for the backward pass is x itself, which neighbouring layers share, and one byte an element
    for what was dropped.
    """

    @staticmethod
    def forward(
        ctx: Any,
        result: Tensor,  # [..., outputs]
        x: Tensor,  # [..., inputs]
        low: Tensor,  # A, [rank, inputs]
        high: Tensor,  # B, [outputs, rank]
        scale: float,
        probability: float,
    ) -> Tensor:
        flat_x = x.reshape(-1, x.shape[-1])
        low, high = low.to(x.dtype), high.to(x.dtype)
        kept, share = draw_kept(flat_x, probability)
        projected = linear(flat_x if kept is None else flat_x * kept.to(x.dtype), low)  # [tokens, rank]
        ctx.save_for_backward(flat_x, kept, low, high, projected)
        ctx.scale = scale / share
        flat = result.reshape(-1, result.shape[-1])
        return torch.addmm(flat, projected, high.t(), alpha=ctx.scale).view_as(result)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        flat_x, kept, low, high, projected = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        mask = None if kept is None else kept.to(flat_x.dtype)
        gradient_projected = (flat @ high).mul_(ctx.scale)  # [tokens, rank]
        gradient_high = (flat.t() @ projected).float().mul_(ctx.scale)
        gradient_low = (gradient_projected.t() @ (flat_x if mask is None else flat_x * mask)).float()
        gradient_x = None
        if ctx.needs_input_grad[1]:
            gradient_x = gradient_projected @ low
            gradient_x = gradient_x if mask is None else gradient_x.mul_(mask)
            gradient_x = gradient_x.view(*gradient.shape[:-1], low.shape[1])
        return gradient, gradient_x, gradient_low, gradient_high, None, None


add_low_rank = cast(Callable[[Tensor, Tensor, Tensor, Tensor, float, float], Tensor], _AddLowRank.apply)
"""Differentiable; the arguments are those of `_AddLowRank.forward`."""


def draw_kept(x: Tensor, probability: float) -> tuple[Tensor | None, float]:
    """Which elements are kept (None: all), and which share of them that is on average."""
    if probability == 0.0:
        return None, 1.0
    # torch draws a 64-bit number an element on CPUs, which costs more than the matrix products around it.
    # 16 bits an element are a quarter of that; the probability is rounded to 1/65536, and the share with it.
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    dropped = round(probability * 65536)
    kept = bits.view(torch.int16)[: x.numel()].view_as(x) >= dropped - 32768
    return kept, 1 - dropped / 65536
