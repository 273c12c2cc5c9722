"""How good answers are: exact figures for each of the five uses, from the texts alone.

Standard library only and pure, so that a training loop, the service and a script judge alike. Knows nothing
of models, prompts or files. Figures are fractions in 0..1, higher is better. Perplexity is not here: it comes
out of log-probabilities, not of texts.
"""

from trainer.config import Task
from trainer.scoring.classification import Confusion, given_label
from trainer.scoring.tasks import Score, headline_figure, infer_task, labels_of, score

__all__ = [
    "Confusion",
    "Score",
    "Task",
    "given_label",
    "headline_figure",
    "infer_task",
    "labels_of",
    "score",
]
