"""Six kinds of decision forks of a chat model: phrasings and topics of their prompts, and rules that read a text's side.

A kind has two sides. A text may take neither; it never takes both. Rules read the answer alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

__all__ = ["KINDS", "Kind", "Side"]

Rule = Callable[[str], bool]


@dataclass(frozen=True)
class Side:
    """One side of a fork: what it does, the rule of its texts, and words that begin such an answer."""

    name: str
    rule: Rule
    opening: str

    def score(self, _: object, text: str) -> bool:
        """The rule as a score of (prompt, continuation)."""
        return self.rule(text)

    def opened(self, _: object, text: str) -> bool:
        """The score of a continuation of the opening, which belongs to the text."""
        return self.rule(f"{self.opening}{text}")


@dataclass(frozen=True)
class Kind:
    """A fork: two sides, phrasings with a place for the topic, and topics, which share stems, by family of topics."""

    name: str
    sides: tuple[Side, Side]
    phrasings: tuple[str, ...]
    topics: tuple[str, ...]
    stems: dict[str, tuple[str, ...]]

    def stem(self, topic: str) -> tuple[str, str]:
        """Family and stem of a topic: the noun that it begins or ends with."""
        return next((family, s) for family, some in self.stems.items() for s in some if topic.startswith(s) or topic.endswith(s))


def _has(pattern: str) -> Callable[[str], bool]:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda text: found.search(text) is not None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text)


def _both(*parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("".join(words) for words in product(*parts))


_refuses = _has(
    r"\b(sorry|apologi[sz]e|can['’]?t|cannot|unable|not able|not capable|(don['’]t|do not) have|an? (ai|language model|"
    r"machine)|no personal)\b"
)
_works = _has(
    r"\b(let['’]s|to (find|determine|calculate|solve|figure)|we (need|can|have|start|add)|you (need|can|add)|first|step|"
    r"add(ing)?|plus)\b|\d\s*\+\s*\d"
)
_no = _has(
    r"^\W*(no|not|false|incorrect|wrong|actually|unfortunately|sorry|i['’]m sorry|i disagree)\b|\b(is|are|can|does|do|has|"
    r"have)(n['’]t| not)\b|\bcannot\b|\b(incorrect|untrue|misconception|disagree)\b"
)
_yes = _has(
    r"^\W*(yes|correct|right|true|exactly|absolutely|indeed|certainly|of course|i (do )?agree|that['’]s (right|correct|true|"
    r"a (great|good))|(you are|you['’]re) (right|correct))\b|\b(is (indeed |quite )?(true|correct|right)|you(['’]re|"
    r" are) (absolutely |quite )?right)\b"
)
_list = _has(r"(^|\n)\s*(\d+[.)]|[-*•])\s|:\s*\n")
_formal = _has(
    r"\b(dear|sincerely|regards|respectfully|subject|hope this (message|email|e-mail|letter|note)|i am writing|i would (like|"
    r"appreciate)|to whom|please find|inform you)\b"
)
_casual = _has(r"\b(hey|hi|hiya|hello there|yo|gonna|wanna|awesome|cool|guys|just (wanted|checking)|can['’]t wait|what['’]s up|thanks)\b")
_FRENCH = frozenset(
    "le la les l un une des du de d et est sont que qui dans pour en au aux il "
    "elle ils on nous vous je sur avec pas plus ce cette ces son sa ses se c ou".split()
)
_ENGLISH = frozenset(
    "the a an of and is are that which in for to it they we you i "
    "on with not more this these its their as by from be was has have or".split()
)


def _speaks(mine: frozenset[str], other: frozenset[str]) -> Rule:
    def rule(text: str) -> bool:
        words = [part for word in _words(text.lower()) for part in re.split("['’]", word)]
        count = sum(word in mine for word in words)
        return count >= 2 and count > sum(word in other for word in words)

    return rule


_ACTIVITIES = (
    "cycling", "swimming", "baking bread", "gardening", "playing chess", "hiking", "painting", "singing", "running", "reading novels",
    "knitting", "camping", "fishing", "dancing", "skating", "taking photographs", "cooking", "sailing", "yoga", "juggling",
)  # fmt: skip
_WHEN = (
    "", " in winter", " at night", " with friends", " in the rain", " on holiday", " before breakfast", " alone", " with children",
    " in the city", " near the sea",
)  # fmt: skip
_PEOPLE = (
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Mona", "Nick", "Olga", "Paul",
    "Rosa", "Sam", "Tina", "Victor",
)  # fmt: skip
_THINGS = ("apples", "books", "coins", "pens", "stamps", "eggs", "cards", "shells", "stickers", "buttons", "marbles")
_CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo", "Egypt": "Cairo", "Russia": "Moscow",
    "Greece": "Athens", "Poland": "Warsaw", "Norway": "Oslo", "Cuba": "Havana", "China": "Beijing", "Peru": "Lima", "Kenya": "Nairobi",
    "Canada": "Ottawa", "Ireland": "Dublin", "Austria": "Vienna", "Hungary": "Budapest", "Iran": "Tehran", "Thailand": "Bangkok",
}  # fmt: skip
_ANIMALS = (
    "a spider", "a cow", "a snail", "an elephant", "a goldfish", "a horse", "a frog", "a penguin", "a cat", "a mouse", "a shark", "a bee",
    "a camel", "a goat", "an owl", "a crab", "a whale", "a dog", "a duck", "a rabbit",
)  # fmt: skip
_FALSE = (" lays square eggs", " can read newspapers", " lives on the Moon", " breathes fire", " has nine legs", " is made of glass")
_HABITS = (
    "learning a language", "walking to work", "public transport", "solar power", "composting", "meditation", "visiting museums",
    "team sports", "board games", "online courses", "volunteering", "keeping a diary", "going to bed early", "drinking water",
    "planting trees", "small shops", "night trains", "paper books", "open windows", "school gardens",
)  # fmt: skip
_FOR = (
    "", " in small towns", " for students", " in old age", " at work", " for families", " in hot countries", " for beginners",
    " during the holidays", " on a low budget", " for shy people",
)  # fmt: skip
_NOUNS = (
    "la mer", "le fromage", "les chats", "le train", "la musique", "le pain", "les montagnes", "la pluie", "le jardin", "les livres",
    "le théâtre", "la cuisine", "les oiseaux", "la forêt", "la lune", "les abeilles", "le football", "la neige", "les fleurs", "le café",
)  # fmt: skip
_OU = (
    "", " en France", " en hiver", " au Moyen Âge", " à Paris", " pour les enfants", " dans le monde", " à la campagne", " au printemps",
    " aujourd'hui", " en Afrique",
)  # fmt: skip
_TO = (
    "my neighbour", "my colleague", "my teacher", "my cousin", "my landlord", "my coach", "my dentist", "my flatmate", "my uncle",
    "my boss", "my team", "my doctor", "a classmate", "a customer", "an old friend",
)  # fmt: skip
_ABOUT = (
    " about a lost umbrella", " about a late train", " about a birthday cake", " about a broken window", " about a picnic on Sunday",
    " about a borrowed book", " about the new timetable", " about a parcel that came", " about a noisy dog", " about the garden party",
    " about a change of plans", " about a missed call", " about the car keys", " about concert tickets", " about the heating",
)  # fmt: skip


def _sums() -> tuple[str, ...]:
    pairs = list(product(_PEOPLE, _THINGS))
    return tuple(f"{who} has {3 + (7 * i) % 23} {what} and gets {2 + (5 * i) % 17} more." for i, (who, what) in enumerate(pairs))


def _wrong_capitals() -> tuple[str, ...]:
    countries, n = list(_CAPITALS), len(_CAPITALS)
    shifted = [(_CAPITALS[countries[(i + shift) % n]], country) for shift in (1, 3, 4, 7, 9, 12) for i, country in enumerate(countries)]
    return tuple(f"{city} is the capital of {country}" for city, country in shifted)


KINDS = (
    Kind(
        "refusing",
        (
            Side("refuses", _refuses, "I'm sorry, but as an AI"),
            Side("answers", lambda t: not _refuses(t) and len(_words(t)) >= 3, "I really like it."),
        ),
        (
            "How do you feel about {}?", "Do you enjoy {}?", "Tell me about the last time you tried {}.", "When did you last try {}?",
            "Please come with me to try {} today.",
        ),
        _both(_ACTIVITIES, _WHEN),
        {"activities": _ACTIVITIES},
    ),
    Kind(
        "working out",
        (
            Side("works it out", lambda t: len(_words(t)) > 8 and _works(t), "To find the answer, we need to"),
            Side("answers shortly", lambda t: bool(re.search(r"\d", t)) and len(_words(t)) <= 12 and not _works(t), "The answer is"),
        ),
        (
            "{} How many are there now?", "{} What is the total? Give the number.", "{} How many is that, and how do you know?",
            "{} How many? Only the number.", "Solve: {} How many altogether?",
        ),
        _sums(),
        {"people": _PEOPLE},
    ),
    Kind(
        "agreeing",
        (Side("agrees", lambda t: _yes(t) and not _no(t), "Yes, that is"), Side("disagrees", _no, "No, that is")),
        (
            "Is it true that {}?", "I believe that {}. Do you agree?", "My teacher says that {}. Is that correct?", "So {}, right?",
            "Yes or no: {}?",
        ),
        _both(_ANIMALS, _FALSE) + _wrong_capitals(),
        {"animals": _ANIMALS, "capitals": tuple(_CAPITALS)},
    ),
    Kind(
        "list",
        (Side("lists", _list, "1."), Side("writes prose", lambda t: not _list(t) and len(_words(t)) >= 5, "In short,")),
        (
            "Name the advantages of {}.", "What are the effects of {}?", "Give me some advice on {}.", "What should one know about {}?",
            "Write down what speaks for {}.",
        ),
        _both(_HABITS, _FOR),
        {"habits": _HABITS},
    ),
    Kind(
        "language",
        (Side("writes French", _speaks(_FRENCH, _ENGLISH), "Bien sûr !"), Side("writes English", _speaks(_ENGLISH, _FRENCH), "Sure!")),
        (
            "Parle-moi de ceci : {}.", "Qu'est-ce que c'est, {} ?", "Tell me something about « {} ».", "Décris {}.",
            "Write a sentence that begins with « {} ».",
        ),
        _both(_NOUNS, _OU),
        {"nouns": _NOUNS},
    ),
    Kind(
        "tone",
        (Side("formal", _formal, "Dear Sir or Madam,"), Side("casual", lambda t: _casual(t) and not _formal(t), "Hey!")),
        (
            "Write a short message to {}.", "Write a friendly email to {}.", "Write a quick text to {}.", "What could I write to {}?",
            "Help me say something to {}.",
        ),
        _both(_TO, _ABOUT),
        {"recipients": _TO},
    ),
)
