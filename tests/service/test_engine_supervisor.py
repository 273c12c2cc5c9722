"""The supervisor with real processes: a double of vLLM as a child, on a real leash."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import torch

from service.changes import Changes
from service.engine import EngineState, Supervisor, fleet, leash
from service.engine.client import IDLE_SECONDS
from service.engine.command import (
    EngineCommand,
    Room,
    allowed_rank,
    memory_needed,
    own_engine_command,
    room_for_own_engine,
    vllm_command,
)
from service.engine.environment import cache_gib
from service.engine.packages import EngineCannotStartError, Packages
from service.engine.supervisor import CommandBuilder, Health
from service.errors import Unavailable
from service.machine import Gpu
from service.settings import Settings
from trainer.config import BaseModel
from trainer.precision import fastest_dtype

ROOT = Path(__file__).resolve().parents[2]
BASE = BaseModel(name="base", path=Path("/models/base"), revision="sha256:0")
QUICK = Health(
    ready_poll_seconds=0.02,
    probe_interval_seconds=0.05,
    probe_timeout_seconds=2.0,
    first_backoff_seconds=0.01,
    last_backoff_seconds=0.02,
)


def _double(*arguments: str) -> CommandBuilder:
    """Builds the command of a double that is told `arguments` too."""

    def build(port: int, api_key: str) -> EngineCommand:
        command = (sys.executable, "-m", "tests.doubles.engine", "--port", str(port), *arguments)
        environment = {**os.environ, "VLLM_API_KEY": api_key, "PYTHONPATH": str(ROOT)}
        return EngineCommand(arguments=command, environment=environment)

    return build


@asynccontextmanager
async def _running(
    tmp_path: Path, command: CommandBuilder | None = None, health: Health = QUICK, **settings: float
) -> AsyncIterator[tuple[Supervisor, Changes]]:
    changes = Changes()
    configured = Settings.model_validate({"home": tmp_path, "engine_port": 0, **settings})
    supervisor = Supervisor(
        settings=configured, base=BASE, changes=changes, command=command or _double(), health=health
    )
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until(changes: Changes, reached: Callable[[], bool]) -> None:
    """Wait for the engine to tell of something that makes `reached` true."""
    async with asyncio.timeout(30):
        seen = changes.seen("engine")
        while not reached():
            seen = await changes.wait("engine", seen, timeout_seconds=1)


def _group(pgid: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pgid and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


async def test_an_engine_becomes_ready_once_it_gives_a_token(tmp_path: Path) -> None:
    async with _running(tmp_path) as (engine, changes):
        assert engine.state is EngineState.STARTING
        await _until(changes, lambda: engine.state is EngineState.READY)

        assert (engine.generation, engine.restarts) == (1, 0)
        assert [model.name for model in await engine.client.models()] == ["base"]


async def test_a_killed_engine_is_started_again_as_a_new_generation(tmp_path: Path) -> None:
    async with _running(tmp_path) as (engine, changes):
        await _until(changes, lambda: engine.state is EngineState.READY)
        first_client = engine.client
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await _until(changes, lambda: engine.state is EngineState.READY and engine.generation == 2)

        assert engine.restarts == 1
        assert engine.client is not first_client
        with pytest.raises(Unavailable):
            await first_client.models()


async def test_replicas_of_our_own_run_beside_each_other_and_one_is_started_again_alone(
    tmp_path: Path,
) -> None:
    changes = Changes()
    settings = Settings.model_validate({"home": tmp_path, "engine_port": 0, "engine_replicas": 2})
    engines = fleet(settings, base=BASE, changes=changes, command=_double())
    task = asyncio.create_task(engines.run())
    try:
        await _until(changes, lambda: len(engines.ready) == 2)
        first, second = engines.engines
        assert isinstance(first, Supervisor)
        assert first.client.url != second.client.url
        assert first.pid is not None
        os.killpg(first.pid, signal.SIGKILL)

        await _until(changes, lambda: first.generation == 2 and first.state is EngineState.READY)

        assert (second.generation, engines.restarts) == (1, 1)
        assert sorted(path.name for path in settings.logs_dir.iterdir()) == ["engine-2.log", "engine.log"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_engine_whose_leash_is_killed_is_ended_and_started_again(tmp_path: Path) -> None:
    async with _running(tmp_path) as (engine, changes):
        await _until(changes, lambda: engine.state is EngineState.READY)
        assert engine.pid is not None
        group = engine.pid
        os.kill(psutil.Process(group).ppid(), signal.SIGKILL)
        await _until(changes, lambda: engine.state is EngineState.READY and engine.generation == 2)

        assert _group(group) == []


async def test_a_hung_engine_is_found_by_its_missing_tokens_and_started_again(tmp_path: Path) -> None:
    health = Health(
        ready_poll_seconds=0.02,
        probe_interval_seconds=0.02,
        probe_timeout_seconds=0.5,
        warm_up_seconds=0.5,
        first_backoff_seconds=0.01,
    )
    async with _running(tmp_path, health=health) as (engine, changes):
        await _until(changes, lambda: engine.state is EngineState.READY)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        await _until(changes, lambda: engine.state is EngineState.READY and engine.generation == 2)


async def test_ending_the_supervisor_ends_the_engine_and_its_children(tmp_path: Path) -> None:
    async with _running(tmp_path) as (engine, changes):
        await _until(changes, lambda: engine.state is EngineState.READY)
        assert engine.pid is not None
        group = engine.pid
        assert _group(group)

    assert _group(group) == []


async def test_an_engine_that_cannot_start_is_down_with_the_reason_and_tried_again(tmp_path: Path) -> None:
    def refuse(port: int, api_key: str) -> EngineCommand:
        raise EngineCannotStartError("the plugin is not installed")

    async with _running(tmp_path, refuse) as (engine, changes):
        await _until(changes, lambda: engine.generation >= 2 and engine.state is EngineState.DOWN)

        assert "the plugin is not installed" in engine.message
        with pytest.raises(Unavailable):
            _ = engine.client


async def test_an_engine_that_dies_at_its_start_is_down_with_the_reason(tmp_path: Path) -> None:
    async with _running(tmp_path, _double("--no-such-flag")) as (engine, changes):
        await _until(changes, lambda: engine.generation >= 2 and engine.state is EngineState.DOWN)

        assert "status 2" in engine.message
        assert "--no-such-flag" in (tmp_path / "logs" / "engine.log").read_text()


async def test_an_engine_that_never_gives_a_token_is_ended_and_started_again(tmp_path: Path) -> None:
    hanging = _double("--faults", '{"hanging": true}')
    async with _running(tmp_path, hanging, engine_start_timeout_seconds=0.5) as (engine, changes):
        await _until(changes, lambda: engine.generation >= 2)


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, _running(tmp_path, engine_port=port) as (engine, changes):
        await _until(changes, lambda: engine.state is EngineState.DOWN)

        assert str(port) in engine.message
        assert engine.generation == 0


_SERVICE = """
import subprocess, sys
leash = subprocess.Popen(
    [sys.executable, sys.argv[1], sys.executable, "-c",
     "import subprocess, sys, time, tempfile;"
     "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
     "print(tempfile.mkstemp()[1], file=sys.stderr, flush=True); time.sleep(60)"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
)
print(leash.stdout.readline().decode().strip(), flush=True)
leash.wait()
"""


def test_a_service_killed_with_sigkill_leaves_no_engine_behind_and_none_of_its_temporary_files() -> None:
    service = subprocess.Popen(
        [sys.executable, "-c", _SERVICE, leash.__file__], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert service.stdout is not None and service.stderr is not None
    group = int(service.stdout.readline())
    file = Path(service.stderr.readline().decode().strip())
    members = _group(group)
    assert (len(members), file.is_file(), file.parent.name.startswith(leash.PREFIX)) == (2, True, True)
    keeper = psutil.Process(group).parent()
    assert keeper is not None

    service.kill()
    service.wait()

    _, alive = psutil.wait_procs([*members, keeper], timeout=10)
    assert (alive, file.parent.exists()) == ([], False)
    service.stdout.close()
    service.stderr.close()


def test_a_leash_ends_with_the_status_of_its_command() -> None:
    for code, status in (("import sys; sys.exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)):
        command = [sys.executable, leash.__file__, sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.wait(timeout=20) == status


def test_an_engines_sockets_fit_however_long_the_place_for_temporary_files_is_called(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    binds = (
        "import os, socket, tempfile; name = tempfile.gettempdir() + '/' + 36 * 's';"
        "socket.socket(socket.AF_UNIX).bind(name); assert os.path.exists(name)"
    )
    command = [sys.executable, leash.__file__, sys.executable, "-c", binds]
    environment = {**os.environ, "TMPDIR": str(long)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(("rank", "allowed"), [(1, 1), (2, 8), (16, 16), (17, 32), (500, 512)])
def test_a_rank_is_rounded_up_to_one_that_vllm_accepts(rank: int, allowed: int) -> None:
    assert allowed_rank(rank) == allowed


def test_the_command_keeps_the_key_out_of_the_arguments_and_off_every_interface(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, engine_max_rank=20)
    base = BaseModel(name="base", path=tmp_path, revision="sha256:0")

    command = vllm_command(settings, base, port=8123, api_key="very-secret")

    assert not any("very-secret" in argument for argument in command.arguments)
    assert command.environment["VLLM_API_KEY"] == "very-secret"
    following = dict(zip(command.arguments, command.arguments[1:], strict=False))
    assert following["--host"] == "127.0.0.1"
    assert following["--port"] == "8123"
    assert following["--max-lora-rank"] == "32"
    assert following["--served-model-name"] == "base"
    # Whoever closes an idle connection first must be the client, or a call may meet a closing one.
    assert float(command.environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) > IDLE_SECONDS


def test_an_engine_is_told_where_spans_go_where_there_is_such_a_place(tmp_path: Path) -> None:
    packages = Packages(is_cpu_build=True, cpu_plugin="hotlora_cpu_lora")
    url = "http://127.0.0.1:4318/v1/traces"
    traced, other = Settings(home=tmp_path, traces_endpoint=url), Settings(home=tmp_path)
    for build in (vllm_command, own_engine_command):
        command = build(traced, BASE, port=1, api_key="k", packages=packages)
        assert command.arguments[command.arguments.index("--otlp-traces-endpoint") + 1] == url
        assert command.environment["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
        command = build(other, BASE, port=1, api_key="k", packages=packages)
        assert "--otlp-traces-endpoint" not in command.arguments


def test_a_cpu_engine_computes_in_the_numbers_that_the_trainer_learns_in(tmp_path: Path) -> None:
    packages = Packages(is_cpu_build=True, cpu_plugin="hotlora_cpu_lora")
    learnt_in = str(fastest_dtype(torch.device("cpu"))).removeprefix("torch.")
    for build in (vllm_command, own_engine_command):
        command = build(Settings(home=tmp_path), BASE, port=1, api_key="k", packages=packages)
        assert command.arguments[command.arguments.index("--dtype") + 1] == learnt_in


def test_a_cpu_engine_is_not_started_without_the_plugin_and_with_it_gets_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    bare = Packages(is_cpu_build=True, cpu_plugin=None)
    with pytest.raises(EngineCannotStartError, match="hotlora-vllm-cpu-lora"):
        vllm_command(settings, BASE, port=1, api_key="k", packages=bare)

    fitted = Packages(is_cpu_build=True, cpu_plugin="hotlora_cpu_lora")
    command = vllm_command(settings, BASE, port=1, api_key="k", packages=fitted)
    assert "hotlora_cpu_lora" in command.environment["VLLM_PLUGINS"].split(",")


def test_the_cache_of_a_cpu_engine_is_as_large_as_vllms_own_variable_says() -> None:
    name = "VLLM_CPU_KVCACHE_SPACE"
    assert [cache_gib(environment) for environment in ({}, {name: ""}, {name: "4"})] == [1, 1, 4]
    with pytest.raises(EngineCannotStartError, match=f"{name} is 'lots'; it takes a whole number of GiB"):
        cache_gib({name: "lots"})


def test_a_cuda_engine_needs_no_plugin_and_chooses_its_own_number_format(tmp_path: Path) -> None:
    cuda = Packages(is_cpu_build=False, cpu_plugin=None)

    command = vllm_command(Settings(home=tmp_path), BASE, port=1, api_key="k", packages=cuda)

    assert command.arguments[command.arguments.index("--dtype") + 1] == "auto"
    assert "OMP_NUM_THREADS" not in command.environment.keys() - os.environ.keys()


def test_an_engine_is_one_process_behind_its_server_unless_its_threads_are_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = Packages(is_cpu_build=True, cpu_plugin="hotlora_cpu_lora")
    cuda = Packages(is_cpu_build=False, cpu_plugin=None)
    name = "VLLM_CPU_OMP_THREADS_BIND"
    for bound, packages, says_so in ((None, fitted, True), ("0-1", fitted, False), (None, cuda, False)):
        monkeypatch.delenv(name, raising=False)
        if bound is not None:
            monkeypatch.setenv(name, bound)
        for build in (vllm_command, own_engine_command):
            command = build(Settings(home=tmp_path), BASE, port=1, api_key="k", packages=packages)
            assert ("--distributed-executor-backend" in command.arguments) is says_so
            # Which is forked off its server, where vLLM would have it import everything anew.
            assert (command.environment.get("VLLM_WORKER_MULTIPROC_METHOD") == "fork") is says_so


def test_what_an_engine_compiled_is_there_for_the_next_though_temporary_files_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch sets it where it compiles
    for packages in (
        Packages(is_cpu_build=True, cpu_plugin="hotlora_cpu_lora"),
        Packages(is_cpu_build=False, cpu_plugin=None),
    ):
        command = vllm_command(Settings(home=tmp_path), BASE, port=1, api_key="k", packages=packages)
        assert command.environment["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")


def test_a_cuda_engine_needs_no_compiler_to_sample_unless_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = Packages(is_cpu_build=False, cpu_plugin=None)
    name = "VLLM_USE_FLASHINFER_SAMPLER"

    for said, meant in ((None, "0"), ("1", "1")):
        if said is not None:
            monkeypatch.setenv(name, said)
        command = vllm_command(Settings(home=tmp_path), BASE, port=1, api_key="k", packages=cuda)
        assert command.environment[name] == meant


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions"])
def test_the_context_is_not_longer_than_the_base_models(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"{name}": 128}}')
    base = BaseModel(name="base", path=tmp_path, revision="sha256:0")
    packages = Packages(is_cpu_build=False, cpu_plugin=None)

    command = vllm_command(Settings(home=tmp_path), base, port=1, api_key="k", packages=packages)

    assert command.arguments[command.arguments.index("--max-model-len") + 1] == "128"


@pytest.mark.parametrize(
    ("architecture", "takes"),
    [("LlamaForCausalLM", True), ("MistralForCausalLM", True), ("GPT2LMHeadModel", False), ("Unknown", True)],
)
def test_a_base_of_whose_kind_vllm_serves_no_adapters_gets_an_engine_without_them(
    tmp_path: Path, architecture: str, *, takes: bool
) -> None:
    (tmp_path / "config.json").write_text(f'{{"architectures": ["{architecture}"]}}')
    base = BaseModel(name="base", path=tmp_path, revision="sha256:0")
    packages = Packages(is_cpu_build=False, cpu_plugin=None)

    command = vllm_command(Settings(home=tmp_path), base, port=1, api_key="k", packages=packages)

    assert ("--enable-lora" in command.arguments, "--max-lora-rank" in command.arguments) == (takes, takes)
    assert "--enable-prompt-embeds" in command.arguments


def test_an_own_engine_takes_neither_adapters_nor_embeddings_and_starts_without_compiling(
    tmp_path: Path,
) -> None:
    packages = Packages(is_cpu_build=True, cpu_plugin="hotlora_cpu_lora")

    command = own_engine_command(Settings(home=tmp_path), BASE, port=1, api_key="k", packages=packages)

    assert "--enforce-eager" in command.arguments
    assert not {"--enable-lora", "--enable-prompt-embeds"} & set(command.arguments)
    assert command.arguments[command.arguments.index("--host") + 1] == "127.0.0.1"
    assert "k" not in command.arguments


def test_two_engines_share_a_gpu_as_the_settings_say_and_a_cpu_without_a_word(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, engine_gpu_memory_fraction=0.5, own_engine_gpu_memory_fraction=0.3)
    cuda, cpu = [Packages(is_cpu_build=is_cpu, cpu_plugin="p") for is_cpu in (False, True)]

    for build, fraction in ((vllm_command, "0.5"), (own_engine_command, "0.3")):
        arguments = build(settings, BASE, port=1, api_key="k", packages=cuda).arguments
        assert arguments[arguments.index("--gpu-memory-utilization") + 1] == fraction
        without = build(settings, BASE, port=1, api_key="k", packages=cpu).arguments
        assert "--gpu-memory-utilization" not in without


def test_an_own_engine_on_a_gpu_needs_its_share_of_it_to_be_free(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, own_engine_gpu_memory_fraction=0.25)
    card = Gpu(name="a card", memory_bytes=80 << 30, free_bytes=12 << 30)
    cuda, cpu = [Packages(is_cpu_build=is_cpu, cpu_plugin="p") for is_cpu in (False, True)]

    on_gpu, on_cpu = [
        room_for_own_engine(settings, BASE, packages=each, look=lambda: card) for each in (cuda, cpu)
    ]

    assert on_gpu == Room(kind="GPU memory", needed_bytes=20 << 30, available_bytes=12 << 30)
    assert (on_cpu.kind, on_cpu.needed_bytes) == ("memory", memory_needed(BASE))


def test_the_default_shares_of_a_gpu_leave_room_to_train(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)

    engines = settings.own_engines * settings.own_engine_gpu_memory_fraction
    assert settings.engine_gpu_memory_fraction + engines <= 0.7


def test_the_memory_of_an_own_engine_is_told_from_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\0" * (1 << 20))
    empty = BaseModel(name="x", path=tmp_path / "missing", revision="r")
    model = BaseModel(name="x", path=tmp_path, revision="r")

    assert memory_needed(model) - memory_needed(empty) in {1 << 20, 2 << 20}  # 16 or 32 bits
    assert memory_needed(empty) >= 2 << 30
