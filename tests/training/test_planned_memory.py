"""What a plan says of memory is what a run needs, measured in processes of their own."""

from pathlib import Path

import pytest
import torch

from benchmarks.planning import Case, measure, planned_bytes
from benchmarks.planning_bases import build
from tests.training.tiny import write_tokenizer
from trainer.config import Technique
from trainer.rendering import Renderer

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="resident memory says nothing of a GPU")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 million parameters, most of them embeddings."""
    folder = tmp_path_factory.mktemp("bases")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    write_tokenizer(tokenizer)
    return build(folder, "llama-20m", tokenizer)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("technique", [Technique.LORA, Technique.QLORA, Technique.FULL])
def test_planned_memory_is_never_far_below_what_a_run_needs(
    base: Path, tmp_path: Path, technique: Technique
) -> None:
    case = Case(base="llama-20m", technique=technique, batch=4, length=64)
    needed = measure(case, base, tmp_path)
    planned = planned_bytes(case, base, Renderer.from_directory(base), tmp_path / "rows.jsonl")
    assert 0.8 * needed < planned < 1.25 * needed
