"""How many adapters an engine holds: as set, or as many as the machine has room for."""

from pathlib import Path

import pytest

from service.changes import Changes
from service.engine import Supervisor, fleet
from service.engine.capacity import Capacity, capacity_of
from service.engine.command import vllm_command
from service.engine.packages import Packages
from service.settings import Settings
from tests.training.tiny import build_base
from trainer.config import BaseModel
from trainer.processor import has_native_bfloat16

GIB = 1 << 30


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return BaseModel(name="tiny", path=build_base(tmp_path / "tiny", "llama"), revision="sha256:0")


def test_the_cache_is_what_fits_into_an_eighth_of_memory_and_shared_by_engines_of_one_machine(
    tmp_path: Path, base: BaseModel
) -> None:
    # Of a hidden size of 32, with keys of 16 and an intermediate size of 64, in each of 2 layers.
    numbers = 2 * (2 * (32 + 32) + 2 * (32 + 16) + 2 * (32 + 64) + (64 + 32))
    size = numbers * 64 * (2 if has_native_bfloat16() else 4)
    memory = 8 * size * 100 + 7

    one, two = [
        capacity_of(Settings(home=tmp_path, engine_replicas=replicas), base, memory_bytes=memory)
        for replicas in (1, 2)
    ]

    assert (one, two) == (Capacity(slots=4, cached=100), Capacity(slots=4, cached=50))


def test_the_cache_has_bounds_and_is_never_smaller_than_the_slots(tmp_path: Path, base: BaseModel) -> None:
    settings = Settings(home=tmp_path, engine_max_loras=6)
    assert capacity_of(settings, base, memory_bytes=1000).cached == 6
    assert capacity_of(settings, base, memory_bytes=1000 * GIB).cached == 1024
    unknown = BaseModel(name="base", path=tmp_path, revision="sha256:0")
    assert capacity_of(settings, unknown, memory_bytes=1000 * GIB).cached == 64
    few = Settings(home=tmp_path, engine_max_loras=6, engine_max_cpu_loras=3)
    assert capacity_of(few, base, memory_bytes=GIB) == Capacity(slots=6, cached=6)


def test_what_is_told_of_an_engine_of_ours_is_what_it_is_started_with(
    tmp_path: Path, base: BaseModel
) -> None:
    settings = Settings(home=tmp_path, engine_max_loras=3, engine_max_cpu_loras=20)
    (engine,) = fleet(settings, base=base, changes=Changes()).engines
    packages = Packages(is_cpu_build=True, cpu_plugin="plugin")

    command = vllm_command(settings, base, port=1, api_key="", packages=packages).arguments

    assert isinstance(engine, Supervisor)
    assert engine.capacity == Capacity(slots=3, cached=20)
    assert command[command.index("--max-loras") + 1] == "3"
    assert command[command.index("--max-cpu-loras") + 1] == "20"
