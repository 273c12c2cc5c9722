"""A fork server without torch that speaks the real one's protocol, and misbehaves on order.

    python -m tests.doubles.trainer --plan PLAN.json SOCKET_DIR --threads N --preload DIR

PLAN.json is read anew for each job: `{adapter_id: {...Behaviour}}`. Its trainers fork, `setsid`, connect,
write event lines, obey `cancel` and `pause`, keep checkpoints, resume from them, and publish a whole
low-rank artifact whose canary fits `tests.doubles.engine`; they never compute anything. A trainer whose
socket ends kills itself. Standard library only, but for the base's rendering: it starts in a moment.
`tests/training/test_double.py` runs the same jobs with this and with the real one, and compares what is told.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.doubles.arithmetic import logprobs
from trainer import events, pacing
from trainer.config import JobFile
from trainer.curve import Curve
from trainer.verdict import Judgement, judge, judge_broken

_LOOK_SECONDS = 0.005
_STEPS = 5
"""Of a job that does not say how many: rows are not counted."""
_ROWS_ASIDE = 3
_CANARY_TOKENS = (tuple(range(3, 40)), tuple(range(50, 70)))


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What trainers of one adapter do. Steps count from 1; 0 means never."""

    crash_at_step: int = 0
    """SIGKILL to itself instead of this step."""
    crash_attempts: int = 1_000
    """Only attempts up to this one crash."""
    crash_after_saving: bool = False
    """SIGKILL to itself after the first checkpoint of each attempt."""
    crash_before_connecting: bool = False
    hang_at_step: int = 0
    """Says nothing more, and does not obey."""
    fail_at_step: int = 0
    """Ends with Failed(NAN_LOSS)."""
    nonsense_at_step: int = 0
    """Writes a line that is no event, and hangs."""
    endless_line_at_step: int = 0
    stop_at_step: int = 0
    """Ends with Cancelled although nobody asked."""
    gate: str = ""
    """Path of a file: the step `gate_step` begins only once it exists. A wish that is obeyed opens it too."""
    gate_step: int = 2
    ignore_cancel: bool = False
    ignore_pause: bool = False
    """Goes on to its end."""
    crash_when_paused: bool = False
    """SIGKILL to itself instead of pausing."""
    die_after_publishing: bool = False
    """SIGKILL to itself between the artifact's rename and the last line."""
    eval_losses: Sequence[float] = ()
    """What its evaluations find, in turn; those that are left find the training loss."""
    task_scores: Sequence[float] = ()
    """Likewise; those that are left are not scored."""
    lie: bool = False
    """Announces an artifact that is not there."""
    publish_when_cancelled: bool = False
    """Answers a cancel by publishing what there is."""


class Trainer:
    """One forked child."""

    def __init__(self, job: JobFile, behaviour: Behaviour, connection: socket.socket) -> None:
        self._job = job
        self._behaviour = behaviour
        self._connection = connection
        self._cancelled = False
        self._paused = False
        self._curve = Curve()
        connection.setblocking(False)

    def run(self) -> int:
        """The whole run; gives the exit status."""
        self._say(events.Loading(time=time.time(), pid=os.getpid()))
        checkpoints = self._job.work_path / "checkpoints"
        checkpoints.mkdir(exist_ok=True)
        done = max((int(path.name) for path in checkpoints.iterdir()), default=0)
        if done:
            self._say(events.Resumed(time=time.time(), step=done))
        settings = self._job.hyperparameters
        steps = settings.max_steps or _STEPS
        evaluate_every = pacing.evaluation_interval(settings, steps)
        checkpoint_every = settings.checkpoint_every_steps or evaluate_every
        self._say(events.FirstForward(time=time.time()))
        for step in range(done + 1, steps + 1):
            ended = self._step(step, steps, is_first=step == done + 1)
            if ended is not None:
                return ended
            if step % evaluate_every == 0 or step == steps:
                self._evaluate(step)
            if step % checkpoint_every == 0 and step < steps:
                self._save(step)
        self._tell(judge(self._curve, ended=True), self._best_step(steps))
        return self._publish(steps)

    def _step(self, step: int, steps: int, *, is_first: bool) -> int | None:
        behaviour = self._behaviour
        if step == behaviour.gate_step and behaviour.gate:
            while not Path(behaviour.gate).exists() and not self._asked() and not self._paused:
                time.sleep(_LOOK_SECONDS)
        if self._asked():
            if behaviour.publish_when_cancelled:
                return self._publish(step)
            self._say(events.Cancelled(time=time.time()))
            return 3
        if self._paused:
            return self._pause(step - 1)
        self._misbehave(step)
        if step == behaviour.fail_at_step:
            self._tell(judge_broken(self._curve, step), 0)
            reason = events.FailureReason.NAN_LOSS
            self._say(events.Failed(time=time.time(), reason=reason, message="The loss is not a number."))
            return 1
        if step == behaviour.stop_at_step:
            self._say(events.Cancelled(time=time.time()))
            return 3
        if is_first:
            self._say(events.FirstStep(time=time.time(), step=step))
        if step % self._job.hyperparameters.log_every_steps == 0 or step == steps:
            self._say(_metrics(step, steps))
        self._curve = self._curve.stepped(_loss(step))
        return None

    def _evaluate(self, step: int) -> None:
        if not self._job.hyperparameters.validation_fraction:
            self._curve = self._curve.evaluated(step, None, None)
            return
        turn = len(self._curve.points)
        eval_loss = dict(enumerate(self._behaviour.eval_losses)).get(turn, _loss(step))
        task_score = dict(enumerate(self._behaviour.task_scores)).get(turn)
        self._curve = self._curve.evaluated(step, eval_loss, task_score)
        self._say(
            events.Evaluation(
                time=time.time(),
                step=step,
                eval_loss=eval_loss,
                rows=_ROWS_ASIDE,
                task_score=task_score,
                best_step=self._best_step(step),
            )
        )

    def _best_step(self, step: int) -> int:
        """Of the lowest evaluation loss so far; `step` where none was measured."""
        found = [(point.eval_loss, point.step) for point in self._curve.points if point.eval_loss is not None]
        return min(found)[1] if found else step

    def _tell(self, judgement: Judgement, best_step: int) -> None:
        said = dataclasses.asdict(judgement)
        self._say(events.Fit(time=time.time(), best_step=best_step, stopped_early=False, **said))

    def _save(self, step: int) -> None:
        (self._job.work_path / "checkpoints" / str(step)).touch()
        self._say(events.CheckpointSaved(time=time.time(), step=step))
        if self._behaviour.crash_after_saving:
            os.kill(os.getpid(), signal.SIGKILL)

    def _pause(self, done: int) -> int:
        if self._behaviour.crash_when_paused:
            os.kill(os.getpid(), signal.SIGKILL)
        if done:
            self._save(done)
        self._say(events.Paused(time=time.time(), step=done))
        return 4

    def _misbehave(self, step: int) -> None:
        behaviour = self._behaviour
        if step == behaviour.crash_at_step and self._job.attempt <= behaviour.crash_attempts:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == behaviour.nonsense_at_step:
            self._write(b'{"kind": "joy"}\n')
        if step in (behaviour.hang_at_step, behaviour.nonsense_at_step):
            while True:
                self._heard()
                time.sleep(_LOOK_SECONDS)
        if step == behaviour.endless_line_at_step:
            while True:
                self._write(b"x" * 65_536)

    def _publish(self, step: int) -> int:
        best_step = self._best_step(step)
        self._say(events.Saving(time=time.time(), step=step, best_step=best_step))
        digest, size_bytes = "0" * 64, 0
        if not self._behaviour.lie:
            digest, size_bytes = write_artifact(self._job)
        if self._behaviour.die_after_publishing:
            os.kill(os.getpid(), signal.SIGKILL)
        rank = self._job.hyperparameters.rank
        self._say(
            events.Published(
                time=time.time(),
                step=step,
                digest=digest,
                size_bytes=size_bytes,
                rank=rank,
                best_step=best_step,
            )
        )
        return 0

    def _asked(self) -> bool:
        self._hear()
        return self._cancelled

    def _hear(self) -> None:
        heard = self._heard()
        self._cancelled |= b"cancel" in heard and not self._behaviour.ignore_cancel
        self._paused |= b"pause" in heard and not self._behaviour.ignore_pause

    def _heard(self) -> bytes:
        try:
            received = self._connection.recv(64)
        except BlockingIOError:
            return b""
        except ConnectionError:
            received = b""
        if not received:
            os.kill(os.getpid(), signal.SIGKILL)
        return received

    def _say(self, event: events.TrainerEvent) -> None:
        self._write(events.encode(event))

    def _write(self, line: bytes) -> None:
        self._hear()
        self._connection.setblocking(True)
        try:
            self._connection.sendall(line)
        except OSError:
            os.kill(os.getpid(), signal.SIGKILL)
        self._connection.setblocking(False)


def write_artifact(job: JobFile) -> tuple[str, int]:
    """Publish an adapter of zeros as the real trainer would; give its digest and its bytes."""
    beside = job.work_path / "artifact"
    beside.mkdir(exist_ok=True)
    rank = job.hyperparameters.rank
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": job.hyperparameters.alpha,
        "target_modules": ["q"],
    }
    files = {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": _safetensors(rank),
    }
    for name, content in files.items():
        (beside / name).write_bytes(content)
    manifest = json.dumps(_manifest(job, files)).encode()
    (beside / "MANIFEST.json").write_bytes(manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    beside.rename(job.artifacts_path / digest)
    return digest, len(manifest) + sum(map(len, files.values()))


def _manifest(job: JobFile, files: dict[str, bytes]) -> dict[str, object]:
    weights = files["adapter_model.safetensors"]
    canary = [
        {
            "token_ids": tokens,
            "base_logprobs": logprobs(None, tokens),
            "adapter_logprobs": logprobs(weights, tokens),
        }
        for tokens in _CANARY_TOKENS
    ]
    return {
        "format": 1,
        "job_id": job.job_id,
        "adapter_id": job.adapter_id,
        "technique": job.technique,
        "rank": job.hyperparameters.rank,
        "alpha": job.hyperparameters.alpha,
        "target_modules": ["q"],
        "base_model": {"name": job.base_model.name, "revision": job.base_model.revision},
        "rendering": _rendering(job.base_model.path),
        "dataset_sha256": job.dataset_sha256,
        "hyperparameters": dataclasses.asdict(job.hyperparameters),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for name, content in files.items()
        },
        "canary": {"sequences": canary},
        "metrics": {},
        "create_time": time.time(),
    }


@cache
def _rendering(base: Path) -> dict[str, str | int]:
    """The base's rendering contract; {} where a test has no base."""
    if not (base / "tokenizer.json").is_file():
        return {}
    from trainer.rendering import Renderer  # noqa: PLC0415 - a tenth of a second

    return Renderer.from_directory(base).contract()


def _safetensors(rank: int) -> bytes:
    tensors, offset = {}, 0
    for name, shape in (("lora_A", (rank, 8)), ("lora_B", (8, rank))):
        end = offset + 4 * shape[0] * shape[1]
        tensors[f"base_model.model.q.{name}.weight"] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + bytes(offset)


def _loss(step: int) -> float:
    return 2.0 / step


def _metrics(step: int, steps: int) -> events.Metrics:
    return events.Metrics(
        time=time.time(),
        step=step,
        total_steps=steps,
        loss=_loss(step),
        learning_rate=1e-4,
        grad_norm=1.0,
        tokens_per_second=100.0,
        peak_memory_bytes=1 << 20,
        eta_seconds=float(steps - step),
        epoch=step / steps,
        tokens=128 * step,
    )


def _child(order: dict[str, str], plan_path: Path) -> None:
    os.setsid()
    # A child that kept the pipes would hide the fork server's death from the service.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    job = JobFile.read(Path(order["job"]))
    behaviour = Behaviour(**json.loads(plan_path.read_text()).get(job.adapter_id, {}))
    if behaviour.crash_before_connecting:
        os.kill(os.getpid(), signal.SIGKILL)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(order["socket"])
    status = Trainer(job, behaviour, connection).run()
    connection.close()
    os._exit(status)


def _say(message: dict[str, object]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _reap(children: dict[int, str]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        code = os.waitstatus_to_exitcode(status)
        signal_number = -code if code < 0 else None
        _say({"ended": children.pop(pid), "pid": pid, "exit_code": code, "signal": signal_number})


def main() -> None:
    """Serve until standard input ends; then kill the children."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("socket_dir", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--preload", type=Path)
    arguments = parser.parse_args()
    if arguments.preload is not None:
        _rendering(arguments.preload)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    children: dict[int, str] = {}
    _say({"ready": True})
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                received = os.read(key.fd, 65_536)
                if key.fd == woken:
                    _reap(children)
                    continue
                if not received:
                    for pid in children:
                        os.kill(pid, signal.SIGKILL)
                    sys.exit(0)
                *lines, buffer = (buffer + received).split(b"\n")
                for line in lines:
                    order = json.loads(line)
                    pid = os.fork()
                    if pid == 0:
                        try:
                            _child(order, arguments.plan)
                        finally:
                            os._exit(70)
                    children[pid] = order["job"]
                    _say({"started": order["job"], "pid": pid})


if __name__ == "__main__":
    main()
