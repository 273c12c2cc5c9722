"""A small set of general questions with exact answers: what a tuning made a model forget.

Written for this project. Each item has a short, certain answer; an answer is right if one of the accepted
ones stands in it as whole words, in a row, after SQuAD's normalisation. It says nothing about how good a
model is: only the difference between a base and its adapter counts.
"""

from dataclasses import dataclass

from trainer.scoring.answers import contains

MAX_TOKENS = 32
"""Of an answer: room for a sentence, not for trying every answer."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question."""

    kind: str
    question: str
    accepted: tuple[str, ...]
    """Any of these is right; the first one is shown."""

    def is_right(self, answer: str) -> bool:
        """Whether an accepted answer stands in it."""
        return any(contains(answer, accepted) for accepted in self.accepted)


def _item(kind: str, question: str, *accepted: str) -> Item:
    return Item(kind=kind, question=question, accepted=accepted)


ITEMS = (
    _item("geography", "What is the capital of France?", "Paris"),
    _item("geography", "Which country has Tokyo as its capital?", "Japan"),
    _item("geography", "On which continent is Egypt?", "Africa"),
    _item("geography", "What is the largest ocean on Earth?", "Pacific"),
    _item("geography", "Which river flows through London?", "Thames"),
    _item("science", "Which planet is closest to the Sun?", "Mercury"),
    _item("science", "What is the chemical formula of water?", "H2O"),
    _item("science", "Which gas do plants take in from the air to make food?", "carbon dioxide", "CO2"),
    _item("science", "At how many degrees Celsius does water boil at sea level?", "100", "100C", "hundred"),
    _item("science", "Which organ pumps blood through the human body?", "heart"),
    _item("arithmetic", "What is 7 + 5?", "12", "twelve"),
    _item("arithmetic", "What is 6 times 4?", "24", "twentyfour"),
    _item("arithmetic", "What is half of 50?", "25", "twentyfive"),
    _item("arithmetic", "How many minutes are in one hour?", "60", "sixty"),
    _item("arithmetic", "Which number comes after 99?", "100", "hundred"),
    _item("words", "What is the opposite of hot?", "cold"),
    _item("words", "What is the plural of child?", "children"),
    _item("words", "What is the past tense of go?", "went"),
    _item(
        "words", "Name a word that means the same as big.", "large", "huge", "great", "enormous", "gigantic"
    ),
    _item("words", "Which letter comes after B in the alphabet?", "C"),
    _item("language", "How do you say thank you in Spanish?", "gracias"),
    _item("language", "What does the French word chien mean in English?", "dog"),
    _item("language", "How do you say good morning in German?", "guten Morgen"),
    _item("time", "Which day comes after Friday?", "Saturday"),
    _item("time", "Which month comes before May?", "April"),
    _item("time", "How many days are in a week?", "7", "seven"),
    _item("culture", "Who wrote the play Romeo and Juliet?", "Shakespeare"),
    _item("culture", "How many strings does a violin have?", "4", "four"),
    _item("everyday", "What colour do you get when you mix blue and yellow?", "green"),
    _item("everyday", "Which animal says meow?", "cat", "cats", "kitten"),
    _item("instruction", "Reply with the single word ready.", "ready"),
    _item("instruction", "Repeat this word: lantern", "lantern"),
)
