"""Bases of other families, from local directories: trained, proven on a real engine, and asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hotlora.client import Client
from hotlora.errors import InvalidArgument
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.resources_pb2 import Message
from hotlora.v1.tuning_service_pb2 import (
    TECHNIQUE_LORA,
    TECHNIQUE_PROMPT_TUNING,
    Hyperparameters,
    Technique,
)
from tests.end_to_end.conftest import running_stack
from tests.training.tiny import build_base, write_rows

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(600)]

HIDDEN_SIZE = 128
"""The engine's attention takes heads of 32 dimensions and more."""
QUESTION = [Message(role="user", content="river stone")]


@contextmanager
def client_of_base(family: str, tmp_path: Path) -> Iterator[Client]:
    """A client of a stack that serves a tiny base of the family."""
    base = build_base(tmp_path / family, family, HIDDEN_SIZE)
    options = ("--no-page", "--base-model", str(base))
    with (
        running_stack(tmp_path / "home", tmp_path / "models", *options) as stack,
        stack.client() as client,
    ):
        yield client


def train_prove_and_ask(client: Client, rows: Path, technique: Technique, settings: Hyperparameters) -> None:
    job = client.create_tuning_job(
        dataset=client.upload_dataset(rows).name,
        adapter_id="tiny",
        technique=technique,
        hyperparameters=settings,
    )
    for _ in client.watch_tuning_job(job.name):
        pass
    *_, version = client.watch_adapter_version(client.get_tuning_job(job.name).adapter_version)
    assert version.state == AdapterVersion.STATE_ACTIVE, version.failure
    assert version.verification.adapter_difference <= version.verification.tolerance
    models = [model.id for model in client.list_models().models]
    assert models == [job.base_model, "tiny@1"]
    assert all(1 <= tokens_of_answer(client, model) <= 4 for model in models)


def tokens_of_answer(client: Client, model: str) -> int:
    *_, last = client.chat(QUESTION, model=model, max_tokens=4)
    return int(last.completion_tokens)


@pytest.mark.parametrize("family", ["qwen2", "phi3"])
def test_a_local_base_of_another_family_is_trained_proven_and_asked(family: str, tmp_path: Path) -> None:
    settings = Hyperparameters(max_steps=8, learning_rate=1e-2, rank=8)
    with client_of_base(family, tmp_path) as client:
        train_prove_and_ask(client, write_rows(tmp_path / "rows.jsonl"), TECHNIQUE_LORA, settings)


def test_a_base_of_which_vllm_serves_no_adapters_takes_virtual_tokens_and_refuses_lora(
    tmp_path: Path,
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    settings = Hyperparameters(max_steps=8, learning_rate=0.3, virtual_tokens=4)
    with client_of_base("gpt2", tmp_path) as client:
        with pytest.raises(InvalidArgument) as refusal:
            client.create_tuning_job(dataset=client.upload_dataset(rows).name, adapter_id="tiny")
        (violation,) = refusal.value.violations
        assert (violation.field, "no LoRA adapters" in violation.description) == ("technique", True)
        train_prove_and_ask(client, rows, TECHNIQUE_PROMPT_TUNING, settings)
