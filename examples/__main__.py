"""All examples through the whole stack, their figures beside those of the READMEs: `make examples`.

    python -m examples [NAME ...]

Starts engine, service and gateway on free ports below runs/examples, trains each example by its recipe, waits
for its report, and writes runs/examples/NAME.json. Ends with 0 only if every figure is within the tolerance.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from examples.recipes import RECIPES, TOLERANCE, Recipe
from hotlora import orphans
from hotlora.aio import AsyncClient
from hotlora.command import output, starting
from hotlora.command.job_display import JobDisplay
from hotlora.command.reports import print_evaluation
from hotlora.command.voice import Voice
from hotlora.errors import HotloraError
from hotlora.stack import Stack
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.evaluation_service_pb2 import AdapterEvaluation

RUNS: Final = Path("runs/examples")
READY_LIMIT_SECONDS: Final = 900.0
EXAMPLE_LIMIT_SECONDS: Final = 3600.0
_LOOK_AGAIN_SECONDS: Final = 1.0
_ORPHANS_GRACE_SECONDS: Final = 5.0


class ExampleError(Exception):
    """An example did not come to its report; the text says why."""


async def measure(client: AsyncClient, recipe: Recipe, console: Console) -> AdapterEvaluation:
    """Train by the recipe, and give the finished evaluation. Raises ExampleError, HotloraError."""
    train = await client.upload_dataset(recipe.train_path, display_name=f"{recipe.name}, training rows")
    held_out = await client.upload_dataset(recipe.held_out_path, display_name=f"{recipe.name}, held out")
    job = await client.create_tuning_job(
        dataset=train.name,
        adapter_id=recipe.adapter_id,
        hyperparameters=recipe.hyperparameters,
        evaluation_dataset=held_out.name,
    )
    with JobDisplay(console) as display:
        async for update in client.watch_tuning_job(job.name):
            display.show(update)
    job = await client.get_tuning_job(job.name)
    if not job.adapter_version:
        raise ExampleError(f"the training failed: {job.failure.message}")
    version = [seen async for seen in client.watch_adapter_version(job.adapter_version)][-1]
    if version.state != AdapterVersion.STATE_ACTIVE:
        raise ExampleError(f"the adapter was not proven: {version.failure.message}")
    while not job.evaluation:
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        job = await client.get_tuning_job(job.name)
    evaluation = [seen async for seen in client.watch_evaluation(job.evaluation)][-1]
    if evaluation.state != AdapterEvaluation.STATE_SUCCEEDED:
        raise ExampleError(f"the evaluation failed: {evaluation.failure.message}")
    return evaluation


def deviations(recipe: Recipe, evaluation: AdapterEvaluation) -> list[str]:
    """What is further from the recipe's figures than the tolerance, in words."""
    figures = {figure.name: figure for figure in evaluation.report.figures if not figure.constrained}
    seen = figures[recipe.figure]
    return [
        f"{side} has {recipe.figure} {measured:.3f}, expected {expected:.3f} within {TOLERANCE}"
        for side, measured, expected in (
            ("the base", seen.base, recipe.base),
            ("the adapter", seen.adapter, recipe.adapter),
        )
        if abs(measured - expected) > TOLERANCE
    ]


async def run(plan: starting.Plan, recipes: Sequence[Recipe], console: Console) -> list[str]:
    """Run the examples one after the other; gives what went otherwise than expected."""
    problems: list[str] = []
    async with Stack(plan.programs()):
        async with asyncio.timeout(READY_LIMIT_SECONDS):
            await starting.ready(plan, Voice(console).waiting)
        async with AsyncClient(plan.grpc_address) as client:
            for recipe in recipes:
                console.rule(recipe.name)
                try:
                    async with asyncio.timeout(EXAMPLE_LIMIT_SECONDS):
                        evaluation = await measure(client, recipe, console)
                except (ExampleError, HotloraError) as error:
                    problems.append(f"{recipe.name}: {error}")
                    continue
                (RUNS / f"{recipe.name}.json").write_text(json.dumps(output.as_dict(evaluation), indent=2))
                print_evaluation(evaluation)
                problems.extend(f"{recipe.name}: {one}" for one in deviations(recipe, evaluation))
    return problems


def main(arguments: Sequence[str]) -> int:
    """0 when every figure is as the READMEs say."""
    known = {recipe.name: recipe for recipe in RECIPES}
    parser = argparse.ArgumentParser(prog="python -m examples", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; default: all")
    chosen: list[str] = parser.parse_args(arguments).names
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"there is no example {unknown[0]!r}; choose from {', '.join(known)}")
    recipes = [recipe for name, recipe in known.items() if not chosen or name in chosen]
    console = Console(highlight=False, markup=False, emoji=False)
    shutil.rmtree(RUNS, ignore_errors=True)
    RUNS.mkdir(parents=True)
    settings = {
        "HOTLORA_HOME": str(RUNS / "home"),
        "HOTLORA_MODELS_DIR": os.environ.get("HOTLORA_MODELS_DIR", ".hotlora/models"),
        "HOTLORA_GRPC_ADDRESS": "127.0.0.1:0",
        "HOTLORA_GATEWAY_ADDRESS": "127.0.0.1:0",
        "HOTLORA_ENGINE_PORT": "0",
    }
    orphans.adopt()
    try:
        problems = asyncio.run(run(starting.plan(settings, with_page=False), recipes, console))
    finally:
        orphans.end(grace_seconds=_ORPHANS_GRACE_SECONDS)
    for problem in problems:
        console.print(problem, style="bold red")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
