"""Finds or prepares base models by running `python -m trainer.base_model` as a child.

The service never imports torch; the child does what may need it, shows its progress on our standard error,
and prints one JSON line.
"""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

from service.errors import HotloraError
from service.settings import Settings, base_of
from trainer.config import BaseModel

_LINE_BYTES = 1 << 24
"""A progress bar writes over itself without a line's end, for as long as a download takes."""
COMMAND = (sys.executable, "-m", "trainer.base_model")
ResolvedBase = tuple[BaseModel, int]
"""A base model, and the tokens of context that it was made for."""


async def resolve_base_models(settings: Settings, *, command: Sequence[str] = COMMAND) -> list[ResolvedBase]:
    """All base models of the settings, the default one first, one after the other.

    Raises HotloraError (BASE_MODEL_ERROR) as `resolve_base_model`, where two have the same name, and where an
    engine is of a base model that is none of them.
    """
    wanted = (settings.base_model, *settings.more_base_models)
    found = [await resolve_base_model(name, settings.models_dir, command=command) for name in wanted]
    names = [model.name for model, _ in found]
    if len(set(names)) < len(names):
        raise HotloraError(
            "BASE_MODEL_ERROR",
            f"two base models have the same name, among {', '.join(names)}; they are asked by their names",
        )
    if strangers := {base_of(url) for url in settings.engine_urls} - {"", *names}:
        raise HotloraError(
            "BASE_MODEL_ERROR",
            f"HOTLORA_ENGINE_URLS has engines of {', '.join(sorted(strangers))}; there is {', '.join(names)}",
        )
    return found


async def resolve_base_model(
    name: str,
    models_dir: Path,
    *,
    command: Sequence[str] = COMMAND,
    timeout_seconds: float = 3600.0,
) -> ResolvedBase:
    """The local base model called `name`.

    Takes seconds, half a minute for the first conversion, longer for a download. Raises HotloraError
    (BASE_MODEL_ERROR) with the child's last words, or when `timeout_seconds` pass.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--name", name, "--models-dir", str(models_dir)),
        stdout=PIPE,
        stderr=PIPE,
        limit=_LINE_BYTES,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            answer, last_words = await asyncio.gather(_answer(process), _show_progress(process))
            exit_code = await process.wait()
    except TimeoutError:
        raise HotloraError(
            "BASE_MODEL_ERROR", f"base model {name!r} was not ready after {timeout_seconds:g} seconds"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if exit_code != 0:
        raise HotloraError("BASE_MODEL_ERROR", last_words or f"base model {name!r}: exit code {exit_code}")
    return _parse(answer)


async def _answer(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.read()


async def _show_progress(process: Process) -> str:
    """Pass the child's standard error on to ours; give its last line."""
    assert process.stderr is not None
    last_line = ""
    while line := await process.stderr.readline():
        text = line.decode(errors="replace").rstrip()
        print(text, file=sys.stderr, flush=True)
        last_line = text or last_line
    return last_line.removeprefix("error: ")


def _parse(answer: bytes) -> ResolvedBase:
    try:
        fields = json.loads(answer)
        base = BaseModel(
            name=str(fields["name"]), path=Path(fields["path"]), revision=str(fields["revision"])
        )
        return base, int(fields["max_model_length"])
    except (ValueError, KeyError, TypeError) as error:
        raise HotloraError(
            "BASE_MODEL_ERROR", f"trainer.base_model gave no usable answer: {error}"
        ) from error
