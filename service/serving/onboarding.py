"""One version from files on disk to proven in its engine, or rejected with a reason.

Decides nothing about when, and writes no state: `service.serving.reconciler` does both.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path

from service.artifacts import ArtifactCorrupt, Form, Manifest, verify_files
from service.engine.client import EngineClient
from service.engine.face import Engine
from service.engine.wire import EngineRefused, unavailable
from service.jsonshape import Json
from service.metrics import Metrics
from service.registry import Verification, VersionRow
from service.serving.proof import Comparison, Prover, Verdict
from service.serving.routes import Route, Routes
from service.serving.soft_prompts import MalformedPromptError, NoPlainEmbeddingsError
from trainer.config import BaseModel, Technique

_MAX_REASON_CHARACTERS = 500
"""Of the engine's own words in a failure's message."""


class Rejection(StrEnum):
    """Why a version ends in FAILED. Meanings stand at AdapterVersion.failure in the proto."""

    CORRUPT = "CORRUPT"
    RANK_TOO_HIGH = "RANK_TOO_HIGH"
    WRONG_BASE = "WRONG_BASE"
    WRONG_RENDERING = "WRONG_RENDERING"
    LOAD_REFUSED = "LOAD_REFUSED"
    NO_EFFECT = "NO_EFFECT"
    WRONG_WEIGHTS = "WRONG_WEIGHTS"
    MIXED_UP = "MIXED_UP"
    QUARANTINED = "QUARANTINED"


_OF_PROOFS = frozenset({Rejection.NO_EFFECT, Rejection.WRONG_WEIGHTS, Rejection.MIXED_UP})
"""What only a proof finds."""


class RejectedError(Exception):
    """The version cannot be served; trying again would end the same."""

    def __init__(self, reason: Rejection, message: str, comparison: Comparison | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.comparison = comparison
        """Figures of the proof that failed, if it came to one."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A version whose files are what was published."""

    model: str
    directory: Path
    manifest: Manifest


async def examine(
    row: VersionRow, *, artifacts_dir: Path, base: BaseModel, rendering: Json, max_rank: int
) -> Candidate:
    """Check everything that can be checked before the engine hears of it. `rendering` is the contract of the
    renderer that would write its prompts.

    Raises RejectedError, and ArtifactUnreadable where the machine could not look.
    """
    directory = artifacts_dir / row.digest
    try:
        manifest = await asyncio.to_thread(_read_whole, directory)
    except ArtifactCorrupt as error:
        raise RejectedError(Rejection.CORRUPT, error.message) from error
    if manifest.digest != row.digest:
        raise RejectedError(Rejection.CORRUPT, "MANIFEST.json is not what was published: its SHA-256 differs")
    if (manifest.base_name, manifest.base_revision) != (base.name, base.revision):
        raise RejectedError(
            Rejection.WRONG_BASE,
            f"it was trained on {manifest.base_name} ({manifest.base_revision}), and the engine serves "
            f"{base.name} ({base.revision})",
        )
    differing = sorted(
        name
        for name in {*rendering, *manifest.rendering}
        if rendering.get(name) != manifest.rendering.get(name)
    )
    if differing:
        raise RejectedError(
            Rejection.WRONG_RENDERING,
            "it was trained on prompts written in another way than this base's are now: in its manifest, "
            f"{', '.join(differing)[:200]} differ; train it again on this base",
        )
    if (manifest.form is Form.MODEL) != (row.technique is Technique.FULL):
        raise RejectedError(Rejection.CORRUPT, f"its files are not those of a {row.technique} training")
    rank = max(row.rank, manifest.rank)
    if rank > max_rank:
        raise RejectedError(
            Rejection.RANK_TOO_HIGH,
            f"its rank is {rank}; the engine serves up to {max_rank} (HOTLORA_ENGINE_MAX_RANK raises that)",
        )
    return Candidate(model=row.model, directory=directory, manifest=manifest)


def _read_whole(directory: Path) -> Manifest:
    manifest = Manifest.read(directory)
    verify_files(directory, manifest)
    return manifest


async def load(candidate: Candidate, *, engine: Engine, client: EngineClient, routes: Routes) -> None:
    """Have the engine load it by `client`, which is of its present generation, or hold its virtual tokens
    here. Raises RejectedError when a living engine refuses or the tokens do not fit, Unavailable when
    unknown."""
    if candidate.manifest.form is Form.PROMPT:
        await _hold(candidate, engine, routes)
        return
    try:
        await client.load_adapter(name=candidate.model, path=str(candidate.directory))
    except EngineRefused as error:
        await _insist_on_life(client, routes.base(engine).name)
        raise RejectedError(
            Rejection.LOAD_REFUSED, f"the engine would not load it: {_words(error, candidate)}"
        ) from error


async def _hold(candidate: Candidate, engine: Engine, routes: Routes) -> None:
    tokens, length = candidate.manifest.virtual_tokens, engine.max_model_length
    if tokens >= length:
        raise RejectedError(
            Rejection.LOAD_REFUSED, f"its {tokens} virtual tokens leave no room in a context of {length}"
        )
    try:
        await routes.hold(candidate.model, engine, directory=candidate.directory, virtual_tokens=tokens)
    except MalformedPromptError as error:
        raise RejectedError(Rejection.CORRUPT, str(error)) from error
    except NoPlainEmbeddingsError as error:
        raise RejectedError(Rejection.LOAD_REFUSED, str(error)) from error


async def prove(
    candidate: Candidate,
    *,
    base: Route,
    served: Route,
    generation: int,
    prover: Prover,
    sequences: int | None = None,
) -> Comparison:
    """Compare what `served` says with what was trained, on the first `sequences` of the canary, or all.
    `generation` is that of the engine behind `base`.

    Raises RejectedError with the figures, Unavailable when the engine gave none.
    """
    try:
        comparison = await prover.prove(
            base=base,
            served=served,
            generation=generation,
            canary=candidate.manifest.canary[:sequences],
        )
    except EngineRefused as error:
        await _insist_on_life(base.client, base.name)
        if candidate.manifest.form is Form.PROMPT and error.status == HTTPStatus.BAD_REQUEST:
            raise RejectedError(
                Rejection.LOAD_REFUSED, f"the engine takes no virtual tokens: {_words(error, candidate)}"
            ) from error
        raise RejectedError(
            Rejection.WRONG_WEIGHTS, f"the engine could not compute with it: {_words(error, candidate)}"
        ) from error
    if comparison.verdict is not Verdict.OK:
        raise RejectedError(Rejection(comparison.verdict.value), comparison.message, comparison)
    return comparison


def verification(comparison: Comparison, *, seconds: float, time: float) -> Verification:
    """What the registry keeps of a proof that took `seconds` and ended at `time` since the epoch."""
    return Verification(
        tokens=comparison.tokens,
        adapter_difference=comparison.adapter_difference,
        effect=comparison.effect,
        trained_effect=comparison.trained_effect,
        noise=comparison.noise,
        tolerance=comparison.tolerance,
        strength=comparison.strength.share,
        strength_error=comparison.strength.error,
        quantisation_difference=comparison.quantisation_difference,
        seconds=seconds,
        time=time,
    )


def count_rejection(metrics: Metrics, engine: str, model: str, error: RejectedError) -> None:
    """As a proof that failed where it came to one, else as a load."""
    if error.reason in _OF_PROOFS:
        metrics.verified(engine, model, error.reason)
    else:
        metrics.loaded(engine, model, error.reason)


async def _insist_on_life(client: EngineClient, base_name: str) -> None:
    """A dying engine refuses too. Raises Unavailable unless it still answers for the base."""
    try:
        await client.produce_token(base_name)
    except EngineRefused as error:
        raise unavailable("the engine does not answer for its base model") from error


def _words(error: EngineRefused, candidate: Candidate) -> str:
    return error.message.replace(str(candidate.directory), candidate.model)[:_MAX_REASON_CHARACTERS]
