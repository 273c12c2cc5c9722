"""Adapters that come from elsewhere and go elsewhere, by the command."""

from pathlib import Path

from hotlora import requests
from hotlora.client import Client
from tests.command.conftest import Hotlora
from tests.contract.test_adapter_imports import weights, written
from tests.stage.service import Stage

MODULE = "base_model.model.model.layers.1.self_attn.q_proj"
TENSORS = weights({f"{MODULE}.lora_A.weight": (4, 16), f"{MODULE}.lora_B.weight": (16, 4)})


def test_an_imported_adapter_is_proven_answers_and_leaves_as_it_came(
    stage: Stage, hotlora: Hotlora, adapter: str, tmp_path: Path
) -> None:
    source, target = written(tmp_path / "mine", TENSORS), tmp_path / "out"

    imported = hotlora("adapters", "import", str(source), "--adapter", adapter)

    assert imported.code == 0, imported.err
    assert f"{adapter}@1 is ACTIVE" in imported.out
    with Client(stage.address) as client:
        told = "".join(piece.delta for piece in client.chat([requests.user("hi")], model=adapter))
    assert told == f"It is {adapter}@1."
    shown = hotlora("adapters", "show", f"{adapter}@1")
    assert shown.code == 0
    assert "from the trained" in shown.out

    exported = hotlora("adapters", "export", f"{adapter}@1", "--to", str(target))

    assert exported.code == 0, exported.err
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (target / "adapter_model.safetensors").read_bytes() == TENSORS
    merged = hotlora(
        "adapters", "export", f"{adapter}@1", "--to", str(tmp_path / "whole"), "--format", "merged"
    )
    assert merged.code == 0, merged.err
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == TENSORS
    refused = hotlora(
        "adapters", "export", f"{adapter}@1", "--to", str(tmp_path / "gguf"), "--format", "gguf"
    )
    assert (refused.code, "HOTLORA_LLAMA_CPP_DIR" in refused.err) == (5, True)
    again = hotlora("adapters", "export", f"{adapter}@1", "--to", str(target))
    assert (again.code, "exists" in again.err) == (2, True)


def test_an_adapter_that_does_not_fit_is_told_field_by_field(
    hotlora: Hotlora, address: str, adapter: str, tmp_path: Path
) -> None:
    source = written(tmp_path / "mine", TENSORS, use_dora=True, bias="all")

    refused = hotlora("adapters", "import", str(source), "--adapter", adapter)

    assert refused.code == 2
    for field in ("adapter_config.json.use_dora", "adapter_config.json.bias"):
        assert field in refused.err
    with Client(address) as client:
        assert adapter not in {one.name.removeprefix("adapters/") for one in client.list_adapters().adapters}


def test_a_directory_without_safetensors_is_no_adapter(
    hotlora: Hotlora, adapter: str, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    refused = hotlora("adapters", "import", str(tmp_path), "--adapter", adapter)
    assert refused.code == 2
    assert "adapter_model.safetensors" in refused.err
