"""ImportDataset, over the wire: files of the service's machine, and splits of dataset repositories.

Repositories lie in a directory, as downloaded ones do; the library that reads them is the real one.
"""

import json
import os
from pathlib import Path

import grpc
import pytest

from hotlora.v1 import dataset_service_pb2 as pb
from service.datasets import Hub, LocalFiles
from tests.contract.stage import GOOD_LINE, Refusal, Stage, refused, running, small
from tests.doubles import hub as doubles_hub

OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}


def request(source: Path | pb.HubSplit, **header: object) -> pb.ImportDatasetRequest:
    """An import as `datasets/rows`."""
    wishes = pb.UploadHeader(**{"dataset_id": "rows", **header})
    if isinstance(source, Path):
        return pb.ImportDatasetRequest(header=wishes, local_path=str(source))
    return pb.ImportDatasetRequest(header=wishes, hub=source)


async def import_refused(stage: Stage, source: Path | pb.HubSplit, **header: object) -> Refusal:
    """How the import was refused; nothing of it may be left."""
    refusal = await refused(stage.datasets.ImportDataset(request(source, **header)))
    assert stage.files() == []
    return refusal


def shelf(tmp_path: Path) -> Path:
    """A directory that callers may read from."""
    root = tmp_path / "shelf"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "rows.jsonl").write_bytes(GOOD_LINE * 3)
    return root.resolve()


def repository(tmp_path: Path, **files: str) -> Hub:
    """A hub that cannot be reached, with the repository `shop/talks` downloaded before."""
    folder = tmp_path / "hub" / "shop" / "talks"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return Hub(directory=tmp_path / "hub", environment=OFFLINE)


async def test_a_file_below_an_allowed_directory_becomes_a_dataset_like_an_upload(tmp_path: Path) -> None:
    root = shelf(tmp_path)
    async with running(tmp_path / "home", local_files=LocalFiles([root])) as stage:
        imported = await stage.datasets.ImportDataset(request(root / "inner" / "rows.jsonl"))
        uploaded = await stage.upload(GOOD_LINE * 3, "other")
        assert (imported.name, imported.sha256) == ("datasets/rows", uploaded.sha256)
        assert imported.report == uploaded.report
        again = await refused(stage.datasets.ImportDataset(request(root / "inner" / "rows.jsonl")))
        assert again.code is grpc.StatusCode.ALREADY_EXISTS


async def test_a_bad_row_of_a_local_file_is_named_by_its_line(tmp_path: Path) -> None:
    root = shelf(tmp_path)
    (root / "bad.jsonl").write_bytes(GOOD_LINE + b"oops\n")
    async with running(tmp_path / "home", local_files=LocalFiles([root])) as stage:
        assert list((await import_refused(stage, root / "bad.jsonl")).violations) == ["line 2"]


async def test_a_file_that_is_only_looked_at_is_reported_and_not_kept_either(tmp_path: Path) -> None:
    root = shelf(tmp_path)
    async with running(tmp_path / "home", local_files=LocalFiles([root])) as stage:
        found = await stage.datasets.ImportDataset(request(root / "inner" / "rows.jsonl", validate_only=True))
        assert (found.name, found.rows, len(found.report.preview)) == ("", 3, 3)
        assert stage.files() == []


async def test_without_an_allowed_directory_no_file_is_read(stage: Stage, tmp_path: Path) -> None:
    refusal = await import_refused(stage, shelf(tmp_path) / "inner" / "rows.jsonl")
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "HOTLORA_DATASET_ROOTS" in refusal.violations["local_path"]


async def test_what_lies_outside_of_the_allowed_directories_cannot_be_reached(tmp_path: Path) -> None:
    root, secret = shelf(tmp_path), tmp_path / "secret.jsonl"
    secret.write_bytes(GOOD_LINE)
    (root / "link.jsonl").symlink_to(secret)
    (root / "way").symlink_to(tmp_path)
    (tmp_path / "shelf-2").mkdir()
    (tmp_path / "shelf-2" / "rows.jsonl").write_bytes(GOOD_LINE)
    os.mkfifo(root / "pipe")
    wrong = {
        secret: "must lead to a file below",
        tmp_path / "absent.jsonl": "must lead to a file below",
        tmp_path / "shelf-2" / "rows.jsonl": "must lead to a file below",
        root / "link.jsonl": "must lead to a file below",
        root / "way" / "secret.jsonl": "must lead to a file below",
        root / ".." / "secret.jsonl": "without '..'",
        Path("shelf/inner/rows.jsonl"): "absolute path",
        root / "inner": "must be a regular file",
        root / "pipe": "must be a regular file",
        root: "must lead to a file below",
    }
    async with running(tmp_path / "home", local_files=LocalFiles([root])) as stage:
        for path, rule in wrong.items():
            refusal = await import_refused(stage, path)
            assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, path
            assert rule in refusal.violations["local_path"], path
        missing = await import_refused(stage, root / "absent.jsonl")
        assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")


async def test_what_is_wrong_with_header_and_path_is_told_together(tmp_path: Path) -> None:
    root = shelf(tmp_path)
    async with running(tmp_path / "home", local_files=LocalFiles([root])) as stage:
        await stage.upload(GOOD_LINE)
        used = await refused(stage.datasets.ImportDataset(request(root / "absent.jsonl", dataset_id="rows")))
        assert used.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(used.violations) == {"header.dataset_id", "local_path"}
        wrong = await refused(stage.datasets.ImportDataset(request(tmp_path, dataset_id="../rows")))
        assert set(wrong.violations) == {"header.dataset_id", "local_path"}


async def test_a_link_within_the_allowed_directory_is_followed(tmp_path: Path) -> None:
    root = shelf(tmp_path)
    (root / "newest.jsonl").symlink_to(root / "inner" / "rows.jsonl")
    async with running(tmp_path / "home", local_files=LocalFiles([root])) as stage:
        assert (await stage.datasets.ImportDataset(request(root / "newest.jsonl"))).rows == 3


async def test_a_local_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    root = shelf(tmp_path)
    limits = small(max_file_bytes=100)
    async with running(tmp_path / "home", local_files=LocalFiles([root]), upload_limits=limits) as stage:
        refusal = await import_refused(stage, root / "inner" / "rows.jsonl")
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "FILE_TOO_LARGE")


async def test_a_split_of_a_repository_becomes_a_dataset(tmp_path: Path) -> None:
    rows = [{"question": f"Which? {index}", "answer": "This.", "id": index} for index in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    hub = repository(tmp_path, train__jsonl=lines, test__jsonl=lines[: lines.index("\n") + 1])
    mapping = {"prompt": "question", "completion": "answer"}
    async with running(tmp_path / "home", hub=hub) as stage:
        first = pb.HubSplit(repository="shop/talks", max_rows=3)
        assert (await stage.datasets.ImportDataset(request(first, mapping=mapping))).rows == 3
        test = pb.HubSplit(repository="shop/talks", split="test")
        other = await stage.datasets.ImportDataset(request(test, dataset_id="other", mapping=mapping))
        assert other.rows == 1
        shown = await stage.datasets.PreviewDataset(pb.PreviewDatasetRequest(name="datasets/other"))
        assert [message.content for message in shown.rows[0].messages] == ["Which? 0", "This."]


@pytest.mark.parametrize(
    ("readme", "code"),
    [
        (b"Talks.", None),
        (b"---\nconfigs:\n- config_name: a\n  data_files: {secret}\n---\n", grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["its own files", "a file of the service's machine"],
)
async def test_a_repository_of_the_hub_is_read_with_its_own_files_alone(
    tmp_path: Path, readme: bytes, code: grpc.StatusCode | None
) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(GOOD_LINE)
    files = {
        "README.md": readme.replace(b"{secret}", str(secret).encode()),
        "train-00000.jsonl": GOOD_LINE * 4,
    }
    (tmp_path / "empty").mkdir()
    async with doubles_hub.hub(files) as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
        reader = Hub(directory=tmp_path / "empty", environment=environment)
        async with running(tmp_path / "home", hub=reader) as stage:
            split = pb.HubSplit(repository=doubles_hub.REPOSITORY)
            if code is None:
                assert (await stage.datasets.ImportDataset(request(split))).rows == 4
            else:
                refusal = await import_refused(stage, split)
                assert refusal.code is code
            absent = await refused(
                stage.datasets.ImportDataset(request(pb.HubSplit(repository="shop/none"), dataset_id="none"))
            )
            assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "HUB_DATASET_NOT_FOUND")


async def test_an_unknown_split_or_config_is_told_with_those_there_are(tmp_path: Path) -> None:
    hub = repository(tmp_path, train__jsonl=GOOD_LINE.decode(), test__jsonl=GOOD_LINE.decode())
    async with running(tmp_path / "home", hub=hub) as stage:
        split = await import_refused(stage, pb.HubSplit(repository="shop/talks", split="dev"))
        assert (split.code, split.reason) == (grpc.StatusCode.NOT_FOUND, "HUB_DATASET_NOT_FOUND")
        assert "it has test, train" in split.message
        config = await import_refused(stage, pb.HubSplit(repository="shop/talks", config="large"))
        assert config.code is grpc.StatusCode.NOT_FOUND
        assert "it has default" in config.message


async def test_a_bad_row_of_a_repository_is_named_and_its_columns_are_told(tmp_path: Path) -> None:
    hub = repository(tmp_path, train__jsonl='{"question": "a", "answer": "b"}\n')
    async with running(tmp_path / "home", hub=hub) as stage:
        refusal = await import_refused(stage, pb.HubSplit(repository="shop/talks"))
        assert refusal.reason == "BAD_LINES"
        assert '(found: "question", "answer")' in refusal.violations["line 1"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"README__md": "Nothing here."}, "no data files"),
        ({"train__png": "no picture"}, "rows are read from"),
        (
            {"README__md": "---\nconfigs:\n- config_name: a\n  data_files: ../../../secret.jsonl\n---\n"},
            "not its own",
        ),
        ({"train__jsonl": '{"prompt": [oops\n'}, "cannot be read as rows"),
    ],
    ids=["empty", "images", "elsewhere", "damaged"],
)
async def test_a_repository_that_holds_no_readable_rows_of_its_own_is_refused(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    (tmp_path / "secret.jsonl").write_bytes(GOOD_LINE)
    async with running(tmp_path / "home", hub=repository(tmp_path, **files)) as stage:
        refusal = await import_refused(stage, pb.HubSplit(repository="shop/talks"))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert words in refusal.violations["hub.repository"]


async def test_where_there_are_several_configs_and_no_default_one_has_to_be_named(tmp_path: Path) -> None:
    configs = [f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in "ab"]
    readme = f"---\nconfigs:\n{''.join(configs)}---\n"
    hub = repository(
        tmp_path, README__md=readme, a__jsonl=GOOD_LINE.decode(), b__jsonl=GOOD_LINE.decode() * 2
    )
    async with running(tmp_path / "home", hub=hub) as stage:
        refusal = await import_refused(stage, pb.HubSplit(repository="shop/talks"))
        assert refusal.violations == {"hub.config": "must be one of a, b"}
        named = pb.HubSplit(repository="shop/talks", config="b")
        assert (await stage.datasets.ImportDataset(request(named))).rows == 2


async def test_a_hub_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    async with running(tmp_path / "home", hub=repository(tmp_path)) as stage:
        refusal = await import_refused(stage, pb.HubSplit(repository="nobody/nothing"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "HUB_UNREACHABLE")
        assert refusal.retry_seconds == 60


async def test_where_the_hub_is_switched_off_nothing_is_fetched(stage: Stage) -> None:
    refusal = await import_refused(stage, pb.HubSplit(repository="shop/talks"))
    assert "HOTLORA_HUB_DATASETS" in refusal.violations["hub"]


@pytest.mark.parametrize("name", ["json", "/etc/passwd", "../shop/talks", "a/b/c", "a/..", ""])
async def test_what_is_no_owner_and_name_is_refused(stage: Stage, name: str) -> None:
    assert "hub.repository" in (await import_refused(stage, pb.HubSplit(repository=name))).violations
