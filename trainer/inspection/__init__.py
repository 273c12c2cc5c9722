"""Looks at a file of training rows before anything is trained on it: checks, counts, reports, shows.

The service, which keeps files, and the command, which checks them where no service is, use it alike. It knows
neither torch nor where files are kept.
"""

from trainer.inspection.draft import BadRows, Draft, Wish
from trainer.inspection.preview import PreviewRow, preview
from trainer.inspection.report import Repeat, Report

__all__ = ["BadRows", "Draft", "PreviewRow", "Repeat", "Report", "Wish", "preview"]
