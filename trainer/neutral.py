"""The canary of adapters from elsewhere: neutral conversations, as nothing is known of what taught them.

A weak adapter says little else than its base there, and a proof tells it from rounding by the number of
tokens. So there are more conversations than a strong adapter needs, and as many are measured as one takes.
Always the first ones, so that engines are asked once what their base says, whatever adapters come: those that
an adapter moves most would do with two thirds of the tokens, but all would have to be measured to find them.

An adapter of nine steps on a real engine in 16 bits: a standard error of 0.091 with four, which decides
nothing, and 0.036 with all twenty, which proved it.
"""

import math
from collections.abc import Iterator

from trainer.canary import MAX_SEQUENCES, CanarySequence, measure, stretch_of
from trainer.forward import RowLoss
from trainer.records import Turn
from trainer.rendering import Renderer, RenderingError

ENOUGH_EFFECT = 60.0
"""Squared effects of all tokens, in nats^2, that end the measurement.

The standard error of a strength is about the rounding of a token over the root of it. That is a hundredth or
two in 16 bits, where proofs take up to 0.083; the room is for effects with long tails, where a few tokens
count for most of the sum."""
_CONVERSATIONS = (
    ("What is a river?", "A river is a natural stream of water that flows towards a sea or a lake."),
    ("Please write one sentence about trains.", "The early train left the station at seven, half empty."),
    ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it in cold water."),
    ("Hello", "Hello! How can I help you today?"),
    ("Is this review positive or negative? The soup was cold and the waiter was rude.", "negative"),
    (
        "Which people and places are named here? Maria flew from Oslo to Rome.",
        "Maria: person; Oslo, Rome: places",
    ),
    ("List three colours.", "- red\n- blue\n- green"),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet around the year 1600."),
    (
        "I cannot log in any more.",
        "I am sorry to hear that. Please reset your password, and tell us if it still fails.",
    ),
    ("def add(a, b):", "    return a + b"),
    ("Yes or no: is ice lighter than water?", "Yes"),
    (
        "What should I cook tonight?",
        "How about pasta with tomatoes, garlic and basil? It takes twenty minutes.",
    ),
    ("Translate into German: Good morning.", "Guten Morgen."),
    (
        "Write a short poem about the sea.",
        "The sea rolls in, the sea rolls out,\nand gulls above it wheel and shout.",
    ),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Give me a JSON object with a name and an age.", '{"name": "Anna", "age": 34}'),
    ("What is 12 times 12?", "12 times 12 is 144."),
    ("Explain why the sky is blue.", "Air scatters blue light more than red light, so the sky looks blue."),
    (
        "Shorten this: The meeting is on Thursday, as two of us are ill on Monday.",
        "The meeting is on Thursday.",
    ),
    ("Say something.", "What would you like to talk about?"),
)


def measure_neutral(row_loss: RowLoss, renderer: Renderer) -> list[CanarySequence]:
    """Four conversations at least, then four more at a time until their effect is enough, or none is left."""
    found: list[CanarySequence] = []
    left = list(_sequences(renderer))
    while left and _effect(found) < ENOUGH_EFFECT:
        found += measure(row_loss, left[:MAX_SEQUENCES], between=_nobody_waits)
        del left[:MAX_SEQUENCES]
    return found


def _effect(measured: list[CanarySequence]) -> float:
    return math.fsum(
        (adapter - base) ** 2
        for sequence in measured
        for adapter, base in zip(sequence.adapter_logprobs, sequence.base_logprobs, strict=True)
    )


def _sequences(renderer: Renderer) -> Iterator[tuple[int, ...]]:
    """As the base's template writes them; as plain texts where it refuses them."""
    for question, answer in _CONVERSATIONS:
        turns = [Turn(role="user", content=question), Turn(role="assistant", content=answer, trained=True)]
        try:
            rendered = renderer.training_row(turns)
        except RenderingError:
            rendered = renderer.text_row(f"{question}\n{answer}")
        yield stretch_of(rendered.token_ids, rendered.trained)


def _nobody_waits() -> None:
    """An import is not asked to stop; it is killed."""
