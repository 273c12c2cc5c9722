"""A service in a process of its own, the engine's double beside the test, and how a test directs them."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from hotlora import lifeline
from tests.doubles.engine import EngineDouble, Faults
from tests.doubles.trainer import Behaviour
from tests.stage.base import CONTEXT_LENGTH, write_base
from tests.stage.proxy import Proxy
from tests.tiny_renderer import tiny_renderer

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 60.0
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the engine was asked, as far as tests look at it."""

    model: str
    prompt: str
    """The whole prompt, rendered."""
    fields: Mapping[str, object]

    @property
    def text(self) -> str:
        """The last message of the user."""
        return [content for role, content in self.messages if role == "user"][-1]

    @property
    def messages(self) -> Sequence[tuple[str, str]]:
        """Role and content of each message."""
        return re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", self.prompt, re.DOTALL)


Answer = Callable[[Question], Sequence[str]]
"""The pieces of an answer; one is a token."""


def says_who_it_is(question: Question) -> Sequence[str]:
    """Three tokens."""
    return ("It ", "is ", f"{question.model}.")


@dataclass(kw_only=True)
class Stage:
    """A service that runs, and its doubles."""

    home: Path
    engine: EngineDouble
    others: Mapping[str, EngineDouble]
    """Of further base models, by their names. They answer as the double does by itself."""
    loop: asyncio.AbstractEventLoop
    """Where the engine's double lives, in a thread of its own."""
    environment: Mapping[str, str]
    answer: Answer = says_who_it_is
    questions: list[Question] = field(default_factory=list)
    address: str = ""
    _plans: dict[str, Behaviour] = field(default_factory=dict)
    _gates: list[asyncio.Event] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None
    _log: list[str] = field(default_factory=list)
    _listener: threading.Thread = field(default_factory=threading.Thread)

    def __post_init__(self) -> None:
        self._renderer = tiny_renderer(self.home / "renderer")
        self.engine.respond = self._respond
        self.forget()

    def plan(self, adapter_id: str, **behaviour: object) -> None:
        """Say how trainers of an adapter behave from now on."""
        self._plans[adapter_id] = Behaviour(**behaviour)  # type: ignore[arg-type]  # tests name fields freely
        self._write_plans()

    def gate(self, adapter_id: str, step: int = 2, **behaviour: object) -> Path:
        """A file that trainers of an adapter wait for before a step; making it lets them go on."""
        path = self.home / f"gate-of-{adapter_id}"
        self.plan(adapter_id, gate=str(path), gate_step=step, **behaviour)
        return path

    def forget(self) -> None:
        """What a test directed is undone; what the service knows stays."""
        for behaviour in self._plans.values():
            if behaviour.gate:
                Path(behaviour.gate).touch()
        self._plans.clear()
        self._write_plans()
        self.answer = says_who_it_is
        self.questions.clear()
        self.engine.faults = Faults()
        self.engine.broken_off.clear()
        self.release()

    def say(self, *pieces: str) -> None:
        """Every model answers this from now on."""
        self.answer = lambda _: pieces

    def hold(self, *models: str) -> None:
        """Answers stop after their first token, until `release`: all, or those of these models, of which
        nothing can be proven meanwhile either."""
        if not models:
            self.engine.hold = asyncio.Event()
        self.engine.holds.update({model: asyncio.Event() for model in models})
        self._gates += [*self.engine.holds.values(), *filter(None, [self.engine.hold])]

    def release(self) -> None:
        """Let held answers go on."""
        self.hold_no_more()
        for gate in self._gates:
            self.loop.call_soon_threadsafe(gate.set)
        self._gates.clear()

    def hold_no_more(self) -> None:
        """Let new answers pass; those that are held stay so."""
        self.engine.hold = None
        self.engine.holds.clear()

    def run(self, work: Coroutine[object, object, ResultT]) -> ResultT:
        """Run something on the engine's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LIMIT_SECONDS)

    async def answers_ended(self) -> None:
        """Wait on the engine's loop until no answer is given any more."""
        while self.engine.streams:
            self.engine.stream_ended.clear()
            await self.engine.stream_ended.wait()

    def uploaded(self, dataset_id: str) -> list[object]:
        """The rows that the service keeps of a dataset."""
        stored = (self.home / "datasets" / f"{dataset_id}.jsonl").read_text()
        return [json.loads(line) for line in stored.splitlines()]

    def start(self, *, until_ready: bool = True) -> None:
        """Start the service, at the address that it had; return once it listens and its engine is ready."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.stage.child", str(self._plan_path)],
            cwd=ROOT,
            env={**os.environ, **self.environment, "HOTLORA_GRPC_ADDRESS": self.address or "127.0.0.1:0"},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._process = process
        assert process.stderr is not None
        lines = iter(process.stderr)
        self.address = f"127.0.0.1:{self._told(lines, event='gRPC server listens')['port']}"
        if until_ready:
            self._told(lines, event="engine", state="READY")
        self._listener = threading.Thread(target=self._log.extend, args=(lines,), daemon=True)
        self._listener.start()

    def _told(self, lines: Iterator[str], **fields: str) -> dict[str, object]:
        """Read the service's log up to a line with these fields."""
        for line in lines:
            self._log.append(line)
            told: dict[str, object] = json.loads(line) if line.startswith("{") else {}
            if fields.items() <= told.items():
                return told
        raise AssertionError(f"the service ended: {''.join(self._log)}")

    @property
    def gateway_url(self) -> str:
        """Of the OpenAI API, once the service is ready."""
        told = [json.loads(line) for line in self._log if '"gateway listens"' in line]
        return f"http://127.0.0.1:{told[-1]['port']}/v1"

    def logged(self, event: str) -> list[dict[str, object]]:
        """What it said of something, once it has ended."""
        lines = [json.loads(line) for line in self._log if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def stop(self) -> None:
        """End the service in order."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                code = process.wait(LIMIT_SECONDS)
            finally:
                process.kill()
                if self._listener.is_alive():  # it is not, where the service never came up
                    self._listener.join(LIMIT_SECONDS)
                for end in (process.stdin, process.stderr):
                    assert end is not None
                    end.close()
            assert code == 0, "".join(self._log)

    @contextmanager
    def proxy(self) -> Iterator[Proxy]:
        """A wire to the service that can be cut; what it awaits belongs into `run`."""
        proxy = Proxy(self.address)
        self.run(proxy.__aenter__())
        try:
            yield proxy
        finally:
            self.run(proxy.__aexit__(None, None, None))

    @property
    def _plan_path(self) -> Path:
        return self.home / "plan.json"

    def _write_plans(self) -> None:
        beside = self._plan_path.with_suffix(".new")
        beside.write_text(json.dumps({name: asdict(each) for name, each in self._plans.items()}))
        beside.replace(self._plan_path)

    def _respond(self, fields: Mapping[str, object]) -> Sequence[str]:
        prompt = self._renderer.decode(fields["prompt"])  # type: ignore[arg-type]  # token ids
        question = Question(model=str(fields["model"]), prompt=prompt, fields=fields)
        self.questions.append(question)
        return self.answer(question)


@contextmanager
def staged(
    directory: Path,
    *,
    with_engine: bool = True,
    more_bases: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Stage]:
    """A service at work below `directory`, with further base models of these names, and more environment.

    Without an engine, it has the addresses of some that do not run yet; `engine.restart` lets one come.
    """
    bases = [write_base(directory), *(write_base(directory, name) for name in more_bases)]
    home = directory / "home"
    home.mkdir()
    with _loop() as loop:
        double, *others = [
            EngineDouble(base_name=base.name, base_path=str(base), max_model_length=CONTEXT_LENGTH)
            for base in bases
        ]
        for each in (double, *others):
            asyncio.run_coroutine_threadsafe(each.start(0), loop).result(LIMIT_SECONDS)
        named = [f"{base.name}={each.url}" for base, each in zip(bases[1:], others, strict=True)]
        whole_environment = {
            "HOTLORA_HOME": str(home),
            "HOTLORA_MODELS_DIR": str(directory / "models"),
            "HOTLORA_BASE_MODEL": str(bases[0]),
            "HOTLORA_MORE_BASE_MODELS": ",".join(map(str, bases[1:])),
            "HOTLORA_ENGINE_URLS": ",".join([double.url, *named]),
            "HOTLORA_GATEWAY_ADDRESS": "127.0.0.1:0",
            "HOTLORA_MIN_FREE_DISK_BYTES": "0",
            "HOTLORA_EVALUATION_ROWS": "0",  # tests ask for the evaluations that they want
            lifeline.VARIABLE: "1",
            **environment,
        }
        stage = Stage(
            home=home,
            engine=double,
            others={each.base_name: each for each in others},
            loop=loop,
            environment=whole_environment,
        )
        try:
            if not with_engine:
                for each in (double, *others):
                    stage.run(each.stop())
            stage.start(until_ready=with_engine)
            yield stage
        finally:
            stage.release()
            stage.stop()
            for each in (double, *others):
                stage.run(each.stop())


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LIMIT_SECONDS)
        loop.close()
