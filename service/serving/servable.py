"""What no version of a technique could be served for here: told before anybody trains it. Blocks on disk."""

from collections.abc import Mapping
from pathlib import Path

from service.serving.soft_prompts import EmbeddingTable, NoPlainEmbeddingsError
from trainer.config import Technique


def unservable(base_path: Path, *, own_engines: int) -> Mapping[Technique, str]:
    """Techniques that are refused, and why. `own_engines` is how many this service may start."""
    refused = {}
    try:
        EmbeddingTable(base_path)
    except NoPlainEmbeddingsError as error:
        refused[Technique.PROMPT_TUNING] = str(error)
    if own_engines == 0:
        refused[Technique.FULL] = (
            "this service starts no engine for a fully fine-tuned model; HOTLORA_OWN_ENGINES allows some"
        )
    return refused
