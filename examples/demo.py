"""The main job once, without a person: `make demo`.

Starts engine, service and gateway on free ports, uploads the triage rows, trains an adapter, waits until it
is proven, asks base and adapter the held-out messages, and writes runs/demo/report.json. Ends with 0 only if
the adapter is proven and scores better than the base. Everything it makes is below runs/demo, except the base
model, which is kept where HOTLORA_MODELS_DIR says, else in .hotlora/models.
"""

import asyncio
import dataclasses
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from examples.report import Question, Report, Timings
from examples.triage.score import HELDOUT_PATH, TRAIN_PATH, TriageRow, Verdict, read_rows, score
from hotlora import orphans, requests
from hotlora.aio import AsyncClient
from hotlora.command import output, starting
from hotlora.command.job_display import JobDisplay, version_line
from hotlora.command.voice import Voice
from hotlora.errors import HotloraError
from hotlora.stack import Ended, Stack
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.resources_pb2 import Message
from hotlora.v1.tuning_service_pb2 import Hyperparameters, TuningJob

RUNS: Final = Path("runs/demo")
ADAPTER_ID: Final = "triage"
SETTINGS: Final = Hyperparameters(rank=16, learning_rate=3e-4, epochs=2, batch_size=4, dropout=0.0)
ANSWER_TOKENS: Final = 80
"""A verdict has about 40; a base model that rambles is cut off."""
QUESTIONS_AT_ONCE: Final = 8
SHOWN_QUESTIONS: Final = 5
READY_LIMIT_SECONDS: Final = 900.0
"""The very first start prepares the base model; the engine takes most of the rest."""
JOB_LIMIT_SECONDS: Final = 1800.0
PROOF_LIMIT_SECONDS: Final = 300.0
ASKING_LIMIT_SECONDS: Final = 900.0
_ORPHANS_GRACE_SECONDS: Final = 5.0


async def main_job(
    client: AsyncClient, *, train_path: Path, held_out: Sequence[TriageRow], console: Console
) -> Report:
    """Trains, waits for the proof, asks both models. Raises HotloraError, TimeoutError if a step hangs."""
    async with asyncio.timeout(JOB_LIMIT_SECONDS):
        job = await train(client, train_path, console)
    report = Report(
        job=job.name,
        state=TuningJob.State.Name(job.state).removeprefix("STATE_"),
        base_model=job.base_model,
        seconds=Timings(
            submit_to_first_forward=_seconds(job.create_time, job.first_forward_time),
            submit_to_first_step=_seconds(job.create_time, job.first_step_time),
            submit_to_succeeded=_seconds(job.create_time, job.end_time),
        ),
        failure=job.failure.message,
    )
    if job.state != TuningJob.STATE_SUCCEEDED:
        return report.judged()
    async with asyncio.timeout(PROOF_LIMIT_SECONDS):
        version = await proven(client, job.adapter_version, console)
    proof = output.as_dict(version.verification) if version.HasField("verification") else {}
    report = dataclasses.replace(
        report,
        adapter_version=version.model,
        adapter_state=AdapterVersion.State.Name(version.state).removeprefix("STATE_"),
        seconds=dataclasses.replace(
            report.seconds, succeeded_to_active=_seconds(job.end_time, version.active_time)
        ),
        verification=proof,
        failure=version.failure.message,
    )
    if version.state != AdapterVersion.STATE_ACTIVE:
        return report.judged()
    async with asyncio.timeout(ASKING_LIMIT_SECONDS):
        first_token_at = await first_token_time(client, version.model, held_out[0])
        questions = await ask_both(client, version.model, held_out, console)
    references = [row.reference for row in held_out]
    return dataclasses.replace(
        report,
        seconds=dataclasses.replace(
            report.seconds,
            active_to_first_token=first_token_at - version.active_time.ToNanoseconds() / 1e9,
        ),
        questions=questions,
        score={
            "base": score([question.base for question in questions], references).as_dict(),
            "adapter": score([question.adapter for question in questions], references).as_dict(),
        },
    ).judged()


async def train(client: AsyncClient, path: Path, console: Console) -> TuningJob:
    """Uploads the rows, creates the job and shows it to its end."""
    dataset = await client.upload_dataset(path, display_name="triage, training rows")
    console.print(f"{dataset.name}: {dataset.rows} rows, {dataset.tokens} tokens")
    job = await client.create_tuning_job(
        dataset=dataset.name, adapter_id=ADAPTER_ID, hyperparameters=SETTINGS
    )
    with JobDisplay(console) as display:
        async for update in client.watch_tuning_job(job.name):
            display.show(update)
    return await client.get_tuning_job(job.name)


async def proven(client: AsyncClient, name: str, console: Console) -> AdapterVersion:
    """The version once it is ACTIVE, FAILED or RETIRED."""
    version = AdapterVersion()
    async for version in client.watch_adapter_version(name):
        console.print(output.plain(version_line(version)))
    return version


async def first_token_time(client: AsyncClient, model: str, row: TriageRow) -> float:
    """When the first token of an answer is here, in seconds since the epoch."""
    async for response in client.chat(_conversation(row), model=model, max_tokens=1, temperature=0.0):
        if response.completion_tokens:
            break
    return time.time()


async def ask_both(
    client: AsyncClient, adapter: str, rows: Sequence[TriageRow], console: Console
) -> tuple[Question, ...]:
    """What the default base model and the adapter answer to every row, both at the same time."""
    places = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    with Progress(console=console) as progress:
        task = progress.add_task(f"asking {len(rows)} held-out questions", total=len(rows))

        async def both(row: TriageRow) -> Question:
            async with places:
                base, answer = await asyncio.gather(_answer(client, "", row), _answer(client, adapter, row))
            progress.advance(task)
            return Question(
                message=row.message, reference=verdict_line(row.reference), base=base, adapter=answer
            )

        return tuple(await asyncio.gather(*(both(row) for row in rows)))


async def _answer(client: AsyncClient, model: str, row: TriageRow) -> str:
    stream = client.chat(_conversation(row), model=model, max_tokens=ANSWER_TOKENS, temperature=0.0)
    return "".join([response.delta async for response in stream])


def _conversation(row: TriageRow) -> list[Message]:
    return [requests.system(row.system), requests.user(row.message)]


def verdict_line(verdict: Verdict) -> str:
    """A verdict as the training rows write it."""
    return json.dumps(dataclasses.asdict(verdict), ensure_ascii=False, separators=(",", ":"))


def show(report: Report, console: Console) -> None:
    """Prints a handful of the answers side by side, the scores, and the verdict."""
    if report.questions:
        table = Table("message", "base", "adapter", expand=True, show_lines=True)
        for question in report.questions[:SHOWN_QUESTIONS]:
            table.add_row(
                *(Text(output.plain(one)) for one in (question.message, question.base, question.adapter))
            )
        console.print(table)
    for side, figures in report.score.items():
        console.print(
            f"{side:<8} overall {figures['overall']:.3f}: valid JSON {figures['valid_json']:.3f},"
            f" right category {figures['right_category']:.3f}, right urgency {figures['right_urgency']:.3f}"
        )
    for name, seconds in dataclasses.asdict(report.seconds).items():
        if seconds is not None:
            console.print(f"{name.replace('_', ' ')}: {seconds:.2f} s")
    if report.passed:
        console.print("The adapter is proven and better than the base.", style="bold green")
    else:
        console.print(f"The demo failed: {output.plain(report.failure)}.", style="bold red")


async def demo(plan: starting.Plan, console: Console) -> Report:
    """Starts everything, runs the main job, ends everything."""
    voice = Voice(console)
    async with Stack(plan.programs()) as stack:
        work = asyncio.create_task(_when_ready(plan, voice, console))
        end = asyncio.create_task(stack.first_end())
        await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
            voice.ended(end.result())
            return Report(failure=_died(end.result()))
        end.cancel()
        try:
            return work.result()
        except HotloraError as error:
            return Report(failure=error.message)
        except TimeoutError:
            return Report(failure="a step took longer than its limit")


async def _when_ready(plan: starting.Plan, voice: Voice, console: Console) -> Report:
    async with asyncio.timeout(READY_LIMIT_SECONDS):
        await starting.ready(plan, voice.waiting)
    voice.ready(plan.urls())
    async with AsyncClient(plan.grpc_address) as client:
        return await main_job(
            client, train_path=TRAIN_PATH, held_out=read_rows(HELDOUT_PATH), console=console
        )


def _died(ended: Ended) -> str:
    program = ended.program
    return f"the {program.title} ended with exit code {ended.exit_code}; its log is {program.log_path}"


def _seconds(start: Timestamp, end: Timestamp) -> float | None:
    """None when either has not happened."""
    if not start.ToNanoseconds() or not end.ToNanoseconds():
        return None
    return (end.ToNanoseconds() - start.ToNanoseconds()) / 1e9


def main() -> int:
    """Runs the demo in a fresh home. Returns the exit code."""
    console = Console(highlight=False, markup=False, emoji=False)
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("Another demo is running here; wait for its end.")
            return 1
        # Adapters of an earlier demo would be loaded and proven too.
        shutil.rmtree(RUNS / "home", ignore_errors=True)
        settings = {
            "HOTLORA_HOME": str(RUNS / "home"),
            "HOTLORA_MODELS_DIR": os.environ.get("HOTLORA_MODELS_DIR", ".hotlora/models"),
            "HOTLORA_GRPC_ADDRESS": "127.0.0.1:0",
            "HOTLORA_GATEWAY_ADDRESS": "127.0.0.1:0",
            "HOTLORA_ENGINE_PORT": "0",
            "HOTLORA_EVALUATION_ROWS": "0",  # the demo asks its questions by itself
        }
        orphans.adopt()
        try:
            report = asyncio.run(demo(starting.plan(settings, with_page=False), console))
        except KeyboardInterrupt:
            report = Report(failure="interrupted")
        finally:
            orphans.end(grace_seconds=_ORPHANS_GRACE_SECONDS)
        report.write(RUNS / "report.json")
        show(report, console)
        console.print(f"Report: {RUNS / 'report.json'}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
