"""Which GPU counts, asked of a tool that speaks as nvidia-smi does."""

from pathlib import Path

import pytest

from service.machine import gpu

TWO = """\
0, GPU-11111111-aaaa, NVIDIA A, 81559, 81000
1, GPU-22222222-bbbb, NVIDIA B, 24576, 24000
"""


def machine(folder: Path, told: str, **variables: str) -> dict[str, str]:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{told}END\n")
    tool.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", **variables}


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        (None, "NVIDIA A"),
        ("1", "NVIDIA B"),
        ("1,0", "NVIDIA B"),
        ("GPU-22222222", "NVIDIA B"),
        ("MIG-33333333", "NVIDIA A"),
    ],
)
def test_the_gpu_is_the_first_one_that_may_be_used(tmp_path: Path, visible: str | None, name: str) -> None:
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = gpu(machine(tmp_path, TWO, **variables))
    assert found is not None
    assert found.name == name
    sizes = {"NVIDIA A": (81559 << 20, 81000 << 20), "NVIDIA B": (24576 << 20, 24000 << 20)}
    assert (found.memory_bytes, found.free_bytes) == sizes[name]


@pytest.mark.parametrize("visible", ["", "-1"])
def test_no_gpu_counts_where_none_may_be_used(tmp_path: Path, visible: str) -> None:
    assert gpu(machine(tmp_path, TWO, CUDA_VISIBLE_DEVICES=visible)) is None


def test_a_tool_without_a_gpu_behind_it_tells_of_none(tmp_path: Path) -> None:
    told = "NVIDIA-SMI has failed because it could not talk to the driver.\n"
    assert gpu(machine(tmp_path, told)) is None
    assert gpu({"PATH": str(tmp_path / "empty")}) is None
