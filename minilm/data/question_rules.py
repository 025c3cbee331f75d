"""Rules that find, in a piece of raw text, questions whose answers stand in it.

Each rule is a pattern of the text's own words: "X said unto Y, Q" answers who said Q, and to whom. There is no tagger
and no list of names: a name is a word with a capital that is none of the small words with which sentences begin.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

PERSON, PLACE, TIME = "person", "place", "time"


@dataclass(frozen=True)
class Asked:
    """A question on a text: the rule that it comes from, what kind of thing answers it, and its characters."""

    rule: str
    kind: str
    question: str
    start: int
    end: int


# --- what names, places and times look like -----------------------------------------------------------------------

_SMALL = (
    "A About After Again Ah Alas All Also Although Am Amen An And Are Art As At Ay Aye Be Because Before Behold "
    "Being Beside Better Both But By Can Chapter Come Could Did Do Does Done Down Each Either Else Enter Even Every "
    "Exeunt Exit Farewell For Forth From Full Gentle Give Go God Good Great Had Hail Hark Has Hast Hath Have He "
    "Hear Hence Her Here Him His Ho How Howbeit However I If In Indeed Into Is It Its Know Last Lest Let Like Lo "
    "Long Look Lord Make Many Marry May Me Methinks More Moreover Most Much Must My Nay Neither Never Nevertheless "
    "No None Nor Not Nothing Notwithstanding Now O Of Off Oh On Once One Only Or Our Out Over Peace Pray Prithee "
    "Re-enter Rather Save Say Scene See Set Shall She Should Since Sir Sirs So Some Speak Stand Still Such Surely "
    "Take Tell Than That The Thee Their Them Then Thence There Therefore These They Thine Think This Those Thou "
    "Though Through Thus Thy Till To Together Too Two Under Unless Until Unto Up Upon Verily Very Was We Well Were "
    "What When Whence Where Wherefore Whether Which While Who Whom Whose Why Will Wilt With Within Without Woe "
    "Would Yea Yes Yet You Your Act Mr Mrs Dr"
)
_NAME_WORD = rf"\b(?=[A-Z])(?!(?:{'|'.join(_SMALL.split())})\b)[A-Z][a-z]+(?:[-’'][a-zA-Z][a-z]+)*"
NAME = rf"{_NAME_WORD}(?: {_NAME_WORD})*"
_OFFICE = "king|queen|prince|duke|earl|count|lord|lady|priest|captain|governor|prophet|angel|men|children|elders"
_SOMEONE = rf"\b(?:the (?:LORD(?: God)?|(?:{_OFFICE})(?: of (?:the )?(?:LORD|God|{NAME}))?|people|woman)|God|{NAME})"
_SITE = (
    "abbey|camp|castle|church|city|country|court|door|field|forest|garden|gate|gates|hall|house|island|king's palace|"
    "land|market-place|mount|mountain|palace|park|plain|prison|river|road|sea|shore|street|synagogue|tabernacle|temple|"
    "town|tower|valley|village|wilderness|wood|woods"
)
_SOMEWHERE = rf"(?:the (?:{_SITE})\b(?: of {NAME})?|mount {NAME}|{NAME})"
_NUMBER = (
    r"(?:\w+teen(?:th)?|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|\w+tie)th|first|second|third|"
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty)"
)
_UNIT = r"(?:year|month|day|hour|watch|week|night|morning|evening)"
_WEEKDAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_WHEN = rf"""(?:
    (?:in|on|at|about|until|till|by)\s(?:the\s)?(?:(?:{_NUMBER}|same|selfsame|sabbath|next|last|that)\s){{1,3}}{_UNIT}s?\b
        (?:\sof\s(?:the\smonth|the\sreign\sof\s{NAME}|king\s{NAME}|{NAME}))?
  | (?:in|on|at)\s(?:the\s(?:morning|evening|morrow|night|beginning)|those\sdays|that\s(?:time|day|night|hour))\b
  | (?:to-morrow|to-day|yesterday)\b(?:\s(?:morning|night))?
  | to-night\b | (?:this|last|next|every)\s(?:morning|evening|night|day|hour|week|month|year|winter|summer)\b
  | (?:at|about|by|till|until)\s{_NUMBER}\so['’]clock\b
  | (?:at|about|till|until|by)\s(?:even|midnight|midday|noon|night|dawn|supper|dinner)\b
  | (?:after|within|for)\s(?:{_NUMBER}\s)+{_UNIT}s\b
  | (?:on|upon|by)\s{_WEEKDAY}(?:\s(?:next|last|morning|night|morn))?\b
  | (?:in|since|by)\s(?:(?:January|February|March|April|May|June|July|August|September|October|November|December)
        (?:,?\s\d{{4}})?|1\d{{3}}|20\d\d)\b
)"""
_TIME = re.compile(_WHEN, re.VERBOSE | re.IGNORECASE)
_PERSON = re.compile(_SOMEONE)
_PLACE = re.compile(rf"\b(?:in|into|at|to|from|of|toward|through|unto|near|before)\s({_SOMEWHERE})")
_LOCATED = re.compile(rf"\b(in|at|near|before|within|without)\s({_SOMEWHERE})\b")
_SPEAKER = re.compile(r"(?:^|(?<=\n\n))([A-Z][A-Za-z'’-]*(?: [A-Z][A-Za-z'’-]*){0,3})\.\n(?=[^\s\[])")
_HEADING = re.compile(r"^SCENE ([IVX\d]+)\.\s+([A-Z][^\n\[]{3,60}?)\.?$", re.MULTILINE | re.IGNORECASE)


class Lexicon:
    """Which names of a text are of places: those that stand rather behind "in" than before "said".

    Counted over the whole text, so that "went to Laban" asks for no place.
    """

    def __init__(self, text: str) -> None:
        acts = r"(?:said|spake|begat|answered|took|sent|saw|was the son|died|cried|replied|asked|thought|loved)"
        people = Counter(re.findall(rf"\b({_NAME_WORD}),? {acts}\b", text))
        people.update(re.findall(rf"\b(?:son|daughter|wife|brother|father|mother|servant)s? of ({_NAME_WORD})", text))
        places = Counter(re.findall(rf"\b(?:in|into|at|toward|through|mount) ({_NAME_WORD})", text))
        places.update(re.findall(rf"\b(?:land|city|king|town|duke|streets|inhabitants|gates) of ({_NAME_WORD})", text))
        self.places = {name for name, count in places.items() if count > 2 * people[name]}

    def is_place(self, phrase: str) -> bool:
        """Whether its last word is the name of a place."""
        return phrase.split()[-1] in self.places


def candidates(text: str, kind: str) -> list[tuple[int, int]]:
    """The parts (start, end) of a text that look like answers of a kind, in their order."""
    if kind == TIME:
        return [match.span() for match in _TIME.finditer(text)]
    if kind == PLACE:
        return sorted([m.span(1) for m in _PLACE.finditer(text)] + [m.span(2) for m in _HEADING.finditer(text)])
    speakers = [match.span(1) for match in _SPEAKER.finditer(text)]
    covered = {place for start, end in speakers for place in range(start, end)}
    others = [match.span() for match in _PERSON.finditer(text) if match.start() not in covered]
    return sorted(speakers + others)


def questions_in(text: str, lexicon: Lexicon) -> list[Asked]:
    """All questions that the rules find, without those that have two different answers or a single candidate."""
    found: dict[str, list[Asked]] = {}
    for rule in RULES:
        for asked in rule(text, lexicon):
            found.setdefault(asked.question, []).append(asked)
    sure = [each[0] for each in found.values() if len({text[a.start : a.end].lower() for a in each}) == 1]
    kinds = {a.kind for a in sure}
    seen = {kind: {text[start:end].lower() for start, end in candidates(text, kind)} for kind in kinds}
    return [a for a in sure if len(seen[a.kind] | {text[a.start : a.end].lower()}) > 1]


# --- rules for narrative ------------------------------------------------------------------------------------------


def _said(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """ "X said unto Y, Q": who says Q, and to whom. Either may be a pronoun, which is no answer."""
    pattern = (
        rf"({_SOMEONE}|\w+) (?:said|spake|answered|cried)(?: (?:un)?to ({_SOMEONE}|\w+))?(?:, saying)?, ([^\n:.?!]+)"
    )
    for match in re.finditer(pattern, text):
        quote = _quoted(match[3])
        if quote is None:
            continue
        if _PERSON.fullmatch(match[1]):
            yield Asked("said", PERSON, f"Who says {quote}?", *match.span(1))
        if match[2] and _PERSON.fullmatch(match[2]):
            yield Asked("said to", PERSON, f"To whom is it said {quote}?", *match.span(2))


def _quotation(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """ "Q," said X: as novels have it."""
    verb = r"(?:said|cried|replied|asked|answered|exclaimed|returned|whispered|added)"
    for match in re.finditer(rf"[\"“]([^\"”“]{{10,400}})[\"”]\s{verb} ({NAME})", text):
        if (quote := _quoted(match[1])) is not None:
            yield Asked("said", PERSON, f"Who says {quote}?", *match.span(2))


_MOVES = {
    "went": "go", "came": "come", "dwelt": "dwell", "fled": "flee", "departed": "depart", "returned": "return",
    "died": "die", "reigned": "reign", "journeyed": "journey", "abode": "abide", "lived": "live", "stood": "stand",
    "arrived": "arrive", "sailed": "sail", "travelled": "travel", "lay": "lie", "pitched": "pitch", "sent": "send",
}  # fmt: skip


def _moved(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """ "X went down to Y": where. Only if it is said once of X in this text that it went."""
    verbs = "|".join(_MOVES)
    way = r"(?: (?:up|down|out|forth|over|away|back|again|even))*"
    for match in re.finditer(
        rf"({_SOMEONE}) ({verbs}){way} (to|unto|into|in|at|from|out of|toward) ({_SOMEWHERE})\b", text
    ):
        who, verb, preposition, place = match.groups()
        if not lexicon.is_place(place) or len(re.findall(rf"\b{re.escape(who)} {verb}\b", text)) > 1:
            continue
        origin = preposition in ("from", "out of")
        yield Asked("moved", PLACE, f"{'From where' if origin else 'Where'} did {who} {_MOVES[verb]}?", *match.span(4))


def _sons(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """ "X the son of Y": whose son, and who."""
    for match in re.finditer(rf"({NAME}),? the (son|daughter|wife|brother|father|mother) of ({NAME})", text):
        who, what, of = match.groups()
        yield Asked("kin", PERSON, f"Whose {what} was {who}?", *match.span(3))
        if len(re.findall(rf"\b{what}s? of {of}\b", text)) == 1:
            yield Asked("kin", PERSON, f"Who was the {what} of {of}?", *match.span(1))


def _begat(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """ "X begat Y": who begat Y, and whom X."""
    for match in re.finditer(rf"({NAME}) begat ({NAME})\b", text):
        yield Asked("begat", PERSON, f"Who begat {match[2]}?", *match.span(1))
        if len(re.findall(rf"\b{match[1]} begat\b", text)) == 1:
            yield Asked("begat", PERSON, f"Whom did {match[1]} beget?", *match.span(2))


def _rulers(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """ "X king of Y": of which place, and who."""
    offices = "king|queen|duke|earl|count|prince|governor|bishop|lord"
    for match in re.finditer(rf"({NAME}),? (?:the )?((?i:{offices})) of ({NAME})\b", text):
        who, office, place = match[1], match[2].lower(), match[3]
        yield Asked("ruler", PLACE, f"Of which place was {who} {office}?", *match.span(3))
        if len(re.findall(rf"(?i:\b{office}) of {place}\b", text)) == 1:
            yield Asked("ruler", PERSON, f"Who was {office} of {place}?", *match.span(1))


def _when_and_where(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """A clause with one time or one place in it: when or where, by the rest of the clause."""
    times = [("time", TIME, "When", match.start(), match.start(), match.end()) for match in _TIME.finditer(text)]
    places = [
        ("place", PLACE, "Where", match.start(), *match.span(2))
        for match in _LOCATED.finditer(text)
        if match[2].islower() or lexicon.is_place(match[2])
    ]
    for found in (times, places):
        clauses = ((_clause(text, each[4], each[5]), each) for each in found)
        for (low, high), group in groupby(clauses, key=lambda pair: pair[0]):
            (_, (rule, kind, word, cut, start, end)), *more = group
            before, after = text[low:cut], text[end:high]
            quote = _quoted(before, 4, last=True) if len(before) > len(after) else _quoted(after, 4)
            if not more and quote is not None:
                yield Asked(rule, kind, f"{word} was it: {quote}?", start, end)


def _clause(text: str, start: int, end: int) -> tuple[int, int]:
    """The beginning and the end of the clause around a part of the text."""
    low = max(text.rfind(mark, 0, start) for mark in ".:;?!") + 1
    match = re.compile(r"[.:;?!]").search(text, end)
    return low, match.start() if match else len(text)


# --- rules for plays ----------------------------------------------------------------------------------------------


def _speeches(text: str) -> list[tuple[re.Match[str], int]]:
    """The labels of the speeches that a text holds from their beginning, and where each speech ends."""
    found = []
    for match in _SPEAKER.finditer(text):
        end = text.find("\n\n", match.end())
        found.append((match, len(text) if end < 0 else end))
    return found


def _speakers(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """Who says a clause of a speech, and who answers the speech that ends in it."""
    speeches = _speeches(text)
    for number, (label, end) in enumerate(speeches):
        speech = re.sub(r"\[[^]]*\]?", lambda m: "." * len(m[0]), text[label.end() : end])
        clauses = [quote for c in re.finditer(r"[^.:;?!]+", speech) if (quote := _quoted(c[0], 4)) is not None]
        for quote in clauses:
            yield Asked("speaker", PERSON, f"Who says {quote}?", *label.span(1))
        if not clauses or number + 1 == len(speeches):
            continue
        after = speeches[number + 1][0]
        if after[1] != label[1] and not text[end : after.start()].strip():
            yield Asked("answer", PERSON, f"Who answers when {label[1]} says {clauses[-1]}?", *after.span(1))


def _stage(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """ "[Enter X.]", "[Exit X.]": who, after the words that stand before it; "[Exit.]": who spoke them."""
    someone = r"(?:(?:an?|the) )?[A-Z][\w'’]*(?: (?:of |the )?[A-Z][\w'’]*)*"
    some = rf"{someone}(?:,\s{someone})*(?:,?\sand\s{someone})?"
    labels = [label for label, _ in _speeches(text)]
    for match in re.finditer(rf"\[(?i:re-)?((?i:enter|exit|exeunt))(?:\s({some}))?\.?\]", text):
        label = max((each for each in labels if each.end() <= match.start()), key=lambda each: each.end(), default=None)
        if label is None or _HEADING.search(text, label.end(), match.start()):
            continue
        spoken = re.finditer(r"[^.:;?!\[\]]+", text[label.end() : match.start()])
        clauses = [quote for clause in spoken if (quote := _quoted(clause[0]))]
        word = "enters" if match[1].lower() == "enter" else "leaves"
        if clauses and (match[2] or match[1].lower() == "exit"):
            span = match.span(2) if match[2] else label.span(1)
            yield Asked(word, PERSON, f"Who {word} after {clauses[-1]}?", *span)


def _scenes(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """ "SCENE II. Rome. The Capitol.": where."""
    for match in _HEADING.finditer(text):
        if "same" not in match[2].lower() and "another" not in match[2].lower():
            yield Asked("scene", PLACE, f"Where is scene {match[1]}?", *match.span(2))


def _persons(text: str, lexicon: Lexicon) -> Iterator[Asked]:
    """A play's list of persons, "LAFEU, an old Lord.": which person."""
    for match in re.finditer(r"^([A-Z][A-Z'’]+(?: [A-Z'’]+)*),\s+((?:[a-zA-Z]+ ?){2,8})\.?$", text, re.MULTILINE):
        yield Asked("persons", PERSON, f"Which person is {' '.join(match[2].split())}?", *match.span(1))


RULES: tuple[Callable[[str, Lexicon], Iterator[Asked]], ...] = (
    _said, _quotation, _moved, _sons, _begat, _rulers, _when_and_where, _speakers, _stage, _scenes, _persons,
)  # fmt: skip

NAMES = (
    "answer", "begat", "enters", "kin", "leaves", "moved", "persons", "place", "ruler", "said", "said to", "scene",
    "speaker", "time",
)  # fmt: skip


def _quoted(words: str, least: int = 3, most: int = 9, last: bool = False) -> str | None:
    """The first words of a clause, or the last, in quotation marks; None if there are too few."""
    found = re.sub(r'["“”()\[\]¶]', " ", words).split()
    if len(found) < least:
        return None
    return '"' + " ".join(found[-most:] if last else found[:most]).strip(" ,;-—") + '"'
