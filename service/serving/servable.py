"""What no version of a technique could be served for here: told before anybody trains it."""

from collections.abc import Mapping

from service.engine.command import own_engine_command
from service.engine.fleet import Fleet
from service.engine.packages import EngineCannotStartError, Packages
from service.serving.soft_prompts import EmbeddingTable, NoPlainEmbeddingsError
from service.settings import Settings
from trainer.config import BaseModel, Technique


def unservable(
    base: BaseModel, settings: Settings, *, packages: Packages | None = None
) -> Mapping[Technique, str]:
    """Techniques that are refused whatever the engine says, and why. `packages` None: those beside us. Blocks
    on disk."""
    refused = {}
    try:
        EmbeddingTable(base.path)
    except NoPlainEmbeddingsError as error:
        refused[Technique.PROMPT_TUNING] = str(error)
    try:
        own_engine_command(settings, base, port=1, api_key="", packages=packages)
    except EngineCannotStartError as error:
        refused[Technique.FULL] = f"a fully fine-tuned model needs an engine started here: {error}"
    if settings.own_engines == 0:
        refused[Technique.FULL] = (
            "this service starts no engine for a fully fine-tuned model; HOTLORA_OWN_ENGINES allows some"
        )
    return refused


def unservable_on(fleet: Fleet, refused: Mapping[Technique, str]) -> Mapping[Technique, str]:
    """`refused`, and what no engine takes as far as they were asked yet."""
    if not fleet.abilities.adapters:
        reason = (
            "vLLM serves no LoRA adapters of this base model's architecture"
            if fleet.supervised
            else "the engine that this service is attached to loads no adapters while it runs; --enable-lora "
            "and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 allow it"
        )
        refused = {Technique.LORA: reason, Technique.QLORA: reason, **refused}
    if not fleet.abilities.embeddings:
        reason = (
            "the engine that this service is attached to takes no virtual tokens; --enable-prompt-embeds "
            "allows them"
        )
        refused = {Technique.PROMPT_TUNING: reason, **refused}
    return refused
