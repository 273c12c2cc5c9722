"""Bases of other families, from local directories: trained, proven on a real engine, and asked."""

from pathlib import Path

import pytest

from hotlora.client import Client
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.resources_pb2 import Message
from hotlora.v1.tuning_service_pb2 import Hyperparameters
from tests.end_to_end.conftest import running_stack
from tests.training.tiny import build_base, write_rows

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(600)]

HIDDEN_SIZE = 128
"""The engine's attention takes heads of 32 dimensions and more."""
QUESTION = [Message(role="user", content="river stone")]


def tokens_of_answer(client: Client, model: str) -> int:
    *_, last = client.chat(QUESTION, model=model, max_tokens=4)
    return int(last.completion_tokens)


@pytest.mark.parametrize("family", ["qwen2", "gemma"])
def test_a_local_base_of_another_family_is_trained_proven_and_asked(family: str, tmp_path: Path) -> None:
    base = build_base(tmp_path / family, family, HIDDEN_SIZE)
    rows = write_rows(tmp_path / "rows.jsonl")
    settings = Hyperparameters(max_steps=8, learning_rate=1e-2, rank=8)
    with (
        running_stack(
            tmp_path / "home", tmp_path / "models", "--no-page", "--base-model", str(base)
        ) as stack,
        stack.client() as client,
    ):
        dataset = client.upload_dataset(rows)
        job = client.create_tuning_job(dataset=dataset.name, adapter_id="tiny", hyperparameters=settings)
        for _ in client.watch_tuning_job(job.name):
            pass
        *_, version = client.watch_adapter_version(client.get_tuning_job(job.name).adapter_version)
        assert version.state == AdapterVersion.STATE_ACTIVE, version.failure
        assert version.verification.adapter_difference <= version.verification.tolerance
        models = [model.id for model in client.list_models().models]
        answers = {model: tokens_of_answer(client, model) for model in models}
    assert models == [family, "tiny@1"]
    assert all(1 <= tokens <= 4 for tokens in answers.values())
