"""Rows to train on, and versions that the service makes of them."""

import json
from collections.abc import Sequence
from pathlib import Path

from hotlora.client import Client
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.tuning_service_pb2 import TuningJob
from service.evaluation.general_skill import ITEMS
from tests.stage.service import Question, Stage

GOOD_ROW = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
TRAINED = [(f"message {number}", ("billing", "delivery")[number % 2]) for number in range(8)]
"""Messages with their labels."""
HELD_OUT = [
    ("I paid twice", "billing"),
    ("The invoice is wrong", "billing"),
    ("Where is\x1b[31m my <b>parcel</b>?", "delivery"),
    ("It never came", "delivery"),
    TRAINED[0],
]
BASE_KNOWS = {"The invoice is wrong": "billing", ITEMS[0].question: ITEMS[0].accepted[0]}
ADAPTER_KNOWS = {message: label for message, label in HELD_OUT if message != "It never came"}


def train(
    stage: Stage,
    adapter: str,
    rows: Path | bytes = GOOD_ROW * 3,
    state: AdapterVersion.State = AdapterVersion.STATE_ACTIVE,
) -> TuningJob:
    """Train a version, and wait until it is `state`."""
    with Client(stage.address) as client:
        dataset = client.upload_dataset(rows)
        job = client.create_tuning_job(dataset=dataset.name, adapter_id=adapter)
        for _ in client.watch_tuning_job(job.name):
            pass
        job = client.get_tuning_job(job.name)
        *_, version = client.watch_adapter_version(job.adapter_version)
        assert version.state == state, version
        return job


def write_labelled(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """A file of messages with their labels."""
    lines = [json.dumps({"prompt": message, "completion": label}) + "\n" for message, label in rows]
    path.write_text("".join(lines))
    return path


def knows_labels(question: Question) -> Sequence[str]:
    """The adapter knows three of four messages; the base one, and the first general question besides."""
    knows = ADAPTER_KNOWS if "@" in question.model else BASE_KNOWS
    return (knows.get(question.text, ""),)
