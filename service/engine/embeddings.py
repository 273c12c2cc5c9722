"""A prompt as embeddings, in the one form in which vLLM takes it: base64 of what `torch.save` writes.

The file is put together here from its public layout (a stored zip of a fixed description and the raw
numbers), so that the service needs no torch and no pickle module. Only tensors that we composed ourselves
come here: what a client sent never does, because the engine hands this field to `torch.load`.
"""

import io
import zipfile
from base64 import b64encode
from dataclasses import dataclass
from enum import StrEnum

_TIME = (1980, 1, 1, 0, 0, 0)
"""Of the zip's entries: the same embeddings give the same bytes."""


class Dtype(StrEnum):
    """Kinds of numbers, by their names in safetensors files."""

    BFLOAT16 = "BF16"
    FLOAT16 = "F16"
    FLOAT32 = "F32"

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return 4 if self is Dtype.FLOAT32 else 2


_STORAGES = {
    Dtype.BFLOAT16: b"BFloat16Storage",
    Dtype.FLOAT16: b"HalfStorage",
    Dtype.FLOAT32: b"FloatStorage",
}


@dataclass(frozen=True, kw_only=True)
class PromptEmbeddings:
    """Rows of numbers in place of token ids."""

    rows: bytes
    """[tokens, width] of `dtype`, little-endian, row by row."""
    width: int
    """Numbers of a row: the model's hidden size."""
    dtype: Dtype

    @property
    def tokens(self) -> int:
        """Places of the context that it takes."""
        return len(self.rows) // (self.width * self.dtype.size)

    def encoded(self) -> str:
        """What goes into `prompt_embeds`. Some milliseconds for each megabyte: call it in a thread."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in (
                ("data.pkl", self._description()),
                ("byteorder", b"little"),
                ("data/0", self.rows),
                ("version", b"3\n"),
            ):
                archive.writestr(zipfile.ZipInfo(f"archive/{name}", _TIME), content)
        return b64encode(file.getbuffer()).decode()

    def _description(self) -> bytes:
        """The opcodes with which torch describes a contiguous tensor over storage 0, as torch 2 writes them:
        _rebuild_tensor_v2(storage, offset 0, size, stride, requires_grad False, no hooks)."""
        return b"".join(
            (
                b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((",
                _text(b"storage"),
                b"ctorch\n" + _STORAGES[self.dtype] + b"\n",
                _text(b"0"),
                _text(b"cpu"),
                _number(self.tokens * self.width) + b"tQ",
                _number(0),
                _number(self.tokens) + _number(self.width) + b"\x86",
                _number(self.width) + _number(1) + b"\x86",
                b"\x89ccollections\nOrderedDict\n)RtR.",
            )
        )


def _text(value: bytes) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value


def _number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)
