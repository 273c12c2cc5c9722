"""The command at a real terminal: the bar, the columns, the conversation, Ctrl-C."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotlora.client import Client
from hotlora.command.calling import connected
from hotlora.v1.tuning_service_pb2 import TuningJob
from tests.command.conftest import ROOT, until
from tests.stage.service import Stage

_SILENCE_SECONDS = 60.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A command that believes to be at a terminal of 120 columns."""

    def __init__(self, address: str, *arguments: str) -> None:
        self._controller, device = pty.openpty()
        termios.tcsetwinsize(device, (30, 120))
        self.process = subprocess.Popen(
            # The terminal sends Ctrl-C to the session that owns it.
            ["setsid", "--ctty", sys.executable, "-m", "hotlora.command", *arguments],
            stdin=device,
            stdout=device,
            stderr=device,
            cwd=ROOT,
            env={**os.environ, "HOTLORA_ADDRESS": address, "TERM": "xterm-256color"},
        )
        os.close(device)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._controller, text.encode())

    def reads(self, words: str, *, times: int = 1) -> None:
        """Waits until these words are on the terminal, so many times."""
        while self.seen.count(words) < times:
            if not self._read():
                raise AssertionError(f"{words!r} never came; there was: {self.seen}")

    def ends(self) -> int:
        while self._read():
            pass
        os.close(self._controller)
        return self.process.wait(timeout=30)

    def _read(self) -> bool:
        readable, _, _ = select.select([self._controller], [], [], _SILENCE_SECONDS)
        if not readable:
            raise AssertionError(f"nothing more came; there was: {self.seen}")
        try:
            received = os.read(self._controller, 65_536)
        except OSError:  # Linux says so that the other end is closed.
            return False
        self.seen += _ESCAPES.sub("", received.decode(errors="replace"))
        return bool(received)


@pytest.fixture
def terminal(address: str) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def run(*arguments: str) -> Terminal:
        opened.append(Terminal(address, *arguments))
        return opened[-1]

    yield run
    for one in opened:
        one.process.kill()
        one.process.wait()


Run = Callable[..., Terminal]


def test_training_shows_a_bar_with_loss_course_and_time_left(
    stage: Stage, terminal: Run, rows: Path, adapter: str
) -> None:
    gate = stage.gate(adapter)
    run = terminal("train", str(rows), "--adapter", adapter)
    run.reads("loss 2.0000")  # it follows from the first step on
    gate.touch()

    assert run.ends() == 0
    assert re.search(r"━+ +5/5 +loss 0\.4000 █[▁-█]{3}▁ +100 tok/s +0 s left", run.seen)
    assert "step 4: loss 0.5000 on the 3 rows set aside" in run.seen
    assert f"{adapter}@1 is ACTIVE" in run.seen


def test_ctrl_c_leaves_the_job_running_and_says_so(
    stage: Stage, terminal: Run, rows: Path, adapter: str
) -> None:
    gate = stage.gate(adapter)
    run = terminal("train", str(rows), "--adapter", adapter)
    run.reads("loss 2.0000")

    run.type("\x03")

    assert run.ends() == 130
    with Client(stage.address) as client:
        (job,) = client.list_tuning_jobs(adapter=f"adapters/{adapter}").tuning_jobs
        assert job.state == TuningJob.STATE_RUNNING
        gate.touch()
        until(client, job.name, TuningJob.STATE_SUCCEEDED)
    short = job.name.removeprefix("tuningJobs/")
    assert f"The job goes on; `hotlora cancel {short}` would stop it." in run.seen
    assert "Traceback" not in run.seen


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Does what it does to a process in the foreground, however the tests were started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_command_where_the_exception_is_swallowed_as_grpcs_callbacks_do(stage: Stage) -> None:
    with pytest.raises(KeyboardInterrupt), connected(stage.address) as client:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        while True:
            client.list_datasets()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("support")
def test_a_conversation_remembers_its_turns_and_ends_with_ctrl_d(stage: Stage, terminal: Run) -> None:
    run = terminal("chat", "support", "--system", "Be brief.")
    for prompts, typed in enumerate(("first\n", "second\n", "\x04"), start=1):
        run.reads("> ", times=prompts)
        run.type(typed)

    assert run.ends() == 0
    assert turns(stage) == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "It is support@1."),
        ("user", "second"),
    ]


def test_a_question_that_failed_is_forgotten(stage: Stage, terminal: Run) -> None:
    stage.engine.faults.error_event_at = 0
    run = terminal("chat")
    run.reads("> ")
    run.type("first\n")
    run.reads("> ", times=2)
    stage.engine.faults.error_event_at = None
    run.type("second\n")
    run.reads("> ", times=3)
    run.type("\x04")

    assert run.ends() == 0
    assert run.seen.count("hotlora: ") == 1
    assert turns(stage) == [("user", "second")]


def turns(stage: Stage) -> list[tuple[str, str]]:
    """The last conversation that the engine was asked to go on with: role and text of each turn."""
    return re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", stage.questions[-1].prompt)


@pytest.mark.usefixtures("support")
def test_two_answers_stand_side_by_side(terminal: Run) -> None:
    run = terminal("compare", "support", "--prompt", "Who?")

    assert run.ends() == 0
    assert re.search(r"tiny-base +┃ support", run.seen)
    assert re.search(r"It is tiny-base\. +│ It is support@1\.", run.seen)


def test_an_answer_cannot_steer_the_terminal(stage: Stage, terminal: Run) -> None:
    stage.answer = lambda question: ("a\x1b]0;owned\x07b",)
    run = terminal("chat", "--prompt", "Who?")

    assert run.ends() == 0
    assert "a]0;ownedb" in run.seen


@pytest.mark.usefixtures("support")
def test_deleting_asks_and_no_deletes_nothing(address: str, terminal: Run) -> None:
    run = terminal("adapters", "delete", "support")
    run.reads("Delete support with all its versions for good?")
    run.type("n\n")

    assert run.ends() == 1
    with Client(address) as client:
        assert client.get_adapter("adapters/support").active_version == 1
