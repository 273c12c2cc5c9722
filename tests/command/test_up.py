"""`up`: what it says, and that nothing is left behind however it ends."""

import contextlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from hotlora import home, lifeline
from hotlora.command import starting
from hotlora.command.voice import Voice
from hotlora.stack import Ended, Program
from tests.command.conftest import ROOT
from tests.stage.base import write_base
from tests.stage.service import Stage


class Up:
    """A running `up` with stand-ins."""

    def __init__(self, home: Path, grace_seconds: float, *modes: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.command.run_up", str(home), str(grace_seconds), *modes],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self, key: str) -> dict[str, object]:
        """The next thing it says that has this key."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            document: dict[str, object] = json.loads(line)
            if key in document:
                return document
        raise AssertionError(f"up never said {key!r}: {self.process.communicate()[1]}")

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.home / "pids").read_text().split()]

    def ends(self) -> int:
        _, errors = self.process.communicate(timeout=60)
        assert errors == ""
        return self.process.returncode


Start = Callable[..., Up]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Start]:
    """Starts `up` with a grace in seconds and the modes of its stand-ins; cleans up after a failed test."""
    started: list[Up] = []

    def start(grace_seconds: float, *modes: str) -> Up:
        started.append(Up(tmp_path, grace_seconds, *modes))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()
        with contextlib.suppress(FileNotFoundError):
            for pid in one.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; waits for a process that is just ending."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = select.select([descriptor], [], [], 20)
        return bool(readable)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_program_and_up_ends_with_0(up: Start, number: signal.Signals) -> None:
    running = up(30.0, "stay", "stay")
    assert running.says("waiting") == {"waiting": "the stand-ins"}
    assert running.says("ready") == {"ready": {"page": "http://x"}}

    running.process.send_signal(number)

    assert running.ends() == 0
    assert len(running.pids()) == 2
    assert all(is_gone(pid) for pid in running.pids())


def test_programs_that_do_not_end_are_killed_after_the_grace_with_what_they_left(up: Start) -> None:
    running = up(0.2, "stay", "stubborn")
    running.says("ready")

    running.process.terminate()

    assert running.ends() == 0
    assert len(running.pids()) == 3
    assert all(is_gone(pid) for pid in running.pids())


def test_a_second_signal_ends_stubborn_programs_at_once(up: Start) -> None:
    running = up(600.0, "stubborn")
    running.says("ready")

    running.process.send_signal(signal.SIGINT)
    running.says("stopping")
    running.process.send_signal(signal.SIGINT)

    assert running.ends() == 0
    assert all(is_gone(pid) for pid in running.pids())


def test_programs_end_when_up_is_killed(up: Start) -> None:
    running = up(30.0, "stay", "stay")
    running.says("ready")

    running.process.kill()

    assert all(is_gone(pid) for pid in running.pids())


def test_a_program_that_ends_is_told_with_the_end_of_its_log_and_the_others_end_too(up: Start) -> None:
    running = up(30.0, "stay", "fail")

    told = running.says("ended")

    assert told["ended"] == "fail one"
    assert told["exitCode"] == 7
    assert told["lastLines"] == ["starting", "no more room on the device"]
    assert running.ends() == 1
    pids = running.pids() if (running.home / "pids").exists() else []
    assert all(is_gone(pid) for pid in pids)


def test_a_person_reads_what_ended_and_why(tmp_path: Path) -> None:
    written = io.StringIO()
    program = Program(title="service", command=("x",), environment={}, log_path=tmp_path / "service.log")
    voice = Voice(Console(file=written, width=200))

    voice.ended(Ended(program=program, exit_code=-9, last_lines=("last words\x1b[2J",)))

    assert written.getvalue() == (
        f"The service ended: killed by SIGKILL.\nThe end of {program.log_path}:\n  last words[2J\n"
    )


def test_a_wait_is_spoken_of_when_it_changes_and_every_ten_seconds() -> None:
    written = io.StringIO()
    times = iter([0.0, 1.0, 2.0, 3.0, 13.0])
    voice = Voice(Console(file=written, width=200), clock=lambda: next(times))

    for what in (*["the service is starting"] * 2, *["the engine loads"] * 2):
        voice.waiting(what)

    assert written.getvalue().splitlines() == [
        "Waiting: the service is starting, 1 s",
        "Waiting: the engine loads, 3 s",
        "Waiting: the engine loads, 13 s",
    ]


def test_a_person_reads_where_everything_is_and_how_to_end_it() -> None:
    written = io.StringIO()
    times = iter([0.0, 42.0])
    voice = Voice(Console(file=written, width=40), clock=lambda: next(times))

    voice.ready({"page": "http://127.0.0.1:7860", "gateway": "http://127.0.0.1:8080/v1"})
    voice.stopping()

    assert written.getvalue().splitlines()[:5] == [
        "hotlora is up, after 42 s.",
        "  page     http://127.0.0.1:7860",
        "  gateway  http://127.0.0.1:8080/v1",
        "Ctrl-C ends everything.",
        "Ending everything; Ctrl-C again to do it",
    ]


def plan_at(address: str, home_directory: Path, page_address: str | None) -> starting.Plan:
    """What a start would have found to be where."""
    return starting.Plan(
        environment={},
        home=home_directory,
        grpc_address=address,
        gateway_address="",
        page_address=page_address,
    )


@contextlib.contextmanager
def started_service(home_directory: Path, address: str) -> Iterator[None]:
    """A child that has the home and says that it listens at `address`."""
    program = (
        "import sys; from pathlib import Path; from hotlora import home\n"
        "with home.Hold(Path(sys.argv[1])) as hold: hold.listens(sys.argv[2]); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(home_directory), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as child:
        try:
            yield
        finally:
            child.communicate()


async def test_ready_means_that_an_engine_of_each_base_answers_and_the_page_listens(
    without_engine: Stage, tmp_path: Path
) -> None:
    page = socket.socket()
    page.bind(("127.0.0.1", 0))
    heard: list[str] = []
    away = [without_engine.engine, *without_engine.others.values()]

    def waiting(what: str) -> None:
        if away and away[0].url in what:
            without_engine.run(away.pop(0).restart())
        if "page" in what:
            page.listen()
        heard.append(what)

    with page, started_service(tmp_path, without_engine.address):
        chosen = plan_at(without_engine.address, tmp_path, f"127.0.0.1:{page.getsockname()[1]}")
        await starting.ready(chosen, waiting)

    assert not away
    assert any(what.startswith("other-base: ") for what in heard)
    assert heard[-1] == "the page is starting"


async def test_a_service_of_somebody_else_at_the_same_port_is_not_taken_for_ones_own(
    address: str, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as others, contextlib.ExitStack() as ours:
        others.enter_context(home.Hold(tmp_path)).listens(address)
        heard = 0

        def waiting(what: str) -> None:
            nonlocal heard
            assert "the service is starting" in what
            heard += 1
            if heard == 2:
                others.close()
                ours.enter_context(started_service(tmp_path, address))

        await starting.ready(plan_at(address, tmp_path, None), waiting)

        assert heard >= 2


def test_a_home_has_one_service_at_a_time_and_says_which(tmp_path: Path) -> None:
    with home.Hold(tmp_path) as hold:
        hold.listens("127.0.0.1:1234")
        with pytest.raises(home.HomeInUseError, match=rf"process {os.getpid()}, at 127\.0\.0\.1:1234"):
            home.Hold(tmp_path)
    assert home.holder(tmp_path) is None
    with home.Hold(tmp_path):
        assert home.holder(tmp_path) == home.Holder(pid=os.getpid(), parent_pid=os.getppid(), grpc_address="")


def test_flags_win_over_the_environment_and_reach_every_program() -> None:
    plan = starting.plan(
        {"HOTLORA_HOME": "flag-home", "HOTLORA_GRPC_ADDRESS": "127.0.0.1:0"},
        with_page=True,
        environment={"HOTLORA_HOME": "other", "HOTLORA_UI_ADDRESS": "127.0.0.1:7000"},
    )

    port = int(plan.grpc_address.rpartition(":")[2])
    assert port > 0
    assert plan.home == Path("flag-home")
    assert plan.urls() == {
        "page": "http://127.0.0.1:7000",
        "gateway": "http://127.0.0.1:8080/v1",
        "grpc": plan.grpc_address,
    }
    assert [program.command[1:] for program in plan.programs()] == [("-m", "service"), ("-m", "ui")]
    for program in plan.programs():
        assert program.environment["HOTLORA_HOME"] == "flag-home"
        assert program.environment["HOTLORA_ADDRESS"] == program.environment["HOTLORA_GRPC_ADDRESS"]


def test_up_takes_a_base_model_after_the_other(tmp_path: Path) -> None:
    first, second = write_base(tmp_path), tmp_path / "nowhere"
    bases = ("--base-model", first, "--base-model", second)
    places = ("--home", tmp_path / "home", "--grpc-address", "127.0.0.1:0")
    ended = subprocess.run(
        [sys.executable, "-m", "hotlora.command", "up", "--no-page", *places, *bases],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode != 0
    assert str(second) in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("--engine-url", "http://127.0.0.1:1", "--engine-url", "nonsense"),
            "HOTLORA_ENGINE_URLS[1]: ",
        ),
        (
            ("--engine-url", "http://127.0.0.1:1", "--engine-replicas", "2"),
            "HOTLORA_ENGINE_REPLICAS is of engines that are started here, and HOTLORA_ENGINE_URLS",
        ),
        (("--engine-port", "65535", "--engine-replicas", "2"), "HOTLORA_ENGINE_PORT 65535 leaves no ports"),
    ],
    ids=["url", "replicas", "port"],
)
def test_engines_of_flags_that_cannot_be_are_refused_by_the_settings_name(
    tmp_path: Path, options: Sequence[str], told: str
) -> None:
    places = (
        "--home",
        tmp_path / "home",
        "--grpc-address",
        "127.0.0.1:0",
        "--gateway-address",
        "127.0.0.1:0",
    )
    ended = subprocess.run(
        [sys.executable, "-m", "hotlora.command", "up", "--no-page", *places, *options],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert f"  {told}" in ended.stdout


def test_without_a_page_only_the_service_runs() -> None:
    plan = starting.plan({}, with_page=False, environment={})

    assert [program.title for program in plan.programs()] == ["service"]
    assert "page" not in plan.urls()


def test_nothing_is_held_where_nobody_asked_for_it() -> None:
    assert lifeline.hold(lambda: None, environment={}) is None


def test_the_end_of_stdin_is_heard_once_after_whatever_came_before() -> None:
    read_end, write_end = os.pipe()
    heard: list[int] = []
    with os.fdopen(read_end, "rb") as stdin:
        thread = lifeline.hold(
            lambda: heard.append(1), environment={"HOTLORA_STOP_ON_STDIN_EOF": "1"}, stdin=stdin
        )
        assert thread is not None
        os.write(write_end, b"noise")
        os.close(write_end)
        thread.join(timeout=20)

    assert heard == [1]
