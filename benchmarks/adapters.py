"""Adapters against the base, with and without the plugin: `python -m benchmarks.adapters`.

One adapter, four, and one beside the base, as the page asks them, each against the base alone. One engine
with the corrected CPU operators and one with vLLM's own run in turn, on the same four adapters of random
weights; ratios to the base are taken within an engine, the gain of the plugin between the two. vLLM's own are
not asked by 32 at once: they copy an adapter's weights for every token of a prompt, which is minutes for one
burst (`benchmarks.lora_operators` has that size). Where vLLM is not built for the CPU there is no plugin, and
one engine is measured.
"""

import asyncio
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from benchmarks.load import Load, Measured, Target
from benchmarks.rounds import interleaved, median_ratio
from benchmarks.stack import running_engine, settings_for
from service.base_model import resolve_base_model
from service.engine.client import EngineClient
from service.engine.packages import Packages

ROUNDS = 3
CONCURRENCIES = (1, 2, 8, 32)
STOCK_CONCURRENCIES = (1, 2, 8)
MAX_TOKENS = 16
ADAPTERS = 4
RANK = 16


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An engine to measure."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    concurrencies: tuple[int, ...] = CONCURRENCIES


CPU_ARMS = (
    Arm(name="with plugin"),
    Arm(name="without plugin", environment={"VLLM_PLUGINS": ""}, concurrencies=STOCK_CONCURRENCIES),
)


async def main() -> None:
    """Measure and print."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        settings = settings_for(home)
        base, _ = await resolve_base_model(settings.base_model, settings.models_dir)
        paths = await asyncio.to_thread(_random_adapters, base.path, home)
        measured = {}
        for arm in CPU_ARMS if Packages.installed().is_cpu_build else (Arm(name="vLLM"),):
            async with running_engine(home, environment=arm.environment) as (url, key):
                measured[arm.name] = await _measure(url, key, base.name, paths, arm.concurrencies)
        for concurrency in CONCURRENCIES:
            figures[f"concurrency {concurrency}"] = _compared(
                {name: rates[concurrency] for name, rates in measured.items() if concurrency in rates}
            )
    print(json.dumps({"adapters against base": figures}))


def _random_adapters(base: Path, home: Path) -> list[Path]:
    """Adapters that all differ; speed does not depend on what they say."""
    paths = []
    for number in range(ADAPTERS):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", init_lora_weights=False)
        paths.append(home / f"adapter-{number}")
        get_peft_model(model, config).save_pretrained(str(paths[-1]))
    return paths


async def _measure(
    url: str, key: str, base: str, paths: list[Path], concurrencies: tuple[int, ...]
) -> dict[int, dict[str, list[float]]]:
    """Tokens per second of each round, by concurrency and by who is asked."""
    client = EngineClient(url=url, api_key=key)
    for path in paths:
        await client.load_adapter(name=path.name, path=str(path))
    await client.close()
    adapters = [Target(url=url, model=path.name, api_key=key) for path in paths]
    plain = Target(url=url, model=base, api_key=key)
    groups = {
        "base": [plain],
        "one": adapters[:1],
        "four": adapters,
        "side by side": [plain, adapters[0]],
    }
    results: dict[int, dict[str, list[float]]] = {}
    async with aiohttp.ClientSession() as session:
        load = Load(session, max_tokens=MAX_TOKENS)
        for concurrency in concurrencies:
            requests = max(ADAPTERS, concurrency)

            async def burst(
                targets: list[Target], *, at: int = concurrency, count: int = requests
            ) -> Measured:
                return await load.burst(targets, concurrency=at, requests=count)

            await burst(adapters)
            arms = {name: lambda targets=targets: burst(targets) for name, targets in groups.items()}
            bursts = await interleaved(arms, ROUNDS)
            results[concurrency] = {n: [m.tokens_per_second for m in ms] for n, ms in bursts.items()}
    return results


def _compared(arms: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    figures = {
        arm: {
            "base tokens per second": median(rates["base"]),
            "one adapter against base": median_ratio(rates["one"], rates["base"]),
            "four adapters against base": median_ratio(rates["four"], rates["base"]),
            "base and an adapter side by side against base": median_ratio(
                rates["side by side"], rates["base"]
            ),
        }
        for arm, rates in arms.items()
    }
    if "without plugin" in arms:
        with_plugin, without = arms["with plugin"], arms["without plugin"]
        figures["with plugin against without"] = {
            name: median(with_plugin[name]) / median(without[name]) for name in with_plugin
        }
    return figures


if __name__ == "__main__":
    asyncio.run(main())
