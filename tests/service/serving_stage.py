"""What tests of serving need: artifacts that fit the engine's double, an engine's face, and everything
running."""

import asyncio
import hashlib
import json
import random
import struct
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from service.changes import Changes
from service.engine import Abilities, EngineClient, EngineState, Fleet
from service.engine.capacity import UNKNOWN, Capacity
from service.engine.client import Limits
from service.metrics import Metrics
from service.registry import (
    AliasChangeKind,
    NewJob,
    Registry,
    Share,
    VersionRow,
    VersionState,
    Wish,
)
from service.serving import (
    Bases,
    Chat,
    ChatDelta,
    ChatMessage,
    ChatTurn,
    Disposal,
    Means,
    OwnEngines,
    Prover,
    Reconcilers,
    Served,
    Strays,
)
from service.settings import Settings
from tests.bases import made_base
from tests.doubles.arithmetic import logprobs
from tests.doubles.engine import EngineDouble
from tests.service.registry_stage import BASE, new_job, open_registry
from tests.service.registry_stage import until as until_reached
from tests.tiny_renderer import tiny_renderer
from trainer.config import BaseModel, Technique
from trainer.events import Published
from trainer.rendering import Renderer

MODEL = BaseModel(name=BASE, path=Path("/models/base"), revision="sha256:base")
EMBEDDINGS = tuple(struct.pack("<2f", token, 0.5) for token in range(260))
"""Rows of the base's embedding matrix: tokens for all bytes and a few more, hidden size 2."""
CANARY_TOKENS = (tuple(range(3, 40)), tuple(range(50, 70)))
OUTCOMES = frozenset({VersionState.ACTIVE, VersionState.FAILED, VersionState.RETIRED})


def write_artifact(
    artifacts_dir: Path,
    weights: bytes,
    *,
    canary_weights: bytes | None = None,
    rank: int = 4,
    config_rank: int | None = None,
    base: BaseModel = MODEL,
    template: str | None = None,
) -> str:
    """Publish an adapter whose canary fits `canary_weights` (or its own `weights`); gives its digest.
    `template` is another one than the stage's base has."""
    files = {
        "adapter_model.safetensors": weights,
        "adapter_config.json": json.dumps({"r": config_rank or rank, "peft_type": "LORA"}).encode(),
    }
    of_canary = weights if canary_weights is None else canary_weights
    fields = {"technique": "lora", "rank": rank}
    return _publish(artifacts_dir, files, of_canary, fields, base, rendering(template))


def write_prompt(
    artifacts_dir: Path,
    seed: int,
    *,
    tokens: int = 3,
    canary_seed: int | None = None,
    width: int = 2,
    says_tokens: int | None = None,
    harm: bytes | None = None,
) -> str:
    """Publish virtual tokens drawn by `seed`, whose canary fits them or those of `canary_seed`; gives the
    digest. `says_tokens` is what the configuration claims; `harm` takes the place of their last bytes."""
    numbers = _virtual_tokens(seed, tokens, width)
    if harm is not None:
        numbers = numbers[: -len(harm)] + harm
    files = {
        "adapter_model.safetensors": safetensors("prompt_embeddings", "BF16", [tokens, width], numbers),
        "adapter_config.json": json.dumps(
            {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": says_tokens or tokens}
        ).encode(),
    }
    of_canary = numbers if canary_seed is None else _virtual_tokens(canary_seed, tokens, width)
    served = bytearray(2 * len(of_canary))  # as 32-bit numbers, which the base has
    served[2::4], served[3::4] = of_canary[0::2], of_canary[1::2]
    manifest = {"technique": "prompt_tuning", "rank": 0, "virtual_tokens": says_tokens or tokens}
    return _publish(artifacts_dir, files, bytes(served), manifest, MODEL)


def write_model(
    artifacts_dir: Path,
    weights: bytes,
    *,
    canary_weights: bytes | None = None,
    technique: str = "full",
    base: BaseModel = MODEL,
) -> str:
    """Publish a whole model whose canary fits `canary_weights` (or its own `weights`); gives its digest."""
    files = {"model.safetensors": weights, "config.json": b"{}"}
    of_canary = weights if canary_weights is None else canary_weights
    return _publish(artifacts_dir, files, of_canary, {"technique": technique, "rank": 0}, base)


def _virtual_tokens(seed: int, tokens: int, width: int) -> bytes:
    drawn = random.Random(seed)
    return b"".join(struct.pack("<f", drawn.uniform(1, 2))[2:] for _ in range(tokens * width))


def safetensors(name: str, dtype: str, shape: list[int], numbers: bytes) -> bytes:
    """A file with one tensor."""
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(numbers)]}}).encode()
    return len(header).to_bytes(8, "little") + header + numbers


def write_base(directory: Path) -> BaseModel:
    """The base model's files, as far as the service reads them."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 2}))
    table = safetensors("model.embed_tokens.weight", "F32", [len(EMBEDDINGS), 2], b"".join(EMBEDDINGS))
    (directory / "model.safetensors").write_bytes(table)
    return replace(MODEL, path=directory)


def _publish(
    artifacts_dir: Path,
    files: Mapping[str, bytes],
    of_canary: bytes,
    fields: Mapping[str, object],
    base: BaseModel,
    contract: Mapping[str, object] | None = None,
) -> str:
    manifest = {
        "format": 1,
        "adapter_id": "support",
        **fields,
        "base_model": {"name": base.name, "revision": base.revision},
        "rendering": rendering() if contract is None else contract,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for name, content in files.items()
        },
        "canary": {
            "sequences": [
                {
                    "token_ids": list(tokens),
                    "base_logprobs": logprobs(None, tokens),
                    "adapter_logprobs": logprobs(of_canary, tokens),
                }
                for tokens in CANARY_TOKENS
            ]
        },
    }
    content = json.dumps(manifest).encode()
    digest = hashlib.sha256(content).hexdigest()
    directory = artifacts_dir / digest
    directory.mkdir(parents=True, exist_ok=True)
    for name, body in {**files, "MANIFEST.json": content}.items():
        (directory / name).write_bytes(body)
    return digest


async def register(
    registry: Registry,
    digest: str,
    *,
    adapter_id: str = "support",
    rank: int = 4,
    technique: Technique = Technique.LORA,
    base_model: str = BASE,
    asked: NewJob | None = None,
) -> VersionRow:
    """Make the artifact the adapter's next version, PENDING, as a finished job does; `asked` is that job."""
    asked = asked or new_job(adapter_id=adapter_id, base_model=base_model)
    await registry.create_job(replace(asked, technique=technique))
    job = await registry.claim_next_job("test")
    assert job is not None
    published = Published(time=1.0, step=3, digest=digest, size_bytes=100, rank=rank)
    return await registry.succeed_job(job.id, job.epoch, published)


class DoubleEngine:
    """The face of an engine that is a double within the test."""

    restarts = 0
    message = "a double"
    max_rank = 16
    abilities = Abilities()
    max_model_length = 2048

    def __init__(
        self,
        double: EngineDouble,
        changes: Changes,
        *,
        name: str = "double-1",
        supervised: bool = True,
        capacity: Capacity = UNKNOWN,
        base_name: str = MODEL.name,
    ) -> None:
        self.name = name
        self._base_name = base_name
        self.double = double
        self.supervised = supervised
        self.state = EngineState.READY
        self.generation = 1
        self.limits = Limits(load_seconds=0.5, measure_seconds=5.0)
        self.capacity = capacity
        self.client = self._new_client()
        self._changes = changes

    async def run(self) -> None:
        """Be a supervisor: a double that is dead comes back as a new generation."""
        while True:
            await self.double.died.wait()
            self.double.died.clear()
            await self.restart()

    async def restart(self) -> None:
        """Forget everything and come back as a new generation."""
        await self.go()
        await self.come_back()

    async def go(self) -> None:
        """Be gone, and seen to be."""
        self.state = EngineState.DOWN
        self._changes.notify("engine")
        await self.client.close()
        await self.double.stop()

    async def come_back(self) -> None:
        """As a new generation."""
        await self.double.restart()
        self.client = self._new_client()
        self.generation += 1
        self.state = EngineState.READY
        self._changes.notify("engine")

    def _new_client(self) -> EngineClient:
        return EngineClient(
            url=self.double.url, limits=self.limits, base=self._base_name, capacity=self.capacity
        )


def renderer(directory: Path, template: str | None = None) -> Renderer:
    """A renderer with a tiny vocabulary and the plain template, or one of bytes with `template`."""
    if template is not None:
        return tiny_renderer(directory, template)
    directory.mkdir(parents=True, exist_ok=True)
    words = ["[UNK]", "</s>", "hello", "world", "how", "are", "you"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return Renderer.from_directory(directory)


@cache
def rendering(template: str | None = None) -> Mapping[str, object]:
    """The contract of such a renderer."""
    with TemporaryDirectory() as directory:
        return renderer(Path(directory), template).contract()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything of serving, running against a double."""

    registry: Registry
    double: EngineDouble
    engine: DoubleEngine
    fleet: Fleet
    engines: Sequence[DoubleEngine]
    """All replicas; the first one is `engine`, and its server `double`."""
    others: Mapping[str, DoubleEngine]
    """Of the other bases, by their names."""
    served: Served
    bases: Bases
    own_engines: OwnEngines
    changes: Changes
    artifacts_dir: Path
    metrics: Metrics
    chat: Chat

    async def publish(
        self, adapter_id: str, weights: bytes, *, canary_weights: bytes | None = None
    ) -> VersionRow:
        """Publish and register the next version of an adapter."""
        digest = write_artifact(self.artifacts_dir, weights, canary_weights=canary_weights)
        return await register(self.registry, digest, adapter_id=adapter_id)

    async def point(self, adapter_id: str, alias_id: str, *shares: Share) -> None:
        """Have an alias share its requests so."""
        kind = AliasChangeKind.PROMOTED if len(shares) == 1 else AliasChangeKind.SPLIT
        wish = Wish(adapter_id=adapter_id, alias_id=alias_id)
        await self.registry.aliases.point(wish, shares, kind=kind, is_gated=None, is_forced=False)

    async def row(self, row: VersionRow) -> VersionRow:
        """The present row, of deleted adapters too."""
        rows = await self.registry.all_versions(frozenset(VersionState))
        return next(each for each in rows if each.model == row.model)

    async def outcome(self, row: VersionRow, states: Collection[VersionState] = OUTCOMES) -> VersionRow:
        """Wait until a version is in one of `states`."""

        async def reached() -> bool:
            return (await self.row(row)).state in states

        await until_reached(self.changes, f"version/{row.model}", reached)
        return await self.row(row)

    async def answer(self, model: str = "") -> list[ChatDelta]:
        """All of an answer to a greeting; "" asks the base."""
        turn = ChatTurn(model=model, messages=(ChatMessage(role="user", content="hello world"),))
        async with aclosing(self.chat.stream(turn)) as deltas:
            return [delta async for delta in deltas]

    async def is_served(self, row: VersionRow) -> None:
        """Wait until a version may answer."""

        await self.soon(lambda: self.served.holds(row.model))

    async def is_served_by(self, *engines: DoubleEngine, row: VersionRow) -> None:
        """Wait until exactly these let a version answer."""
        await self.soon(lambda: set(self.served.engines(row.model)) == set(engines))

    async def soon(self, condition: Callable[[], bool]) -> None:
        """Wait for something that sends no event."""

        async def reached() -> bool:
            return condition()

        await until_reached(self.changes, "polled", reached)

    async def unloaded(self, model: str) -> None:
        """Wait until the engine does not have it."""

        await self.soon(lambda: model not in self.double.adapters)


@asynccontextmanager
async def stage(
    tmp_path: Path,
    *,
    supervised: bool = True,
    replicas: int = 1,
    own_engines: Callable[[Means], Means] = lambda means: means,
    template: str | None = None,
    capacity: Capacity = UNKNOWN,
    make_fleet: Callable[[Sequence[DoubleEngine], Changes], Fleet] = lambda engines, _: Fleet(engines),
    more_bases: Mapping[str, str | None] = MappingProxyType({}),
) -> AsyncIterator[Stage]:
    """Reconcilers at work on a registry, artifacts and so many doubles below `tmp_path`. `own_engines`
    changes what engines of whole models are made with, `make_fleet` what the replicas are taken for;
    `template` is the base's, None the plain one. `capacity` is each one's. `more_bases` are further bases by
    name with their templates, each with a double of its own."""
    changes = Changes()
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(open_registry(tmp_path, changes=changes))
        doubles = [
            await stack.enter_async_context(
                EngineDouble(base_name=MODEL.name, base_path=str(MODEL.path), embeddings=EMBEDDINGS)
            )
            for _ in range(replicas)
        ]
        base = write_base(tmp_path / "base")
        engines = [
            DoubleEngine(double, changes, name=f"double-{number}", supervised=supervised, capacity=capacity)
            for number, double in enumerate(doubles, 1)
        ]
        others = {
            name: DoubleEngine(
                await stack.enter_async_context(EngineDouble(base_name=name, embeddings=EMBEDDINGS)),
                changes,
                name=f"double-of-{name}",
                base_name=name,
                supervised=supervised,
            )
            for name in more_bases
        }
        fleet = make_fleet(engines, changes)
        served = Served(changes=changes)
        metrics = Metrics()
        artifacts_dir = tmp_path / "artifacts"
        artifacts_dir.mkdir(exist_ok=True)
        bases = Bases(
            [
                made_base(
                    replace(base, name=name),
                    engines_of_it,
                    renderer=renderer(tmp_path / f"tokenizer-of-{name}", its_template),
                    changes=changes,
                    served=served,
                )
                for name, engines_of_it, its_template in (
                    (base.name, fleet, template),
                    *((name, Fleet([others[name]]), more_bases[name]) for name in more_bases),
                )
            ]
        )
        means = Means(
            registry=registry,
            served=served,
            bases=bases,
            settings=Settings(home=tmp_path),
            changes=changes,
            prover=Prover(),
            metrics=metrics,
        )
        own = OwnEngines(own_engines(means))
        disposal = Disposal(registry=registry, bases=bases, artifacts_dir=artifacts_dir)
        reconcilers = [
            Reconcilers.of(
                one,
                registry=registry,
                served=served,
                disposal=disposal,
                artifacts_dir=artifacts_dir,
                changes=changes,
                metrics=metrics,
                period_seconds=0.1,
                rest_seconds=0.02,
            )
            for one in bases
        ]
        strays = Strays(registry=registry, bases=bases, changes=changes)
        parts = (
            *(each.run() for each in reconcilers),
            own.run(),
            strays.run(),
            *(one.fleet.run() for one in bases),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            yield Stage(
                registry=registry,
                double=doubles[0],
                engine=engines[0],
                fleet=fleet,
                engines=engines,
                others=others,
                served=served,
                bases=bases,
                own_engines=own,
                changes=changes,
                artifacts_dir=artifacts_dir,
                metrics=metrics,
                chat=Chat(
                    registry=registry,
                    served=served,
                    bases=bases,
                    own_engines=own,
                    metrics=metrics,
                    max_answers=4,
                ),
            )
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for engine in (*engines, *others.values()):
                await engine.client.close()
            for result in results:
                if not isinstance(result, asyncio.CancelledError):
                    raise AssertionError(f"a task ended by itself: {result!r}")
