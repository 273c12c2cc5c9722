"""Messages to token ids: the one function that training, chat and evaluation share.

The ids are those of `transformers`' `apply_chat_template(tokenize=True)` for the same directory, without
importing it: only `tokenizers` and sandboxed `jinja2`, so that the service may use it. Templates come from a
base model's directory, never from a client. It does not know torch, datasets, or how long a row may be.

As everywhere, a special token that is spelled out in a message's text becomes that special token.
"""

from trainer.rendering.renderer import PreferencePair, Renderer, Segment, TrainingRow
from trainer.rendering.template import RenderingError, Tool, ToolTurn, WrittenCall
from trainer.rendering.tools import CallReader, ReadCall

__all__ = [
    "CallReader",
    "PreferencePair",
    "ReadCall",
    "Renderer",
    "RenderingError",
    "Segment",
    "Tool",
    "ToolTurn",
    "TrainingRow",
    "WrittenCall",
]
