"""The verdict on what the engine serves, from figures alone."""

import math
import random
from collections.abc import Sequence

import pytest

from service.artifacts import CanarySequence
from service.serving.proof import NOISE_FACTOR, TOLERANCE_FLOOR, Comparison, Verdict, compare

TOKENS = 250


def _draw(seed: int, spread: float, offset: float = 0.0) -> list[float]:
    drawn = random.Random(seed)
    return [offset + drawn.gauss(0, spread) for _ in range(TOKENS)]


def _plus(left: Sequence[float], right: Sequence[float], factor: float = 1.0) -> list[float]:
    return [a + factor * b for a, b in zip(left, right, strict=True)]


BASE = _draw(1, 2.0, -4.0)


def _judge(
    *,
    effect: float = 1.0,
    served: float = 1.0,
    noise: float = 0.01,
    other: float = 0.0,
    adapter: Sequence[float] | None = None,
    quantised: Sequence[float] | None = None,
) -> Comparison:
    """Judge an adapter that moves the model by about `effect`, served at `served` times its strength with
    `other` times somebody else's effect, on an engine with this noise."""
    move, elsewhere = _draw(2, effect * 1.25), _draw(3, 1.25)
    canary = CanarySequence(
        token_ids=tuple(range(TOKENS + 1)),
        base_logprobs=tuple(BASE),
        adapter_logprobs=tuple(_plus(BASE, move)),
        quantised_logprobs=None if quantised is None else tuple(_plus(_plus(BASE, move), quantised)),
    )
    served_base = _plus(BASE, _draw(4, noise * 1.25))
    served_adapter = _plus(_plus(BASE, move, served), elsewhere, other)
    noisy = _plus(served_adapter, _draw(5, noise * 1.25))
    return compare([canary], served_base=[served_base], served_adapter=[adapter or noisy])


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.01, 0.05])
@pytest.mark.parametrize("effect", [0.5, 1.0, 4.0])
def test_the_trained_adapter_is_ok_whatever_the_engines_noise(noise: float, effect: float) -> None:
    found = _judge(effect=effect, noise=noise)

    assert found.verdict is Verdict.OK
    assert found.tokens == TOKENS
    assert found.noise == pytest.approx(noise, rel=0.2)
    assert found.trained_effect == pytest.approx(effect, rel=0.2)
    assert found.adapter_difference <= found.tolerance < found.effect


@pytest.mark.parametrize("effect", [0.001, 0.01, 0.1, 1.0])
def test_the_base_in_the_adapters_place_is_never_ok(effect: float) -> None:
    assert _judge(effect=effect, served=0.0).verdict is Verdict.NO_EFFECT


def test_an_adapter_too_weak_to_be_told_from_the_base_is_not_ok_even_if_served() -> None:
    found = _judge(effect=0.002)

    assert found.verdict is Verdict.NO_EFFECT
    assert "train longer" in found.message


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.06])
def test_an_adapter_that_moves_little_more_than_noise_is_told_from_the_base_and_from_half_of_it(
    noise: float,
) -> None:
    whole = _judge(effect=0.12, noise=noise)

    assert whole.verdict is Verdict.OK
    assert whole.strength.share == pytest.approx(1, abs=3 * whole.strength.error + 1e-9)
    for served in (-1.0, 0.0, 0.5, 1.5):
        assert _judge(effect=0.12, noise=noise, served=served).verdict is not Verdict.OK


def test_an_adapter_that_training_did_not_move_has_no_effect() -> None:
    assert _judge(effect=0.0).verdict is Verdict.NO_EFFECT


@pytest.mark.parametrize("effect", [0.2, 1.0])
@pytest.mark.parametrize("served", [-1.0, 0.4, 2.0])
def test_the_adapter_at_another_strength_is_wrong(effect: float, served: float) -> None:
    assert _judge(effect=effect, served=served).verdict is Verdict.WRONG_WEIGHTS


def test_another_adapter_in_its_place_is_wrong() -> None:
    assert _judge(served=0.0, other=1.0).verdict is Verdict.WRONG_WEIGHTS


def test_a_mixture_with_another_adapter_is_wrong() -> None:
    assert _judge(other=0.2).verdict is Verdict.WRONG_WEIGHTS


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_numbers_that_are_none_are_wrong_weights(value: float) -> None:
    assert _judge(adapter=[value] * TOKENS).verdict is Verdict.WRONG_WEIGHTS


def test_the_tolerance_follows_the_noise_above_a_floor() -> None:
    assert _judge(noise=0.0).tolerance == TOLERANCE_FLOOR
    loud = _judge(noise=0.1)
    assert loud.tolerance == pytest.approx(NOISE_FACTOR * loud.noise)


def test_what_serving_on_the_whole_base_changes_is_told_and_decides_nothing() -> None:
    plain = _judge()
    move = _draw(6, 0.5)
    shifted = _judge(quantised=move)

    assert plain.quantisation_difference is None
    assert shifted.quantisation_difference == pytest.approx(0.4, rel=0.2)
    assert shifted.verdict is Verdict.OK


def test_a_message_carries_the_numbers() -> None:
    found = _judge(served=0.0)

    assert f"{found.effect:.4f}" in found.message
    assert f"{found.trained_effect:.4f}" in found.message
