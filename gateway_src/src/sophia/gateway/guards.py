# SPDX-License-Identifier: GPL-3.0-or-later
"""Reasons why two questions that look alike to an embedding must not share an answer. Pure.

Embeddings put "enable logging" beside "disable logging": polarity-reversed pairs score 0.83 to 0.9997 under nine
encoders (GPTCache issue 694), so no cosine threshold can tell them apart. `objection` compares what the cosine is
blind to, in this order, and names the first difference:

======================  ============================================================================================
``length``              one is empty, or over three times as long as the other
``code``                either holds code, and the two are not the same but for white space at the ends of lines
``quotes``              quoted strings, in order, as written
``numbers``             numbers (as digits or as words), dates, times, versions, signs, in order
``units``               units and currencies, in order; spellings of one unit are equal
``negation``            not, never, without, unless …, in order
``comparison``          words that turn a sentence round: before, more, from, who, to increase …, in order
``entities``            capitalised names that do not start a sentence, in order, as written
``words``               the other words that carry meaning: none more, none less
``order``               the same words in another order: who did what to whom
======================  ============================================================================================

What is left free is what does not change the question: politeness, the form of asking ("tell me the", "what is"),
contraction, "X of Y" for "Y's X", "the" before such an X and before a superlative, British and American spelling, a few
pairs of words and turns of phrase that always say the same (`_SYNONYMS`, `_TURNS`), case (but not of names with a
second meaning, as "US", nor of units, as mW and MW), punctuation (but not before a sentence's last word: "Call me,
Ann"). Where a word itself is spoken of ("How do I spell …?"), nothing is free but white space and case.
Function words are known for English only; in any other language every word counts, which costs hits and makes no
false one.

`objection` with ``words=False`` leaves out the last two rows: the looser rule, for partitions whose answers are
checked (false hits on swapped lower-case nouns are possible then).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Reading", "compare", "objection", "read"]

_CODE = re.compile(r"[{}\[\]\\|;~^]|[=!<>]=|=>|->|::|\n\s{2,}|\w\(|^\s*(?:def|class|import|select|SELECT)\b", re.M)
_QUOTED = re.compile(r"`([^`]*)`|\"([^\"]*)\"|“([^”]*)”|«([^»]*)»|(?<!\w)'([^']*)'(?!\w)|‘([^’]*)’(?!\w)")
_POSSESSIVE = re.compile(
    r"\b(?!(?:what|who|where|when|how|it|that|there|here|he|she|let)'s)(\w+)'s ((?!not\b)\w+)", re.I
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_QUOTES = frozenset("\"'“”‘’«»`")
_START = re.compile(r"(?:^|[.!?:\n]\s*)[\"'(]?(\w+)")

_CONTRACTIONS = (
    (re.compile(r"\bcan't\b", re.I), "can not"),
    (re.compile(r"\bwon't\b", re.I), "will not"),
    (re.compile(r"\bshan't\b", re.I), "shall not"),
    (re.compile(r"n't\b", re.I), " not"),
    (re.compile(r"\b(what|who|where|when|how|it|that|there|here)'s\b", re.I), r"\1 is"),
    (re.compile(r"'re\b", re.I), " are"),
    (re.compile(r"'ll\b", re.I), " will"),
    (re.compile(r"'ve\b", re.I), " have"),
    (re.compile(r"\bi'm\b", re.I), "i am"),
)

_WH = r"(?=what\b|which\b|who\b|whom\b|whose\b|where\b|when\b|why\b|how\b)"
_VERBS = (
    "explain|tell|give|show|write|list|describe|summari[sz]e|translate|compare|help|find|create|generate|make|provide|"
    "calculate|compute|convert|define|suggest|recommend|name|draft|fix|rewrite|solve"
)
_TASKS = (
    "bake|boil|build|calculate|clean|compute|configure|convert|cook|delete|disable|enable|fix|format|freeze|get rid of|"
    "install|knit|measure|merge|parse|peel|pronounce|remove|repair|replace|reset|reverse|roast|sew|sharpen|sort|spell|tie|uninstall"
)
_GREETING = (
    (re.compile(r"^(?:hi|hello|hey)(?: there)?[,.!]? ", re.I), ""),
    (re.compile(r"^(?:(?:please|kindly),? )+", re.I), ""),
    (re.compile(rf"^(?:can|could|will) you (?:please |kindly )?(?=(?:{_VERBS})\b)", re.I), ""),
    (re.compile(rf"^would you (?:please|kindly) (?=(?:{_VERBS})\b)", re.I), ""),
    (re.compile(r"^(?:do you know|tell me) (what|who|where) (.+) (is|are)[.?!]*$", re.I), r"\1 \3 \2"),
    (re.compile(rf"^(?:i (?:want|need|would like) to know|i'd like to know|do you know|tell me) {_WH}", re.I), ""),
    (re.compile(r"^tell me (?=the\b)", re.I), "what is "),
    (re.compile(r"(?:[,.!?;] (?:please|thanks|thank you)|(?<! say)(?<! of) please)[.!?]*$", re.I), ""),
)
_ASKING = (
    (re.compile(r"\bcannot\b", re.I), "can not"),
    (re.compile(r"\bhow to ", re.I), "how "),
    (re.compile(r"\bhow (?:do|can|could|would|should) (?:i|we|one) ", re.I), "how "),
    # "How do you boil an egg?" means anyone; "How do you feel?" does not.
    (re.compile(rf"\bhow (?:do|can|could|would|should) you (?=(?:{_TASKS})\b)", re.I), "how "),
    (re.compile(r"\bwhat (?:is|are) the (?:best |easiest )?(?:way|steps) to ", re.I), "how "),
    (re.compile(r"\b(what|which|who|where|when|why|how) (?:is|are) ", re.I), r"\1 "),
    (re.compile(r"\b(what|which|who|where|when|why|how) does ", re.I), r"\1 do "),
)
# Turns of phrase that ask for the same thing whatever fills them. Each side must hold for every filler.
_TURNS = (
    (re.compile(r"^(in|with|using|under|on|for) ([\w.+#-]+(?: [\w.+#-]+)?), (.+?)([.?!]*)$", re.I), r"\3 \1 \2\4"),
    (re.compile(r"^who (?:is|was) the (?:author|writer) of ", re.I), "who wrote "),
    (re.compile(r"^who was (.+) (written) by\b", re.I), r"who wrote \1"),
    (re.compile(r"^by whom was (.+) written\b", re.I), r"who wrote \1"),
    (
        re.compile(r"^who was (.+) (invented|discovered|founded|painted|composed|designed|built) by\b", re.I),
        r"who \2 \1",
    ),
    (
        re.compile(r"^by whom was (.+) (invented|discovered|founded|painted|composed|designed|built)\b", re.I),
        r"who \2 \1",
    ),
    (re.compile(r"^how tall (?:is|are) ", re.I), "what is the height of "),
    (re.compile(r"^how old (?:is|are) ", re.I), "what is the age of "),
    (re.compile(r"^how (?:much do|much does) (.+) cost\b", re.I), r"what is the price of \1"),
    (re.compile(r"^what do(?:es)? (.+) cost\b", re.I), r"what is the price of \1"),
    (re.compile(r"^how (?:much do|much does) (.+) weigh\b", re.I), r"what is the weight of \1"),
    (re.compile(r"^how many people live in ", re.I), "what is the population of "),
    (re.compile(r"^how many (?:inhabitants|residents) do(?:es)? (.+) have\b", re.I), r"what is the population of \1"),
    (
        re.compile(r"^(?:what|when) is the (?:date of birth|birth date|birthdate|birthday) of (.+?)([.?!]*)$", re.I),
        r"when was \1 born\2",
    ),
    (re.compile(r"^(where (?:is|are) .+) (?:located|situated)([.?!]*)$", re.I), r"\1\2"),
    (re.compile(r"^what is the (?:reason|cause) (?:that|why) ", re.I), "why is it that "),
)

# A number and the letters that cling to it come apart ("5km"); words keep inner dots, hyphens, signs ("c++", "a@b.c").
_TOKEN = re.compile(r"(?<![\w)])[-+]?\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['.@/&_+#-]*[\w+#])*|\d+|[^\w\s]|_+")
# A mark before the last word sets it apart, whichever mark it is: "Call me, Ann" is not "Call me Ann".
_LAST_WORD = re.compile(r"[.,;:!?](?= [^\W\d_]+[.?!]*$)|(?<=\bno)[,;:.!](?= )", re.I)
# What ends a clause is no part of the question, but for the factorial's mark.
_CLAUSE_END = re.compile(r"(?<!\d)[.,?!:;]+(?=\s|$)|(?<=\d)[.,?:;]+(?=\s|$)|…|(?<=\s)[-–—](?=\s)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FREE = _words("what which")
_SUPERLATIVE = re.compile(r"(?:first|second|third|last|next|best|worst|most|least|\w{2,}est)$")
_MENTION = re.compile(
    r"\b(?:spell\w*|spelt|pronounc\w+|rhym\w+|synonyms?|antonyms?|adverbs?|adjectives?|nouns?|verbs?|pronouns?|syllables?|"
    r"prepositions?|articles?|words?|phrases?|letters?|define|definition|means?|meaning|says?|said|saying|translat\w+|plural|"
    r"grammar|sentences?|typo)\b",
    re.I,
)
_SAME_WORDS = """
    buy purchase; begin start commence; kids children; big large; bigger larger; biggest largest; photo photograph;
    tv television; fridge refrigerator; couch sofa; gasoline petrol; trash rubbish; attorney lawyer; usa u.s.a;
    uk u.k; email e-mail; wifi wi-fi; ok okay; colour color; colours colors; favourite favorite; centre center;
    grey gray; theatre theater; organise organize; organisation organization; recognise recognize;
    behaviour behavior; neighbour neighbor; labour labor; honour honor; travelling traveling; cancelled canceled;
    modelling modeling; aluminium aluminum; jewellery jewelry; catalogue catalog; dialogue dialog; analyse analyze;
    optimise optimize; summarise summarize
"""
_SYNONYMS = {word: group.split()[0] for group in _SAME_WORDS.split(";") for word in group.split()}
# Capitals that a sentence's start has left behind, or that are always written so.
_MOVED = _words("I In With Using Under On For")
_NEGATION = _words("""
    not no never none nothing nobody nowhere neither nor without except unless lack lacking fail fails failed hardly
    barely rarely seldom avoid exclude excluding excluded non prevent stop false wrong incorrect impossible invalid
    deny disallow forbid
""")
_COMPARISON = _words("""
    before after more less most least over under above below greater smaller larger bigger higher lower fewer than
    first last next previous earlier later earliest latest oldest newest older newer from into in on at out off up down
    left right by with for against between versus vs via through until till since within during outside inside all any
    every each only both either and or but if when who whom whose why how where was were did had will would should must
    may might can could shall increase decrease increases decreases increasing decreasing rise fall gain loss add remove
    enable disable enabled disabled start begin end open close buy sell import export input output send receive push
    pull encrypt decrypt upload download minimum maximum min max best worst true good bad cheap expensive cheapest fast
    slow fastest slowest ascending descending same different always often sometimes better worse faster slower i me you
    he him she her it we us they them my your his its our their this that these those as
""")
_TWO_MEANINGS = _words("""
    us it who polish turkey china march may august apple java oracle amazon meta windows word excel access
    ruby rust go swift python shell chrome safari edge python spark kafka will mark bill rose frank grace hope jack
    aids pin ram bat reading nice mobile bath cork bolivar sun mercury earth jobs bush gates page phoenix orange buffalo
    jordan chad wales guinea brown black white green young king cook baker smith wood stone rice gap target subway visa
    delta dove puma jaguar tesla word slack zoom teams discord spring flask react express angular ember node pearl dart
    julia scratch basic outlook opera brave android office unity steam twitch echo alexa prime kindle fire nest pixel
    galaxy note surface mars venus moon titan europa cancer leo virgo faith joy dawn summer autumn winter ivy lily
    violet daisy iris amber jade opal grant chase drew pat sue art ray rob nick guy peg penny olive ginger basil
    rosemary herb sad
    square stripe box drive meet sheets signal gamma pound crown real rand mark sterling job proverbs acts numbers kings
    bond hunt ford lincoln dodge focus golf fox hawk wolf crane fisher mason carter potter hunter miller carpenter
    washington lake hill field church temple bishop pope queen prince duke earl dean major general marshal sergeant
    congo java jersey bern essen worms split tours lens orange bergen hell
""")
_UNITS = {
    spelling: unit
    for unit, spellings in {
        "m": "m meter meters metre metres",
        "km": "km kilometer kilometers kilometre kilometres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "mi": "mi mile miles",
        "ft": "ft foot feet",
        "inch": "inch inches",
        "yd": "yd yard yards",
        "kg": "kg kilo kilos kilogram kilograms",
        "g": "g gram grams",
        "mg": "mg milligram milligrams",
        "lb": "lb lbs pound pounds",
        "oz": "oz ounce ounces",
        "t": "ton tons tonne tonnes",
        "l": "l liter liters litre litres",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "gal": "gal gallon gallons",
        "s": "s sec secs second seconds",
        "ms": "ms millisecond milliseconds",
        "minute": "minute minutes mins",
        "h": "h hr hrs hour hours",
        "day": "day days daily",
        "week": "week weeks weekly",
        "month": "month months monthly",
        "year": "year years yr yrs yearly annual annually",
        "celsius": "celsius centigrade °c ℃",
        "fahrenheit": "fahrenheit °f ℉",
        "kelvin": "kelvin",
        "b": "byte bytes",
        "bit": "bit bits",
        "kb": "kb kilobyte kilobytes",
        "mb": "mb megabyte megabytes",
        "gb": "gb gigabyte gigabytes",
        "tb": "tb terabyte terabytes",
        "percent": "% percent percentage",
        "usd": "$ usd dollar dollars",
        "eur": "€ eur euro euros",
        "gbp": "£ gbp",
        "jpy": "¥ jpy yen",
        "w": "watt watts",
        "kw": "kw kilowatt kilowatts",
        "v": "volt volts",
        "degree": "° degree degrees",
        "utc": "utc gmt",
        "am": "am a.m",
        "pm": "pm p.m",
    }.items()
    for spelling in spellings.split()
}
# Symbols after a number whose case says how much: mW and MW, Mb and MB, 5 m and 5 M.
_CASED = re.compile(r"\d\s?([A-Za-zµμ]{1,3})\b")
_CASED_UNITS = _words("mw mv ma mb gb kb tb pb mhz mn mj mpa ms pf k m g s pa ev mm nm µm")
_COUNTS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
"""
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_COUNTS.split())} | {
    word: word
    for word in _words("""
        thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands million millions billion
        billions trillion dozen half third quarter double triple twice once thrice couple single second fourth fifth
        sixth seventh eighth ninth tenth monday tuesday wednesday thursday friday saturday sunday january february march
        april june july august september october november december today tomorrow yesterday tonight morning noon evening
        midnight
    """)
}


_SHORT = 500


class Reading(NamedTuple):
    """A question, taken apart: what `compare` compares, and `plain`, the form of it that is best embedded.

    Case, politeness and the full stop move a vector (MiniLM: 0.91 between "What is the capital of France?" and "what
    is the capital of france") without moving the meaning; `plain` is without them.
    """

    text: str
    plain: str
    code: bool
    quotes: tuple[str, ...]
    numbers: tuple[str, ...]
    units: tuple[str, ...]
    negation: tuple[str, ...]
    comparison: tuple[str, ...]
    entities: tuple[str, ...]
    words: tuple[str, ...]


def objection(asked: str, kept: str, *, words: bool = True) -> str | None:
    """Why the answer to `kept` must not be given to `asked`; None where nothing speaks against it. Symmetric."""
    return compare(read(asked), read(kept), words=words)


def compare(one: Reading, other: Reading, *, words: bool = True) -> str | None:
    """`objection` for questions that are read already."""
    if one.text == other.text:
        return None
    if not one.text or not other.text or not 1 / 3 <= len(one.text) / len(other.text) <= 3:
        return "length"
    if one.code or other.code:
        return "code"
    for name in ("quotes", "numbers", "units", "negation", "comparison"):
        if getattr(one, name) != getattr(other, name):
            return name
    if not _same_entities(one, other, words):
        return "entities"
    if words and (one.words != other.words or not one.words):
        return "order" if one.words and sorted(one.words) == sorted(other.words) else "words"
    return None


def _same_entities(one: Reading, other: Reading, words: bool) -> bool:
    """Whether the same things are named; where the words are compared anyway, one may be typed all without capitals."""
    if one.entities == other.entities:
        return True
    if not words or (one.entities and other.entities):
        return False
    named, plain = (one, other) if one.entities else (other, one)
    if plain.text == plain.text.lower():
        return not any(_is_ambiguous(name) for name in named.entities)
    return all(re.search(rf"\b{re.escape(name)}\b", plain.text) for name in named.entities)  # where a sentence starts


def _is_ambiguous(name: str) -> bool:
    return name.casefold() in _TWO_MEANINGS or (name.isupper() and len(name) <= 4)


def read(text: str) -> Reading:
    """Take a question apart. Short ones are remembered: a kept question is read again at every look at it."""
    return _read_again(text) if len(text) <= _SHORT else _read(text)


def _read(text: str) -> Reading:
    text = unicodedata.normalize("NFC", text).replace("’", "'").replace("−", "-").strip()
    quotes = tuple(next(part for part in match if part) for match in _QUOTED.findall(text) if any(match))
    mention = bool(_MENTION.search(text))
    question = " ".join(text.split()) if mention else _unfold(text)
    tokens = _tokens(question)
    numbers, negation, comparison, words = [], [], [], []
    units = [found for found in _CASED.findall(question) if found.casefold() in _CASED_UNITS]
    for place, token in enumerate(tokens):
        word = token if mention else _SYNONYMS.get(token, token)
        if token in _NEGATION:
            negation.append(token)
        elif word in _COMPARISON:
            comparison.append(word)
        if token in _UNITS:
            word = _UNITS[token]
            units.append(word)
        if token in _NUMBER_WORDS or token[-1].isdecimal():
            word = _NUMBER_WORDS.get(token, word)
            numbers.append(word)
        if mention or not _is_free(tokens, place):
            words.append(word)
    return Reading(
        "\n".join(line.rstrip() for line in text.splitlines()),
        " ".join(tokens) or text,
        bool(_CODE.search(text)),
        quotes,
        tuple(numbers),
        tuple(units),
        tuple(negation),
        tuple(comparison),
        _entities(question),
        tuple(words),
    )


_read_again = lru_cache(maxsize=4096)(_read)


def _is_free(tokens: list[str], place: int) -> bool:
    """Whether a word may be there or not: "the" only where what follows makes it certain which one is meant."""
    if tokens[place] in _FREE:
        return True
    if tokens[place] != "the" or place + 2 >= len(tokens):
        return False
    return tokens[place + 2] == "of" or _SUPERLATIVE.match(tokens[place + 1]) is not None


def _unfold(text: str) -> str:
    """Write the ways of asking one thing in one way; case stays."""
    text = " ".join(text.split())
    text = _THOUSANDS.sub("", text)
    for pattern, written in (*_GREETING, *(_CONTRACTIONS if "'" in text else ())):
        text = pattern.sub(written, text)
    if "'s " in text:
        text = _POSSESSIVE.sub(r"\2 of \1", text)
    for pattern, written in (*_TURNS, *_ASKING):
        text = pattern.sub(written, text)
    return text


def _tokens(text: str) -> list[str]:
    found = _TOKEN.findall(_CLAUSE_END.sub(" ", _LAST_WORD.sub(" \u2016", text)).casefold())
    return [token for token in found if token not in _QUOTES]


def _entities(text: str) -> tuple[str, ...]:
    """Capitalised words as written, but not where a sentence's start may be why; words all in capitals always."""
    starts = {match.start(1) for match in _START.finditer(text)}
    found = []
    for match in re.finditer(r"\w+(?:[.&'-]\w+)*", text):
        word = match.group().removesuffix("'s")
        capitals = word.isupper() and len(word) > 1
        if capitals or (word[0].isupper() and match.start() not in starts and word not in _MOVED):
            found.append(word)
    return tuple(found)
