"""Text generation: ROUGE-L and chrF."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER_ORDERS = 6
"""chrF looks at runs of 1 to this many characters."""
BETA = 2
"""chrF weighs recall this many times as much as precision."""

_WORD = re.compile(r"[^\W_]+")


def rouge_l(answer: str, reference: str) -> float:
    """F1 over the longest common subsequence of words (Lin 2004, ROUGE-L on whole texts).

    Words are runs of letters and digits in lower case, without stemming: for ASCII as in the package
    rouge-score; 0 where a text has no word, 1 where neither has.
    """
    given, wanted = _WORD.findall(answer.lower()), _WORD.findall(reference.lower())
    if not given or not wanted:
        return float(given == wanted)
    return 2 * _common_subsequence(given, wanted) / (len(given) + len(wanted))


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for index, against in enumerate(other, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == against else max(above, row[index - 1])
            diagonal = above
    return row[-1]


@dataclass(frozen=True, kw_only=True)
class CharacterCounts:
    """Runs of characters in an answer, in the reference, and in both; one number for each length."""

    given: tuple[int, ...]
    wanted: tuple[int, ...]
    shared: tuple[int, ...]


def character_counts(answer: str, reference: str) -> CharacterCounts:
    """Counts over the texts without white space."""
    one, other = "".join(answer.split()), "".join(reference.split())
    given, wanted, shared = [], [], []
    for length in range(1, CHARACTER_ORDERS + 1):
        left, right = _runs(one, length), _runs(other, length)
        # As sacrebleu: a reference too short for this length says nothing about the answer's precision.
        given.append(left.total() if right else 0)
        wanted.append(right.total())
        shared.append((left & right).total())
    return CharacterCounts(given=tuple(given), wanted=tuple(wanted), shared=tuple(shared))


def chrf(counts: Sequence[CharacterCounts]) -> float:
    """chrF2 over some answers (Popović 2015), as sacrebleu's corpus score with its defaults, divided by 100.

    Precision and recall are averaged over the lengths that occur in both; 0 where there is none.
    """
    precisions, recalls = [], []
    for order in range(CHARACTER_ORDERS):
        given = sum(each.given[order] for each in counts)
        wanted = sum(each.wanted[order] for each in counts)
        shared = sum(each.shared[order] for each in counts)
        if given and wanted:
            precisions.append(shared / given)
            recalls.append(shared / wanted)
    if not precisions or not (sum(precisions) + sum(recalls)):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _runs(text: str, length: int) -> Counter[str]:
    return Counter(text[start : start + length] for start in range(len(text) - length + 1))
