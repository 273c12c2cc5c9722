"""Exports: versions leave as other programs read them, with a model card."""

from service.exporting.exporter import CARD_NAME, Exporter, FileBegins
from service.exporting.formats import Format, GgufType, Wanted
from service.exporting.models import COMMAND, ModelMaker

__all__ = [
    "CARD_NAME",
    "COMMAND",
    "Exporter",
    "FileBegins",
    "Format",
    "GgufType",
    "ModelMaker",
    "Wanted",
]
