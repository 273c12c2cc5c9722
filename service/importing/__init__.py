"""Imports: adapters that were trained elsewhere become versions, once nothing is wrong with them."""

from service.importing.importer import COMMAND, IDLE_SECONDS, FileName, Importer, stalled

__all__ = ["COMMAND", "IDLE_SECONDS", "FileName", "Importer", "stalled"]
