"""Bad input by gRPC and by the command: each is refused by its place, and leaves nothing."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from hotlora import statuses
from hotlora.client import Client
from hotlora.errors import AlreadyExists, HotloraError, InvalidArgument, NotFound, ResourceExhausted
from hotlora.v1 import chat_service_pb2 as chat_pb
from hotlora.v1 import chat_service_pb2_grpc as chat_grpc
from hotlora.v1 import dataset_service_pb2 as datasets_pb
from hotlora.v1 import dataset_service_pb2_grpc as datasets_grpc
from hotlora.v1 import resources_pb2
from hotlora.v1 import tuning_service_pb2 as tuning_pb
from hotlora.v1 import tuning_service_pb2_grpc as tuning_grpc
from tests.command.conftest import Hotlora
from tests.command.test_terminal import Terminal
from tests.stage.bad_files import BAD_FILES
from tests.stage.service import Stage
from tests.stage.trained import GOOD_ROW

CHUNK_BYTES = 1 << 18
SPARSE_BYTES = 1 << 40
"""So many that reading them would outlast any test."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """How bad input was refused."""

    code: str
    """Name of the class in `hotlora.errors`."""
    places: tuple[str, ...] = ()
    """Fields or lines, each once."""
    words: str = field(default="", compare=False)
    """Everything that was said."""


def sparse(path: Path) -> None:
    """A huge file that takes no room."""
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


@pytest.fixture(autouse=True)
def nothing_is_half_written(stage: Stage) -> Iterator[None]:
    """After whatever was sent, the service lives and holds whole files alone."""
    yield
    with Client(stage.address) as client:
        known = {one.name.removeprefix("datasets/") for one in client.list_datasets(page_size=1000).datasets}
    assert {path.name for path in (stage.home / "datasets").iterdir()} == {f"{one}.jsonl" for one in known}


def by_grpc(call: Callable[[], object]) -> Refusal:
    """How a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    status = statuses.status_of(error.code(), error.details(), error.trailing_metadata())
    assert status.details is not None, "every refusal is one of the service"
    return _refusal(statuses.error_of(status, address="", method=""))


def _refusal(error: HotloraError) -> Refusal:
    places = tuple(dict.fromkeys(one.field for one in error.violations))
    words = " ".join([error.message, *(one.description for one in error.violations)])
    return Refusal(code=type(error).__name__, places=places, words=words)


def by_command(hotlora: Hotlora, *arguments: str) -> Refusal:
    """How a command is refused."""
    run = hotlora(*arguments, "--json")
    assert run.code not in {0, 1}
    assert run.out == ""
    error = json.loads(run.err)["error"]
    places = tuple(dict.fromkeys(one["field"] for one in error["violations"]))
    words = " ".join([error["message"], *(one["description"] for one in error["violations"])])
    return Refusal(code=error["code"], places=places, words=words)


def upload(channel: grpc.Channel, path: Path, dataset_id: str) -> datasets_pb.Dataset:
    """The messages of an upload, as they stand in the protos."""

    def parts() -> Iterator[datasets_pb.UploadDatasetRequest]:
        yield datasets_pb.UploadDatasetRequest(header=datasets_pb.UploadHeader(dataset_id=dataset_id))
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield datasets_pb.UploadDatasetRequest(chunk=chunk)

    return datasets_grpc.DatasetServiceStub(channel).UploadDataset(parts())


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_its_line(
    channel: grpc.Channel, hotlora: Hotlora, tmp_path: Path, name: str
) -> None:
    content, line = BAD_FILES[name]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)

    called = by_grpc(lambda: upload(channel, path, "bad"))
    commanded = by_command(hotlora, "datasets", "upload", str(path), "--id", "bad")

    assert called == commanded == Refusal(code=InvalidArgument.__name__, places=(line,))
    assert called.words == commanded.words


def test_a_huge_file_is_refused_unread_or_by_its_first_line(
    channel: grpc.Channel, hotlora: Hotlora, tmp_path: Path
) -> None:
    path = tmp_path / "sparse.jsonl"
    sparse(path)

    assert by_grpc(lambda: upload(channel, path, "sparse")) == Refusal(
        code="InvalidArgument", places=("line 1",)
    )
    commanded = by_command(hotlora, "datasets", "upload", str(path))
    assert commanded == Refusal(code=ResourceExhausted.__name__)
    assert commanded.words.startswith(f"The file has {SPARSE_BYTES:,} bytes; a dataset may have ")


def test_a_file_that_is_announced_as_too_large_is_refused_before_its_first_byte(
    channel: grpc.Channel,
) -> None:
    header = datasets_pb.UploadHeader(dataset_id="announced", size_bytes=2 << 30)
    announced = [datasets_pb.UploadDatasetRequest(header=header)]

    refusal = by_grpc(lambda: datasets_grpc.DatasetServiceStub(channel).UploadDataset(iter(announced)))

    assert refusal == Refusal(code=ResourceExhausted.__name__)
    assert refusal.words.startswith("header.size_bytes: the file has 2,147,483,648 bytes, and a dataset ")


def test_a_used_id_is_refused(channel: grpc.Channel, hotlora: Hotlora, rows: Path) -> None:
    upload(channel, rows, "used")
    expected = Refusal(code=AlreadyExists.__name__)

    assert by_grpc(lambda: upload(channel, rows, "used")) == expected
    assert by_command(hotlora, "datasets", "upload", str(rows), "--id", "used") == expected


REQUESTS: dict[str, tuple[tuple[str, ...], dict[str, object], tuple[str, ...]]] = {
    "a rank of a billion": (
        ("--rank", "1000000000"),
        {"hyperparameters": tuning_pb.Hyperparameters(rank=10**9)},
        ("hyperparameters.rank",),
    ),
    "a learning rate that is no number": (
        ("--learning-rate", "nan"),
        {"hyperparameters": tuning_pb.Hyperparameters(learning_rate=float("nan"))},
        ("hyperparameters.learning_rate",),
    ),
    "a path as an adapter": (("--adapter", "../etc"), {"adapter_id": "../etc"}, ("adapter_id",)),
    "an unknown base model": (("--base-model", "nobody"), {"base_model": "nobody"}, ("base_model",)),
    "everything at once": (
        ("--adapter", "../etc", "--rank", "1000000000", "--learning-rate", "nan"),
        {
            "adapter_id": "../etc",
            "hyperparameters": tuning_pb.Hyperparameters(rank=10**9, learning_rate=float("nan")),
        },
        ("adapter_id", "hyperparameters.rank", "hyperparameters.learning_rate"),
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_bad_request_is_refused_by_its_fields(
    channel: grpc.Channel, hotlora: Hotlora, rows: Path, adapter: str, name: str
) -> None:
    options, fields, places = REQUESTS[name]
    dataset = f"rows-of-{adapter}"
    upload(channel, rows, dataset)
    request = tuning_pb.CreateTuningJobRequest(
        **{"dataset": f"datasets/{dataset}", "adapter_id": adapter, **fields}
    )
    stub = tuning_grpc.TuningServiceStub(channel)

    called = by_grpc(lambda: stub.CreateTuningJob(request))
    commanded = by_command(hotlora, "train", f"datasets/{dataset}", "--adapter", adapter, *options)

    assert called == commanded == Refusal(code=InvalidArgument.__name__, places=places)
    assert called.words == commanded.words
    assert json.loads(hotlora("jobs", "--adapter", adapter, "--json").out)["tuningJobs"] == []


def test_a_path_as_the_id_of_a_dataset_is_refused(
    channel: grpc.Channel, hotlora: Hotlora, rows: Path
) -> None:
    expected = Refusal(code=InvalidArgument.__name__, places=("header.dataset_id",))

    assert by_grpc(lambda: upload(channel, rows, "../etc")) == expected
    assert by_command(hotlora, "datasets", "upload", str(rows), "--id", "../etc") == expected


def test_an_unknown_model_is_not_found(channel: grpc.Channel, hotlora: Hotlora) -> None:
    request = chat_pb.ChatRequest(
        model="nobody", messages=[resources_pb2.Message(role="user", content="Who?")]
    )
    stub = chat_grpc.ChatServiceStub(channel)

    called = by_grpc(lambda: list(stub.Chat(request)))
    commanded = by_command(hotlora, "chat", "nobody", "--prompt", "Who?")

    assert called == commanded == Refusal(code=NotFound.__name__)
    assert "nobody" in called.words


def upload_as_soon_as_the_id_is_free(stage: Stage, dataset_id: str) -> None:
    """A cancelled call is cleaned up after its caller is gone; until then its id is taken."""
    with Client(stage.address) as client:
        while True:
            try:
                client.upload_dataset(GOOD_ROW, dataset_id=dataset_id)
            except AlreadyExists:
                continue
            return


def test_an_upload_that_is_cancelled_over_grpc_leaves_nothing(stage: Stage, channel: grpc.Channel) -> None:
    def parts() -> Iterator[datasets_pb.UploadDatasetRequest]:
        yield datasets_pb.UploadDatasetRequest(header=datasets_pb.UploadHeader(dataset_id="cancelled"))
        while True:
            yield datasets_pb.UploadDatasetRequest(chunk=GOOD_ROW * 100)
            if (stage.home / "datasets" / "cancelled.part").exists():
                call.cancel()
                return

    call = datasets_grpc.DatasetServiceStub(channel).UploadDataset.future(parts())

    with pytest.raises(grpc.FutureCancelledError):
        call.result()
    upload_as_soon_as_the_id_is_free(stage, "cancelled")


def test_an_upload_that_is_interrupted_at_the_terminal_leaves_nothing(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(GOOD_ROW * 200_000)
    run = Terminal(stage.address, "datasets", "upload", str(path), "--id", "interrupted")
    run.reads(" MB", times=3)

    run.type("\x03")

    assert run.ends() == 130
    assert "Traceback" not in run.seen
    upload_as_soon_as_the_id_is_free(stage, "interrupted")
