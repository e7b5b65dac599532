# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs of questions that look alike and need different answers, made from templates and word lists of our own.

Everything is public knowledge or plain office talk. The set is the same at every run: forms and fillers are walked in
a fixed order, and a seeded shuffle chooses which of a kind's pairs are kept (`PER_KIND` at most). Half of the pairs
stand behind a paragraph of context that they share, so that the difference is a small part of the text.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

__all__ = ["PER_KIND", "Pair", "adversarial"]

PER_KIND = 300


class Pair(NamedTuple):
    """Two questions, and what sets them apart (or, among paraphrases, what kind of rewording it is)."""

    kind: str
    one: str
    other: str


def adversarial(per_kind: int = PER_KIND) -> list[Pair]:
    """Every pair differs in what its answer must be."""
    pairs: list[Pair] = []
    for kind, made in _kinds():
        found = sorted({(min(pair), max(pair)) for pair in made if pair[0] != pair[1]})
        chance = random.Random(f"sophia {kind}")
        chance.shuffle(found)
        for number, (one, other) in enumerate(found[:per_kind]):
            context = _CONTEXTS[number % len(_CONTEXTS)] if number % 2 else ""
            pairs.append(Pair(kind, context + one, context + other))
    return pairs


_CONTEXTS = (
    "I am preparing a short talk for my colleagues next week and want to get the facts right before I print the slides. ",
    "Our support desk collects the questions of customers, and each of them gets one careful answer in plain words. ",
    "My daughter asked me this at breakfast and I did not know what to say, so please be brief but exact. ",
)

_PEOPLE = (
    "Marie Curie", "Albert Einstein", "Isaac Newton", "Ada Lovelace", "Alan Turing", "Jane Austen", "Charles Dickens",
    "Frida Kahlo", "Pablo Picasso", "Wolfgang Mozart", "Clara Schumann", "Nelson Mandela", "Rosa Parks", "Charles Darwin",
)
_COUNTRIES = (
    "France", "Germany", "Spain", "Portugal", "Italy", "Poland", "Norway", "Sweden", "Finland", "Denmark", "Japan", "China",
    "India", "Brazil", "Peru", "Chile", "Kenya", "Ghana", "Egypt", "Morocco", "Iran", "Iraq", "Austria", "Australia",
    "Niger", "Nigeria", "Slovakia", "Slovenia", "Mali", "Malawi",
)
_CITIES = ("Paris", "London", "Rome", "Berlin", "Madrid", "Vienna", "Oslo", "Tokyo", "Delhi", "Cairo", "Lima", "Boston")
_THINGS = (
    "printer", "router", "laptop", "monitor", "keyboard", "scanner", "phone", "tablet", "camera", "speaker", "fridge", "oven",
    "kettle", "toaster", "dishwasher", "bicycle", "car", "lamp",
)
_LANGUAGES = ("Python", "Java", "Rust", "Kotlin", "Ruby", "Perl", "Scala", "Haskell", "C", "C++", "JavaScript", "TypeScript")
_TONGUES = ("French", "German", "Spanish", "Italian", "Polish", "Dutch", "Swedish", "Greek", "Turkish", "Arabic")
_NAMES = ("Ann", "Bob", "Carla", "David", "Emma", "Felix", "Grace", "Hugo")
_FOODS = ("bread", "rice", "pasta", "beans", "honey", "garlic", "eggs", "onions", "grapes", "nuts", "cheese", "yogurt")
_ANIMALS = ("dogs", "cats", "horses", "rabbits", "hamsters", "parrots", "goats", "hens")


def _kinds() -> Iterator[tuple[str, Iterable[tuple[str, str]]]]:
    yield "negation", _negations()
    yield "double negation", _each(_DOUBLE, _verbs_of(_THINGS))
    yield "number", _swaps(_NUMBERED, ("2", "3", "7", "10", "12", "20", "25", "100", "250", "1,000", "1,500", "0.5", "1.5"))
    yield "number word", _swaps(_NUMBERED, ("two", "three", "seven", "nine", "ten", "twelve", "fifty", "hundred", "half"))
    yield "ordinal", _swaps(_ORDINALS, ("first", "second", "third", "fifth", "last", "next", "10th", "12th"))
    yield "sign", _cross(_SIGNED, (("5", "-5"), ("10", "-10"), ("3.5", "-3.5"), ("20", "-20"), ("1", "-1")))
    yield "unit", _swaps(_MEASURED, ("meters", "feet", "miles", "kilometers", "inches", "yards", "grams", "pounds", "ounces"))
    yield "unit's case", _cross(_SIZED, _CASES)
    yield "currency", _swaps(_PRICED, ("euros", "dollars", "pounds", "yen", "francs", "rupees", "pesos", "cents"))
    yield "rate", _swaps(_RATES, ("second", "minute", "hour", "day", "week", "month", "year"))
    yield "person", _swaps(_OF_PEOPLE, _PEOPLE)
    yield "place", _swaps(_OF_COUNTRIES, _COUNTRIES)
    yield "thing", _swaps(_OF_THINGS, _THINGS)
    yield "food or animal", _foods()
    yield "programming language", _swaps(_OF_CODE, _LANGUAGES)
    yield "version", _swaps(_VERSIONED, ("2", "3", "3.11", "3.12", "10", "11", "2019", "2022"))
    yield "role", _turned(_ROLES, _NAMES)
    yield "route", _turned(_ROUTES, _CITIES)
    yield "direction of translation", _turned(_TRANSLATED, _TONGUES)
    yield "order of operands", _turned(_OPERANDS, ("5", "8", "12", "40", "x", "y"))
    yield "order of steps", _turned(_STEPS, ("wash it", "cut it", "dry it", "weigh it", "salt it", "freeze it"))
    yield "comparison", _cross(_COMPARED, _COMPARISONS)
    yield "superlative", _cross(_SUPERLATIVE, _SUPERLATIVES)
    yield "before or after", _cross(_TIMED, (("before", "after"), ("before", "during"), ("after", "during"), ("until", "since")))
    yield "date", _swaps(_DATED, ("Monday", "Friday", "March 3", "March 4", "4 May", "5 May", "2019", "2020", "2019-05-01"))
    yield "time of day", _swaps(_AT, ("8:30", "9:30", "8 am", "8 pm", "noon", "midnight", "10:00", "22:00"))
    yield "relative day", _swaps(_DATED, ("yesterday", "today", "tomorrow", "this week", "last week", "next week"))
    yield "tense", _cross(_TENSED, (("is", "was"), ("does", "did"), ("will", "did"), ("has", "had"), ("is", "will be")))
    yield "modality", _swaps(_MODAL, ("can", "must", "should", "may", "need not", "will", "might"))
    yield "quantifier", _swaps(_QUANTIFIED, ("all", "most", "some", "few", "a few", "no", "many", "half", "both"))
    yield "at least, at most", _cross(_BOUNDED, (("at least", "at most"), ("more than", "less than"), ("exactly", "about")))
    yield "antonym", _antonyms()
    yield "adjective", _adjectives()
    yield "connective", _cross(_CONNECTED, (("and", "or"), ("and", "but not"), ("or", "and not"), ("with", "without")))
    yield "condition", _cross(_CONDITIONED, (("if", "unless"), ("if", "only if"), ("even if", "only if"), ("if", "because")))
    yield "only", _onlys()
    yield "preposition", _cross(_PREPOSED, _PREPOSITIONS)
    yield "question word", _swaps(_ASKED, ("who", "when", "where", "why", "how"))
    yield "whose", _swaps(_OWNED, ("my", "your", "his", "her", "our", "their"))
    yield "you or I", _each(_PERSONS, ("feel", "work", "think", "look", "sleep", "learn", "see", "decide", "remember", "change"))
    yield "is or does", _each(_LIKED, (*_NAMES, "your boss", "the mayor", "my aunt", "a shark"))
    yield "request or question", _each(_REQUESTED, [f"{one} {thing}" for one in ("this", "the red") for thing in _THINGS])
    yield "comma", _each(_COMMAS, _NAMES)
    yield "article", _articles()
    yield "word spoken of", _mentions()
    yield "name or common word", _cross(_HOMOGRAPHS, _HOMOGRAPH)
    yield "near spelling", _cross(_SPELT, _NEAR)
    yield "constraint added", _constraints()
    yield "purpose", _swaps(_PURPOSED, ("a child", "an expert", "a lawyer", "a nurse", "my boss", "a beginner"))
    yield "form asked for", _swaps(_FORMED, ("a list", "a table", "a poem", "one sentence", "an essay", "JSON", "a joke"))
    yield "quotation", _swaps(_QUOTED, ("dog", "Dog", "dogs", "a dog", "the dog", "god"))
    yield "code", _codes()
    yield "instruction", _swaps(_INSTRUCTED, ("Summarize", "Translate", "Shorten", "Expand", "Correct", "Criticize", "Rewrite"))


# Forms first, fillers second: each form has {} for what changes and ^ for what does not.
_NUMBERED = (
    "How many weeks are {} days?", "What is {} percent of 80?", "Name {} rivers in Africa.", "Write a poem of {} lines.",
    "Divide 900 by {}.", "How do I split a bill among {} people?", "Is {} a prime number?",
)
_ORDINALS = (
    "Who was the {} person to walk on the moon?", "What is the {} step of the recipe?", "Which is the {} month?",
    "Who won the {} race?", "Summarize the {} chapter.", "What is the {} letter of my name?",
)
_SIGNED = (
    "What is the absolute value of {}?", "Is {} degrees dangerous for tomatoes?", "What is {} plus 4?", "Plot y = x at {}.",
    "Is {} greater than zero?", "What does a balance of {} mean?",
)
_MEASURED = (
    "How long is 40 {}?", "Is 5 {} a lot for a parcel?", "Convert 12 {} to the metric system.", "What weighs about 3 {}?",
    "How much are 7 {} in all?", "Can I carry 90 {} by hand?", "Is a fence of 2 {} enough?", "How far do 300 {} get me?",
)
_SIZED = (
    "How much is 100 {} in practice?", "Is 250{} enough for this device?", "How long does 40 {} take?",
    "What does a rating of 5{} mean?", "Why does the label say 700 {}?", "Is 16 {} a lot?",
)
_CASES = (("mW", "MW"), ("Mb", "MB"), ("mA", "MA"), ("ms", "Ms"), ("mV", "MV"), ("Gb", "GB"), ("kb", "kB"), ("mHz", "MHz"),
          ("mN", "MN"), ("pF", "PF"), ("mJ", "MJ"), ("mPa", "MPa"))
_PRICED = (
    "How much is 40 {} worth today?", "Can I live on 900 {} a month?", "Is a fee of 15 {} high?", "Who prints {}?",
    "What did 10 {} buy in 1950?", "Round 99 {} up.", "Do they take {} in the shop?",
)
_RATES = (
    "How many litres per {} does a person drink?", "What do they earn per {}?", "How often per {} should I water it?",
    "How many steps per {} are healthy?", "Is one backup per {} enough?", "How many birds die per {}?",
)
_OF_PEOPLE = (
    "When was {} born?", "Where did {} live?", "What is {} famous for?", "How did {} die?", "Was {} ever married?",
    "Summarize the life of {}.",
)
_OF_COUNTRIES = (
    "What is the capital of {}?", "How many people live in {}?", "Which languages are spoken in {}?", "Is {} in Europe?",
    "When did {} become independent?", "What is the currency of {}?",
)
_OF_THINGS = (
    "How do I clean my {}?", "Why does my {} make a noise?", "How long does a {} last?", "Where can I recycle a {}?",
    "Which {} should I buy?", "How do I reset the {}?",
)
_OF_CODE = (
    "How do I sort a list in {}?", "Is {} good for beginners?", "Who designed {}?", "How do I read a file in {}?",
    "What are generics in {}?", "Does {} have exceptions?",
)
_VERSIONED = (
    "What is new in version {}?", "Is release {} still supported?", "How do I install Python {}?", "Is Windows {} slow?",
    "Which changes does edition {} have?",
)
_ROLES = (
    "Did {} pay {}?", "Is {} older than {}?", "Why did {} leave {}?", "Does {} report to {}?", "What did {} lend {}?",
    "Has {} met the mother of {}?", "How much does {} owe {}?",
)
_ROUTES = (
    "How long is the flight from {} to {}?", "Is {} west of {}?", "What do trains from {} to {} cost?",
    "Did people move from {} to {}?", "Is {} colder than {}?",
)
_TRANSLATED = (
    "Translate this letter from {} to {}.", "How hard is {} for speakers of {}?", "Which {} words come from {}?",
    "Is {} older than {}?",
)
_OPERANDS = (
    "What is {} minus {}?", "What is {} divided by {}?", "What is {} to the power of {}?", "Subtract {} from {}.",
    "Is {} less than {}?", "How often does {} fit into {}?",
)
_STEPS = (
    "Should I {} before I {}?", "Do I {} first and then {}?", "Why would one {} and after that {}?", "May I {} if I {} later?",
)
_COMPARED = (
    "Is it {} than the old one?", "Which model is {} than mine?", "Why is the new version {} than before?",
    "Can a bridge be {} than this?", "How do I make it {}?", "Do users want it {}?",
)
_COMPARISONS = (
    ("cheaper", "dearer"), ("faster", "slower"), ("larger", "smaller"), ("older", "newer"), ("lighter", "heavier"),
    ("taller", "shorter"), ("better", "worse"), ("warmer", "colder"), ("wider", "narrower"), ("safer", "riskier"),
    ("louder", "quieter"), ("earlier", "later"), ("thicker", "thinner"), ("harder", "softer"), ("brighter", "darker"),
)
_SUPERLATIVE = (
    "What is the {} planet?", "Which country has the {} river?", "Who is the {} person alive?", "Show me the {} file.",
    "Which is the {} city?", "What was the {} price?", "Name the {} animal.",
)
_SUPERLATIVES = (
    ("largest", "smallest"), ("longest", "shortest"), ("oldest", "youngest"), ("highest", "lowest"), ("fastest", "slowest"),
    ("hottest", "coldest"), ("nearest", "farthest"), ("richest", "poorest"), ("heaviest", "lightest"), ("best", "worst"),
    ("deepest", "shallowest"), ("most expensive", "least expensive"), ("most common", "least common"), ("first", "latest"),
)
_TIMED = (
    "What did people eat {} the war?", "Should I stretch {} a run?", "Who ruled {} the revolution?",
    "Is coffee fine {} the operation?", "What happens {} the merger?", "Can I drive {} the eye test?",
    "Which laws held {} 1990?", "Was the bank open {} the crash?",
)
_DATED = (
    "What happened on the market {}?", "Is the office open {}?", "Who was on duty {}?", "What is due {}?", "Did it rain {}?",
    "What is on the agenda {}?", "Which shops close {}?",
)
_AT = (
    "Is the pool open at {}?", "What runs at {}?", "Does the train leave at {}?", "Wake me at {}.", "Is it dark at {} in June?",
    "Why does the job start at {}?", "Who is there at {}?",
)
_TENSED = (
    "Who {} the head of the team", "What {} the plan", "Why {} the shop closed", "Where {} the museum", "When {} the meeting",
    "How {} the weather there", "Which road {} the best one",
)
_MODAL = (
    "What {} tenants pay for?", "When {} dogs eat grapes?", "Who {} sign the contract?", "{} I file the form on paper?",
    "Which users {} see the report?", "{} drivers stop here?", "Why {} children vote?",
)
_QUANTIFIED = (
    "Why do {} birds migrate?", "Is it true that {} planets have rings?", "Do {} of the tests fail?", "Can {} students apply?",
    "What if {} members vote against it?", "Are {} snakes dangerous?", "Did {} people believe it?",
)
_BOUNDED = (
    "Do I need {} two signatures?", "Is {} an hour of sleep fine?", "Which rooms seat {} ten people?",
    "May it cost {} 50 euros?", "Are {} three tests required?", "Who has {} five cats?",
)
_VERBS = (
    ("enable", "disable"), ("open", "close"), ("start", "stop"), ("lock", "unlock"), ("encrypt", "decrypt"),
    ("install", "uninstall"), ("connect", "disconnect"), ("accept", "reject"), ("increase", "decrease"), ("add", "remove"),
    ("buy", "sell"), ("lend", "borrow"), ("raise", "lower"), ("attach", "detach"), ("import", "export"), ("upload", "download"),
    ("mount", "unmount"), ("fill", "empty"), ("pack", "unpack"), ("push", "pull"), ("tighten", "loosen"), ("show", "hide"),
    ("expand", "collapse"), ("subscribe to", "unsubscribe from"), ("log in to", "log out of"), ("turn on", "turn off"),
    ("assemble", "disassemble"), ("load", "unload"), ("heat", "cool"), ("win", "lose"), ("save", "discard"), ("approve", "deny"),
)
_VERBED = (
    "How do I {} the account?", "Who may {} the file?", "What happens when I {} the service?", "Is it safe to {} it now?",
    "Why did they {} the module?", "Can I {} the device by voice?",
)
_ADJECTIVES = (
    ("hot", "cold"), ("wet", "dry"), ("full", "empty"), ("public", "private"), ("legal", "illegal"), ("active", "passive"),
    ("rich", "poor"), ("safe", "unsafe"), ("ripe", "unripe"), ("sharp", "blunt"), ("raw", "cooked"), ("deep", "shallow"),
    ("internal", "external"), ("digital", "analog"), ("known", "unknown"), ("native", "foreign"), ("sweet", "sour"),
    ("acid", "alkaline"), ("rural", "urban"), ("liquid", "solid"), ("male", "female"), ("left", "right"), ("upper", "lower"),
    ("positive", "negative"), ("direct", "indirect"), ("visible", "invisible"), ("ancient", "modern"), ("fresh", "stale"),
)
_ADJECTIVAL = (
    "What is a {} system?", "How do I handle {} samples?", "Is the {} kind better?", "Where are {} ones used?",
    "Why is it {} today?", "How do I tell if it is {}?",
)
_CONNECTED = (
    "Which plans include mail {} storage?", "Is tea {} coffee served?", "Show orders with tax {} shipping.",
    "Do I need a passport {} a visa?", "Can I take aspirin {} wine?", "List rooms with a bath {} a view.",
    "Is it sold in red {} blue?",
)
_CONDITIONED = (
    "Do I pay a fee {} I cancel?", "Is the door open {} the alarm rings?", "Will it restart {} the power fails?",
    "May I leave {} the boss is away?", "Does the warranty hold {} I open it?", "Can they refuse {} it rains?",
    "Is the deposit kept {} we move out?",
)
_ONLYS = ("paid", "saw", "called", "trusts", "likes", "helped", "knows", "invited")
_PREPOSED = (
    "What did she say {} him?", "Did he write a letter {} the queen?", "What is the answer {} the manager?",
    "Is this a gift {} my aunt?", "Who sat {} the judge?", "What are the duties {} the owner?", "Did they vote {} the law?",
    "Is the bus {} the station late?",
)
_PREPOSITIONS = (
    ("to", "of"), ("to", "from"), ("for", "against"), ("with", "without"), ("for", "from"), ("about", "to"), ("above", "below"),
    ("of", "for"), ("before", "behind"), ("with", "against"), ("inside", "outside"), ("near", "beyond"),
)
_ASKED = (
    "{} did they move the office?", "{} did the company buy the land?", "{} do we send the invoice?", "{} is the audit done?",
    "{} was the bridge built?", "{} should we report it?", "{} were the rules changed?", "{} does the firm recruit?",
)
_OWNED = (
    "Is {} account still open?", "What is in {} contract?", "Who can read {} messages?", "Where is {} order?",
    "Did {} payment arrive?", "How old is {} house?", "Why is {} car so loud?", "What does {} licence cover?",
)
_PERSONS = (
    ("How do you {}?", "How do I {}?"), ("How can you {} so fast?", "How can I {} so fast?"),
    ("Why do you {} like that?", "Why do they {} like that?"), ("When would you {}?", "When would I {}?"),
    ("How would you {} at night?", "How would we {} at night?"), ("What do you {} about?", "What do we {} about?"),
    ("Can you {} under stress?", "Can one {} under stress?"), ("How should you {} now?", "How should I {} now?"),
)
_LIKED = (("What is {} like?", "What does {} like?"), ("Who is {} like?", "Who does {} like?"))
_REQUESTED = (
    ("Would you recommend {}?", "Recommend {}."), ("Would you fix {}?", "Fix {}."), ("Would you rewrite {} name?", "Rewrite {} name."),
    ("Should you convert {}?", "Convert {}."), ("Do you compare {}?", "Compare {}."),
)
_COMMAS = (
    ("How do I call her, {}?", "How do I call her {}?"), ("Shall we eat, {}?", "Shall we eat {}?"), ("Can I help, {}?", "Can I help {}?"),
    ("Did they invite, {}?", "Did they invite {}?"), ("No, {} can stay.", "No {} can stay."),
)
_DOUBLE = (
    ("Is it wrong to {}?", "Is it not wrong to {}?"), ("Should nobody {}?", "Should everybody {}?"),
    ("I never {}, is that bad?", "I always {}, is that bad?"), ("Did they fail to {}?", "Did they manage to {}?"),
    ("Is it impossible to {}?", "Is it possible to {}?"), ("Who refused to {}?", "Who agreed to {}?"),
    ("What if I forget to {}?", "What if I remember to {}?"), ("Can I avoid having to {}?", "Am I going to have to {}?"),
)
_NEGATED = (
    ("Is it safe to ^?", "Is it not safe to ^?"), ("Why should I ^?", "Why shouldn't I ^?"), ("Who can ^?", "Who can't ^?"),
    ("Do I have to ^?", "Don't I have to ^?"), ("What happens if I ^?", "What happens if I don't ^?"),
    ("When may people ^?", "When may people not ^?"), ("How do I ^?", "How do I never ^?"),
    ("Which users are allowed to ^?", "Which users are not allowed to ^?"), ("Is there a way to ^?", "Is there no way to ^?"),
    ("I want to ^, why?", "I do not want to ^, why?"), ("Can anyone ^?", "Can no one ^?"), ("Is it hard to ^?", "Isn't it hard to ^?"),
)
_HABITS = (
    "eat raw eggs", "share my password", "drive at night", "travel alone", "store it in the cloud", "pay in cash",
    "sign the form twice", "work from home", "keep the receipt", "drink tap water", "sell the old car", "park on the street",
    "open the attachment", "use the back door", "swim after lunch", "freeze bread", "water it daily", "reuse the bottle",
    "publish the photos", "retire early", "cancel the order", "restart the server", "delete old logs", "mix both paints",
    "skip the update", "enter without a ticket",
)
_ARTICLED = (
    "time", "matter", "news", "weather", "law", "state", "language", "power", "life", "art", "history", "order", "change",
    "space", "music", "light", "work", "question", "answer", "future", "past", "price", "market", "church", "web", "cloud",
    "point", "music industry", "family", "school",
)
_MENTIONED = ("please", "thanks", "thank you", "really", "actually", "the", "a", "of", "to", "what", "which", "kindly", "sorry", "hello")
_MENTIONING = (
    "How do I spell {}?", "How do I say {}?", "How is {} pronounced?", "What does the word {} mean?", "What rhymes with {}?",
    "Give me a synonym of {}.", "How many letters are in {}?", "Is {} an adverb?", "Define {}.", "Translate {} for me.",
)
_HOMOGRAPHS = (
    "What is {} like?", "Tell me about {}.", "How big is {}?", "Where do I find {}?", "Is it {}?", "Who likes {}?",
)
_HOMOGRAPH = (
    ("Turkey", "turkey"), ("China", "china"), ("Polish", "polish"), ("Jobs", "jobs"), ("Bush", "bush"), ("Nice", "nice"),
    ("Bath", "bath"), ("Mercury", "mercury"), ("Apple", "apple"), ("Amazon", "amazon"), ("Python", "python"), ("Rust", "rust"),
    ("US", "us"), ("IT", "it"), ("WHO", "who"), ("Jordan", "jordan"), ("Chad", "chad"), ("Cork", "cork"), ("Orange", "orange"),
    ("Phoenix", "phoenix"), ("Buffalo", "buffalo"), ("Shell", "shell"), ("Target", "target"), ("Swift", "swift"),
    ("Oracle", "oracle"), ("Excel", "excel"), ("Word", "word"), ("Slack", "slack"), ("March", "march"), ("Rose", "rose"),
    ("Hope", "hope"), ("Iris", "iris"), ("Jaguar", "jaguar"), ("Delta", "delta"), ("Subway", "subway"), ("Spring", "spring"),
    ("AIDS", "aids"), ("RAM", "ram"), ("PIN", "pin"), ("SAD", "sad"), ("Cancer", "cancer"), ("Gates", "gates"),
)
_SPELT = (
    "What is a {}?", "How do I write about the {}?", "Why is the {} there?", "Show me a {}.", "Is the {} important?",
    "Who made the {}?",
)
_NEAR = (
    ("desert", "dessert"), ("principal", "principle"), ("affect", "effect"), ("stationary", "stationery"), ("angel", "angle"),
    ("dairy", "diary"), ("trial", "trail"), ("form", "from"), ("quiet", "quite"), ("statue", "statute"), ("moral", "morale"),
    ("accept", "except"), ("council", "counsel"), ("marital", "martial"), ("casual", "causal"), ("compliment", "complement"),
    ("capital", "capitol"), ("cavalry", "calvary"), ("censor", "sensor"), ("cite", "site"), ("lose", "loose"), ("whale", "whole"),
    ("prophet", "profit"), ("pray", "prey"), ("route", "root"), ("salon", "saloon"), ("satire", "satyr"), ("sever", "severe"),
)
_CONSTRAINTS = (
    " without sugar", " in winter", " for free", " at home", " by hand", " in Java", " offline", " for two people", " with a loan",
    " on Linux", " abroad", " after surgery", " under water", " quickly", " twice", " legally", " alone", " in an hour",
)
_CONSTRAINED = (
    "How do I bake a cake{}?", "Can I learn to program{}?", "What should I eat{}?", "How do I move house{}?",
    "How can we save energy{}?", "Is it fine to work{}?", "How do I train a dog{}?", "What can I build{}?",
    "How do I test it{}?", "How do people travel{}?", "Can it be repaired{}?", "Where do I practise{}?",
)
_PURPOSED = (
    "Explain inflation to {}.", "Write a letter to {}.", "What would I tell {} about vaccines?", "Draft an invitation for {}.",
    "Describe a neural network to {}.", "What is a good gift for {}?", "How do I apologise to {}?",
)
_FORMED = (
    "Describe the water cycle as {}.", "Give me the causes of the war as {}.", "Answer with {} about whales.",
    "Write {} about autumn.", "Turn my notes into {}.", "I need {} on tax law.",
)
_QUOTED = (
    'Translate "{}" to French.', "How many letters has '{}'?", 'Is "{}" a noun?', 'Use "{}" in a sentence.', 'What does "{}" mean?',
    "Replace the title by '{}'.",
)
_INSTRUCTED = (
    "{} the text about bees.", "{} my letter to the bank.", "{} the minutes of the meeting.", "{} the article on trade.",
    "{} this paragraph: the sea was calm.", "{} the speech of the mayor.", "{} chapter one.",
)


def _swaps(forms: Sequence[str], fillers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each form with every two of the fillers."""
    return _cross(forms, tuple(combinations(fillers, 2)))


def _cross(forms: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for form in forms:
        for one, other in pairs:
            yield _sentence(form.format(one)), _sentence(form.format(other))


def _turned(forms: Sequence[str], fillers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each form with two fillers, and with the same two the other way round."""
    for form in forms:
        for one, other in permutations(fillers, 2):
            yield form.format(one, other), form.format(other, one)


def _each(forms: Sequence[tuple[str, str]], fillers: Iterable[str]) -> Iterator[tuple[str, str]]:
    fillers = tuple(fillers)
    for one, other in forms:
        for filler in fillers:
            yield one.format(filler), other.format(filler)


def _sentence(text: str) -> str:
    """With a capital where a sentence begins, but for a word whose case is the question."""
    return text if text.startswith(("$", "€", "£")) else text[:1].upper() + text[1:]


def _verbs_of(things: Sequence[str]) -> list[str]:
    return [f"{verb} the {thing}" for thing in things for verb in ("clean", "return", "repair")]


def _negations() -> Iterator[tuple[str, str]]:
    for one, other in _NEGATED:
        for habit in _HABITS:
            yield one.replace("^", habit), other.replace("^", habit)


def _foods() -> Iterator[tuple[str, str]]:
    for one, other in combinations(_FOODS, 2):
        for form in ("Can dogs eat {}?", "How long do I cook {}?"):
            yield form.format(one), form.format(other)
    for one, other in combinations(_ANIMALS, 2):
        for food in _FOODS:
            yield f"Can {one} eat {food}?", f"Can {other} eat {food}?"


def _antonyms() -> Iterator[tuple[str, str]]:
    return _cross(_VERBED, _VERBS)


def _adjectives() -> Iterator[tuple[str, str]]:
    return _cross(_ADJECTIVAL, _ADJECTIVES)


def _onlys() -> Iterator[tuple[str, str]]:
    """`only` in three places says three things."""
    for who, whom in permutations(_NAMES[:4], 2):
        for verb in _ONLYS:
            forms = (f"Is it true that only {who} {verb} {whom}?", f"Is it true that {who} only {verb} {whom}?",
                     f"Is it true that {who} {verb} only {whom}?")
            yield from combinations(forms, 2)


def _articles() -> Iterator[tuple[str, str]]:
    for noun in _ARTICLED:
        for form in ("What is {}?", "Tell me about {}.", "Is {} good?", "Who studies {}?", "Why is {} important?"):
            yield form.format(noun), form.format(f"the {noun}")
        if noun not in ("news", "weather", "music", "music industry"):
            yield f"Is this a {noun}?", f"Is this the {noun}?"


def _mentions() -> Iterator[tuple[str, str]]:
    return _swaps(_MENTIONING, _MENTIONED)


def _constraints() -> Iterator[tuple[str, str]]:
    for form in _CONSTRAINED:
        for constraint in _CONSTRAINTS:
            yield form.format(""), form.format(constraint)
        for one, other in combinations(_CONSTRAINTS, 2):
            yield form.format(one), form.format(other)


def _codes() -> Iterator[tuple[str, str]]:
    for name, other in permutations(("total", "count", "rows", "items", "result"), 2):
        for operator, opposite in (("<", "<="), ("==", "!="), ("+", "-"), ("and", "or"), ("<", ">"), ("*", "**")):
            yield (f"What does `if {name} {operator} {other}: return 1` do?", f"What does `if {name} {opposite} {other}: return 1` do?")
        for one, two in (("0", "1"), ("True", "False"), ("[]", "{}")):
            yield f"Explain def f({name}={one}): return {other}", f"Explain def f({name}={two}): return {other}"
