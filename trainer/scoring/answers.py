"""Question answering: exact match and token F1 as the SQuAD 1.1 evaluation defines them.

(Rajpurkar et al. 2016, arXiv:1606.05250, `evaluate-v1.1.py`.)
"""

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case without ASCII punctuation, English articles and surplus white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, reference: str) -> bool:
    """Whether both are the same after normalisation."""
    return normalised(answer) == normalised(reference)


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the normalised words, as multisets.

    Where one of them has no word left, 1 if neither has, else 0 (as SQuAD 2.0 decides it).
    """
    given, wanted = normalised(answer).split(), normalised(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))


def contains(answer: str, reference: str) -> bool:
    """Whether the reference's normalised words stand in the answer's, in a row."""
    return f" {normalised(reference)} " in f" {normalised(answer)} "
