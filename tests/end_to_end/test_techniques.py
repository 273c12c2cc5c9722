"""Virtual tokens and preferences on a real stack: trained, proven by the engine, asked over both doors."""

import json
from pathlib import Path

import pytest
from openai import OpenAI

from hotlora.client import Client
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.resources_pb2 import Message
from hotlora.v1.tuning_service_pb2 import (
    OBJECTIVE_PREFERENCE,
    TECHNIQUE_LORA,
    TECHNIQUE_PROMPT_TUNING,
    Hyperparameters,
    Technique,
)
from tests.end_to_end.conftest import Stack

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(600)]

QUESTION = "The parcel never came and nobody answers the phone."


@pytest.fixture
def preferences(tmp_path: Path) -> Path:
    """Eight pairs that want a department's name alone."""
    path = tmp_path / "preferences.jsonl"
    pairs = [
        {
            "prompt": f"{QUESTION} Order {number}.",
            "chosen": "delivery",
            "rejected": "I am sorry to hear that.",
        }
        for number in range(8)
    ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def train(client: Client, rows: Path, adapter_id: str, technique: Technique, steps: Hyperparameters) -> str:
    """The model name of the version, once it is proven."""
    job = client.create_tuning_job(
        dataset=client.upload_dataset(rows).name,
        adapter_id=adapter_id,
        technique=technique,
        hyperparameters=steps,
    )
    for _ in client.watch_tuning_job(job.name):
        pass
    ended = client.get_tuning_job(job.name)
    *_, version = client.watch_adapter_version(ended.adapter_version)
    assert version.state == AdapterVersion.STATE_ACTIVE, version.failure
    assert version.verification.adapter_difference <= version.verification.tolerance
    return str(version.model)


def answers(stack: Stack, client: Client, model: str) -> list[str]:
    """What it says over gRPC and through the gateway."""
    messages = [Message(role="user", content=QUESTION)]
    said = "".join(part.delta for part in client.chat(messages, model=model, max_tokens=8, temperature=0.0))
    with OpenAI(base_url=stack.urls["gateway"], api_key="not needed") as openai:
        completion = openai.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=8,
            temperature=0.0,
        )
    assert completion.model == model
    return [said, str(completion.choices[0].message.content)]


def test_virtual_tokens_are_trained_proven_and_asked(stack: Stack, small_dataset: Path) -> None:
    steps = Hyperparameters(max_steps=4, learning_rate=0.1, virtual_tokens=8, batch_size=4)
    with stack.client() as client:
        model = train(client, small_dataset, "virtual", TECHNIQUE_PROMPT_TUNING, steps)
        assert all(answers(stack, client, model))


def test_an_adapter_is_trained_on_preferences_proven_and_asked(stack: Stack, preferences: Path) -> None:
    steps = Hyperparameters(max_steps=4, learning_rate=2e-3, batch_size=4)
    with stack.client() as client:
        model = train(client, preferences, "preferring", TECHNIQUE_LORA, steps)
        (job,) = (job for job in client.list_tuning_jobs().tuning_jobs if job.adapter.endswith("preferring"))
        assert job.objective == OBJECTIVE_PREFERENCE
        assert all(answers(stack, client, model))
