"""What a version can leave as, and which versions cannot. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from service.artifacts import Form
from service.errors import WrongState
from service.registry import VersionRow


class Format(StrEnum):
    """What is written."""

    PUBLISHED = "published"
    """The version's own files: PEFT's, or a whole model's where it is fully fine-tuned."""
    PEFT = "peft"
    """The same, for adapters and virtual tokens alone."""
    MERGED = "merged"
    """A whole model of transformers."""
    GGUF = "gguf"
    """A whole model as llama.cpp reads it, in one file."""


class GgufType(StrEnum):
    """Numbers of most weights, as llama.cpp's converter calls them."""

    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An export that is asked for."""

    format: Format = Format.PUBLISHED
    gguf_type: GgufType = GgufType.F16
    """Read for GGUF alone."""

    @property
    def is_whole_model(self) -> bool:
        """Whether it needs no base beside it, whatever the version is."""
        return self.format in {Format.MERGED, Format.GGUF}


def refuse_unsuited(version: VersionRow, form: Form, wanted: Wanted) -> None:
    """Raise WrongState (FORMAT_UNSUITED) where a version cannot leave so."""
    if form is Form.PROMPT and wanted.is_whole_model:
        rule = (
            "is virtual tokens before every prompt, which are no part of a model's weights; export it as PEFT"
        )
    elif form is Form.MODEL and wanted.format is Format.PEFT:
        rule = "is a whole model, which PEFT does not read; export it merged"
    else:
        return
    raise WrongState(f"{version.model} {rule}", state=version.technique, reason="FORMAT_UNSUITED")
