"""The command at a real terminal: the bar, the columns, the conversation, Ctrl-C."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from hotlora.v1.chat_service_pb2 import ChatRequest, ChatResponse
from hotlora.v1.tuning_service_pb2 import TuningEvent
from tests.command.conftest import ROOT
from tests.command.service import State

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


def test_training_shows_a_bar_with_loss_course_and_time_left(terminal: Run, rows: Path) -> None:
    run = terminal("train", str(rows), "--adapter", "triage")

    assert run.ends() == 0
    assert re.search(r"━+ +4/4 +loss 0\.5000 █▃▂▁ +800 tok/s +0 s left", run.seen)
    assert "step 4: loss 0.7500 on the 3 rows set aside" in run.seen
    assert "triage@1 is ACTIVE" in run.seen


class _EventsThatStop(list[TuningEvent]):
    """The first two events, and then nothing until it is released."""

    def __init__(self, events: list[TuningEvent]) -> None:
        super().__init__(events)
        self.released = Event()

    def __iter__(self) -> Iterator[TuningEvent]:
        yield from self[:2]
        self.released.wait(timeout=60)


def test_ctrl_c_leaves_the_job_running_and_says_so(state: State, terminal: Run, rows: Path) -> None:
    state.events = stopping = _EventsThatStop(state.events)
    run = terminal("train", str(rows), "--adapter", "triage")
    run.reads("first forward pass")

    run.type("\x03")

    assert run.ends() == 130
    stopping.released.set()
    assert "The job goes on; `hotlora cancel j2` would stop it." in run.seen
    assert "Traceback" not in run.seen


def test_a_conversation_remembers_its_turns_and_ends_with_ctrl_d(state: State, terminal: Run) -> None:
    run = terminal("chat", "triage", "--system", "Be brief.")
    for prompts, typed in enumerate(("first\n", "second\n", "\x04"), start=1):
        run.reads("> ", times=prompts)
        run.type(typed)

    assert run.ends() == 0
    assert [turn.content for turn in state.chats[-1].messages] == [
        "Be brief.",
        "first",
        "It is triage.",
        "second",
    ]


def test_a_question_that_failed_is_forgotten(state: State, terminal: Run) -> None:
    run = terminal("chat", "loading")
    for prompts, typed in enumerate(("first\n", "second\n", "\x04"), start=1):
        run.reads("> ", times=prompts)
        run.type(typed)

    assert run.ends() == 0
    assert run.seen.count("The engine is starting.") == 2
    assert [turn.content for turn in state.chats[-1].messages] == ["second"]


def test_two_answers_stand_side_by_side(terminal: Run) -> None:
    run = terminal("compare", "triage", "--prompt", "Who?")

    assert run.ends() == 0
    assert re.search(r"tiny-base +┃ triage", run.seen)
    assert re.search(r"It is tiny-base\. +│ It is triage\.", run.seen)


def test_an_answer_cannot_steer_the_terminal(state: State, terminal: Run) -> None:
    def answer(request: ChatRequest) -> Iterator[ChatResponse]:
        yield ChatResponse(delta="a\x1b]0;owned\x07b", model="m", completion_tokens=1)

    state.answer = answer
    run = terminal("chat", "--prompt", "Who?")

    assert run.ends() == 0
    assert "a]0;ownedb" in run.seen


def test_deleting_asks_and_no_deletes_nothing(state: State, terminal: Run) -> None:
    run = terminal("adapters", "delete", "triage")
    run.reads("Delete triage with all its versions for good?")
    run.type("n\n")

    assert run.ends() == 1
    assert "adapters/triage" in state.adapters
