"""From a name to a directory: what is accepted, what is refused, and how a revision changes."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.doubles import hub as doubles_hub
from tests.training.conftest import Bases
from tests.training.processes import ROOT
from trainer import adapter
from trainer.base_model import BaseModelError, check_directory, linear_module_names, resolve
from trainer.model import load_base


@pytest.fixture
def copy(base_of: Bases, tmp_path: Path) -> Path:
    """A tiny base that a test may spoil."""
    directory = tmp_path / "copy"
    directory.mkdir()
    for file in base_of("llama").iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return directory


def edit_config(directory: Path, **fields: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_local_directory_is_named_after_itself_and_measured(copy: Path, tmp_path: Path) -> None:
    model = resolve(str(copy), tmp_path / "models")
    assert (model.name, model.path, model.max_model_length) == ("copy", copy, 512)
    assert model.revision.startswith("sha256:")


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bloom"])
def test_linear_layers_are_known_by_name_without_loading_the_model(base_of: Bases, family: str) -> None:
    loaded = load_base(base_of(family), torch.float32).model
    assert linear_module_names(base_of(family)) == adapter.linear_module_names(loaded)


def test_a_revision_changes_with_any_byte_of_weights_config_or_tokenizer(copy: Path, tmp_path: Path) -> None:
    seen = {resolve(str(copy), tmp_path / "models").revision}
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        content = (copy / name).read_bytes()
        changed = content[:-1] + (b"\x01" if name == "model.safetensors" else content[-1:] + b" ")
        (copy / name).write_bytes(changed)
        seen.add(resolve(str(copy), tmp_path / "models").revision)
    assert len(seen) == 5


def test_a_revision_does_not_change_with_other_files_or_with_being_asked_again(
    copy: Path, tmp_path: Path
) -> None:
    first = resolve(str(copy), tmp_path / "models")
    (copy / "README.md").write_text("words")
    assert resolve(str(copy), tmp_path / "models") == first
    assert resolve(str(copy), tmp_path / "other-models") == first


def test_pickled_weights_alone_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="pickled"):
        check_directory(copy)


def test_a_cut_off_weight_file_is_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(BaseModelError, match="not a whole safetensors file"):
        check_directory(copy)


def test_a_missing_shard_is_named(copy: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    with pytest.raises(BaseModelError, match="lacks model-00002-of-00002"):
        check_directory(copy)


def test_a_model_that_does_not_speak_is_refused(copy: Path) -> None:
    edit_config(copy, architectures=["BertForMaskedLM"])
    with pytest.raises(BaseModelError, match="BertForMaskedLM"):
        check_directory(copy)


def test_a_model_without_a_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match=r"tokenizer\.json"):
        check_directory(copy)


@pytest.mark.parametrize(
    "name", ["../gone", "/nowhere/at/all", "a b", "a/b/c", "https://example.com/model", ""]
)
def test_what_is_neither_directory_nor_id_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError):
        resolve(name, tmp_path)


def test_without_network_an_unknown_id_is_refused_in_a_sentence(tmp_path: Path) -> None:
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "trainer.base_model",
            "--name",
            "nobody/nothing",
            "--models-dir",
            str(tmp_path),
        ],
        cwd=ROOT,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[-1].startswith("error: nobody/nothing could not be fetched")


async def test_an_id_of_the_hub_becomes_its_newest_commit_with_the_files_of_a_model_alone(
    copy: Path, tmp_path: Path
) -> None:
    files = {file.name: file.read_bytes() for file in copy.iterdir()}
    others = {"pytorch_model.bin": b"pickle", "modeling_tiny.py": b"import os", "README.md": b"words"}
    async with doubles_hub.hub({**files, **others}, kind="models") as address:
        command = [sys.executable, "-m", "trainer.base_model", "--name", doubles_hub.REPOSITORY]
        answer = await asyncio.create_subprocess_exec(
            *command,
            *("--models-dir", str(tmp_path)),
            cwd=ROOT,
            env={"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub")},
            stdout=subprocess.PIPE,
        )
        told, _ = await answer.communicate()
    model = json.loads(told)
    assert (model["name"], model["revision"]) == (doubles_hub.REPOSITORY, doubles_hub.COMMIT)
    fetched = {file.name: file.read_bytes() for file in Path(model["path"]).iterdir()}
    assert fetched == files


def test_the_command_prints_one_line_of_json(copy: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "trainer.base_model", "--name", str(copy), "--models-dir", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    (line,) = answer.stdout.splitlines()
    assert json.loads(line)["path"] == str(copy)
    assert set(json.loads(line)) == {"name", "path", "revision", "max_model_length"}


def test_the_embedded_default_is_whole_and_leaves_nothing_half_made(base_model_dir: Path) -> None:
    assert check_directory(base_model_dir) == 8192
    assert not list(base_model_dir.parent.glob(".*.tmp-*"))
