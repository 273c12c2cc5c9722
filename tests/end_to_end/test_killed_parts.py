"""What is killed comes back by itself: the engine with its adapters, a job with its progress."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hotlora.client import Client
from hotlora.errors import HotloraError
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.resources_pb2 import Message
from hotlora.v1.tuning_service_pb2 import TECHNIQUE_QLORA, Hyperparameters, Milestone, TuningJob
from service.engine.command import LAUNCHER
from tests.end_to_end.conftest import ROOT, Stack, environment

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(900)]

QUESTION = [Message(role="user", content="The parcel never came and nobody answers the phone.")]
FEW_STEPS = Hyperparameters(max_steps=4, learning_rate=2e-3, checkpoint_every_steps=1, batch_size=4)


def train(client: Client, dataset: str, adapter_id: str) -> AdapterVersion:
    """A version that was trained for a few steps, as it is when it has settled."""
    job = client.create_tuning_job(
        dataset=dataset, adapter_id=adapter_id, technique=TECHNIQUE_QLORA, hyperparameters=FEW_STEPS
    )
    for _ in client.watch_tuning_job(job.name):
        pass
    *_, version = client.watch_adapter_version(client.get_tuning_job(job.name).adapter_version)
    return version


def answer(client: Client, model: str) -> str:
    return "".join(part.delta for part in client.chat(QUESTION, model=model, max_tokens=12, temperature=0.0))


def engine_of(process_id: int) -> psutil.Process:
    return next(
        child
        for child in psutil.Process(process_id).children(recursive=True)
        if LAUNCHER in child.cmdline() and os.getpgid(child.pid) == child.pid
    )


def test_a_qlora_adapter_is_proven_on_the_16_bit_base_and_survives_the_engines_death(
    stack: Stack, small_dataset: Path
) -> None:
    with stack.client() as client:
        dataset = client.upload_dataset(small_dataset)
        version = train(client, dataset.name, "survivor")
        assert version.state == AdapterVersion.STATE_ACTIVE, version.failure
        assert version.verification.adapter_difference <= version.verification.tolerance
        assert version.verification.effect > version.verification.tolerance
        before = answer(client, "survivor")
        restarts = client.list_models().engine.restarts
        engine_of(stack.process.pid).kill()

        def back() -> bool:
            models = client.list_models()
            served = next(model for model in models.models if model.id == version.model)
            return models.engine.restarts > restarts and served.available

        wait_until(back)
        assert answer(client, "survivor") == before
        assert client.get_adapter_version(version.name).state == AdapterVersion.STATE_ACTIVE


@pytest.fixture
def services(
    tmp_path: Path, models_dir: Path
) -> Iterator[Callable[[], tuple[subprocess.Popen[bytes], Client]]]:
    """Starts services one after another in the same home."""
    started: list[subprocess.Popen[bytes]] = []
    address = f"127.0.0.1:{free_port()}"
    # Jobs need no engine: the one that is named here is never there.
    variables = {
        **environment(tmp_path, models_dir),
        "HOTLORA_GRPC_ADDRESS": address,
        "HOTLORA_ENGINE_URLS": f"http://127.0.0.1:{free_port()}",
    }

    def start() -> tuple[subprocess.Popen[bytes], Client]:
        log = (tmp_path / "service.log").open("ab")
        started.append(
            subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=variables, stderr=log)
        )
        log.close()
        client = Client(address)
        wait_until(lambda: bool(client.list_models().models))
        return started[-1], client

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_job_whose_service_is_killed_goes_on_from_its_checkpoint_and_ends_once(
    services: Callable[[], tuple[subprocess.Popen[bytes], Client]], small_dataset: Path
) -> None:
    service, client = services()
    dataset = client.upload_dataset(small_dataset)
    settings = Hyperparameters(max_steps=8, checkpoint_every_steps=1, batch_size=1, eval_every_steps=8)
    job = client.create_tuning_job(
        dataset=dataset.name, adapter_id="lasting", hyperparameters=settings, request_id="once"
    )
    for update in client.watch_tuning_job(job.name):
        if update.event.checkpoint_saved.step >= 3:
            break
    children = psutil.Process(service.pid).children(recursive=True)
    os.kill(service.pid, signal.SIGKILL)
    service.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "a killed service leaves processes behind"

    _, client = services()
    events = [update.event for update in client.watch_tuning_job(job.name) if update.HasField("event")]
    ended = client.get_tuning_job(job.name)
    assert ended.state == TuningJob.STATE_SUCCEEDED, ended.failure
    assert ended.attempt == 2
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    resumed = [e.milestone.step for e in events if e.milestone.kind == Milestone.KIND_RESUMED]
    assert len(resumed) == 1
    assert resumed[0] >= 3
    again = client.create_tuning_job(
        dataset=dataset.name, adapter_id="lasting", hyperparameters=settings, request_id="once"
    )
    assert again.name == job.name
    versions = client.list_adapter_versions("adapters/lasting").adapter_versions
    assert [version.name for version in versions] == ["adapters/lasting/versions/1"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], seconds: float = 240.0) -> None:
    """Returns when `holds` does; a service that does not answer yet is waited for too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except HotloraError:
            pass
        time.sleep(0.25)  # another process is waited for, and nothing announces what is looked for
    pytest.fail(f"did not come true within {seconds} s")
