# SPDX-License-Identifier: GPL-3.0-or-later
"""Look-alikes that the guards were not completed on: other forms, other words, written after the guards were finished.

At the first run 10 of the 677 pairs passed, none of them by a plain swap: three by a name that is a common word too ("Gary"), three by
synonyms that are none in another sense ("fix the price"), two by "how high", two by a comma. The guards were then tightened where that
could be done (synonyms dropped, names without their capital only in texts without any), so this set is not held out any more; `FIRST` keeps
what it said when it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from .pairs import Pair

__all__ = ["FIRST", "heldout"]

FIRST = 10
"""False hits at the first run."""

# Each form with the fillers of one slot: every two of them ask for different things.
_SLOTS = (
    ("support", "My invoice from {} shows the wrong address, can you correct it?", ("April", "May", "June", "last month", "this month")),
    ("support", "I was charged {} for one order, what should I do?", ("twice", "three times", "nothing", "too much", "too little")),
    ("support", "How long do refunds to a {} take?", ("credit card", "debit card", "bank account", "gift card", "PayPal account")),
    ("support", "Can I change the {} after the order has shipped?", ("address", "size", "payment method", "name", "quantity")),
    ("support", "The app {} when I rotate my phone.", ("crashes", "freezes", "restarts", "logs me out", "zooms in")),
    ("support", "Do you deliver to {} on Sundays?", ("Malta", "Cyprus", "Corsica", "Sicily", "the Azores", "Iceland")),
    ("medicine", "What is the usual dose of {} for an adult?", ("ibuprofen", "paracetamol", "aspirin", "naproxen", "cetirizine")),
    ("medicine", "Can {} cause a rash?", ("penicillin", "stress", "nickel", "latex", "heat", "chlorine")),
    ("medicine", "Is a temperature of {} in a baby an emergency?", ("37.5", "38", "38.5", "39", "40")),
    ("medicine", "How is {} hepatitis passed on?", ("type A", "type B", "type C", "chronic", "acute")),
    ("medicine", "Should I take this tablet {} food?", ("with", "without", "before", "after", "instead of")),
    ("medicine", "Which vaccines does a {} need?", ("newborn", "toddler", "teenager", "pregnant woman", "nurse", "traveller")),
    ("law", "Can a landlord raise the rent {} a year?", ("once", "twice", "in the middle of", "at the end of", "more than once")),
    ("law", "How do I {} a will?", ("write", "contest", "revoke", "amend", "register", "find")),
    ("law", "Is it legal to {} a phone call in Sweden?", ("record", "intercept", "transcribe", "block", "trace")),
    ("law", "What is the penalty for {} tax late?", ("paying", "filing", "declaring", "refunding", "reporting")),
    ("law", "Who inherits if the {} dies first?", ("husband", "wife", "eldest son", "youngest daughter", "mother", "partner")),
    ("finance", "Should I {} my mortgage when rates fall?", ("refinance", "repay", "keep", "extend", "fix")),
    ("finance", "What is the difference between a bond and a {}?", ("share", "loan", "fund", "note", "option", "deposit")),
    ("finance", "How much tax is due on a capital {} of 10,000?", ("gain", "loss", "injection", "reserve", "transfer")),
    ("finance", "What was inflation in {} in 1980?", ("Turkey", "Israel", "Brazil", "Britain", "Japan", "Argentina")),
    ("finance", "Is a {} interest rate good for savers?", ("high", "low", "negative", "fixed", "variable", "rising")),
    ("code", "Why is my {} query slow?", ("SQL", "GraphQL", "Mongo", "regex", "DNS", "LDAP")),
    ("code", "How do I {} a Docker container?", ("start", "stop", "pause", "rename", "inspect", "rebuild")),
    ("code", "What does exit code {} mean?", ("1", "2", "126", "127", "137", "139", "143")),
    ("code", "Which port does {} use by default?", ("Redis", "Postgres", "MySQL", "SSH", "Kafka", "Elasticsearch")),
    ("code", "How do I sort a dictionary by {} in ascending order?", ("key", "value", "length", "date", "insertion")),
    ("code", "Is a {} faster than a list for look-ups?", ("set", "tuple", "deque", "heap", "trie", "generator")),
    ("code", "How do I merge {} into main?", ("my branch", "the release branch", "one commit", "a pull request", "a fork")),
    ("travel", "Do I need a visa for a stay of {} in Vietnam?", ("14 days", "15 days", "two months", "90 days", "a year")),
    ("travel", "Which terminal does {} leave from?", ("flight 12", "flight 21", "Lufthansa", "KLM", "the night bus")),
    ("travel", "Is it cheaper to fly to Lima in {}?", ("January", "August", "spring", "autumn", "the rainy season")),
    ("travel", "How early must I be at the {} for a domestic flight?", ("airport", "gate", "counter", "security check", "lounge")),
    ("cooking", "Can I replace {} by margarine?", ("butter", "lard", "oil", "ghee", "cream")),
    ("cooking", "How long does {} keep in the freezer?", ("minced beef", "cooked rice", "raw fish", "bread dough", "soup")),
    ("cooking", "At how many degrees do I bake a {}?", ("cheesecake", "meringue", "baguette", "quiche", "turkey", "souffle")),
    ("cooking", "What can I use instead of {} in a curry?", ("coconut milk", "coriander", "ginger", "turmeric", "chili")),
    ("school", "Who {} the Treaty of Tordesillas?", ("signed", "drafted", "broke", "mediated", "opposed", "ignored")),
    ("school", "What is the {} of a triangle with sides 3, 4 and 5?", ("area", "perimeter", "largest angle", "height", "inradius")),
    ("school", "Which {} are found in saliva?", ("enzymes", "hormones", "bacteria", "proteins", "minerals")),
    ("school", "When did the {} Empire fall?", ("Roman", "Ottoman", "Mughal", "Aztec", "Inca", "Russian", "Byzantine")),
    ("school", "How many {} does an octopus have?", ("arms", "hearts", "eyes", "brains", "suckers", "bones")),
    ("work", "How do I tell my manager that I {} the offer?", ("accept", "refuse", "regret", "misread", "expected")),
    ("work", "Am I paid for {} days of leave?", ("sick", "unused", "unpaid", "parental", "public", "bereavement")),
    ("work", "Write a polite reply that {} the meeting.", ("confirms", "cancels", "moves", "declines", "shortens")),
    ("work", "Who approves expenses {} 500 euros?", ("over", "under", "of exactly", "of about", "up to")),
    ("home", "Why does the boiler {} at night?", ("leak", "hum", "rattle", "switch off", "overheat", "whistle")),
    ("home", "How often should I water a {}?", ("cactus", "fern", "basil plant", "bonsai", "fig tree", "lawn")),
    ("home", "Which paint is best for a {} wall?", ("damp", "dark", "north-facing", "brick", "plaster", "concrete")),
    ("home", "Can {} climb a wet window?", ("geckos", "ants", "spiders", "snails", "mice", "slugs")),
)
# Whole pairs, each of its own making.
_PAIRS = (
    ("scope", "Did anyone not reply to all of the messages?", "Did anyone reply to none of the messages?"),
    ("scope", "Not all employees may park here, who may?", "All employees may not park here, who may?"),
    ("scope", "Is everything that glitters not gold?", "Is not everything that glitters gold?"),
    ("scope", "Which of the two brothers is the elder?", "Which two of the brothers are the elder?"),
    ("scope", "I almost paid all of the bills, what is left?", "I paid almost all of the bills, what is left?"),
    ("scope", "Do even experts fail the test?", "Do experts even fail the test?"),
    ("role", "Who did the dog that bit Max belong to?", "Who did Max that the dog bit belong to?"),
    ("role", "Is the tenant liable to the owner for damage?", "Is the owner liable to the tenant for damage?"),
    ("role", "Can my bank sue me for this?", "Can I sue my bank for this?"),
    ("role", "What do wolves fear from bears?", "What do bears fear from wolves?"),
    ("role", "Does sugar dissolve in tea faster than in milk?", "Does sugar dissolve in milk faster than in tea?"),
    ("role", "Should the nurse call the doctor first?", "Should the doctor call the nurse first?"),
    ("role", "Why does A imply B?", "Why does B imply A?"),
    ("time", "What do I do until the ambulance arrives?", "What do I do once the ambulance arrives?"),
    ("time", "Has the shop been open since noon?", "Has the shop been open until noon?"),
    ("time", "Did she quit before she was promoted?", "Was she promoted before she quit?"),
    ("time", "Is the deadline this Friday?", "Is the deadline next Friday?"),
    ("time", "What happened ten years ago?", "What happens in ten years?"),
    ("modal", "Must I not tell my insurer?", "Need I not tell my insurer?"),
    ("modal", "Could the bridge have held?", "Should the bridge have held?"),
    ("count", "Is one of the keys enough?", "Is each of the keys enough?"),
    ("count", "Do a couple of drinks matter?", "Do a few drinks matter?"),
    ("count", "Is every second train cancelled?", "Is every train cancelled?"),
    ("count", "How much is three and a half percent of 200?", "How much is three and a quarter percent of 200?"),
    ("count", "Is pi larger than 3.14?", "Is pi larger than 3.15?"),
    ("count", "Name a country with more than one capital.", "Name a country with one capital."),
    ("place", "Which town lies east of the lake?", "Which town lies at the east of the lake?"),
    ("place", "Is there a bus to the airport?", "Is there a bus from the airport?"),
    ("place", "Can I park in front of the house?", "Can I park behind the house?"),
    ("place", "Who lives above the bakery?", "Who lives over from the bakery?"),
    ("name", "What is Jordan's population?", "What is Georgia's population?"),
    ("name", "Who is Michael Jordan?", "Who is Michael B. Jordan?"),
    ("name", "When was Henry VII crowned?", "When was Henry VIII crowned?"),
    ("name", "What is Java famous for?", "What is java famous for?"),
    ("name", "When does the Mint open?", "When does the mint open?"),
    ("name", "Is Lost Lake deep?", "Is lost lake deep?"),
    ("name", "Where is Gary?", "Where is gary?"),
    ("name", "What does Bill cost?", "What does bill cost?"),
    ("name", "What is Windows made of?", "What are windows made of?"),
    ("name", "How do I feed Fish?", "How do I feed fish?"),
    ("name", "Is Ford crossing the river?", "Is ford crossing the river?"),
    ("meaning", "How do you open up?", "How do you open it up?"),
    ("meaning", "How do I look up the tower?", "How do I look at the tower?"),
    ("meaning", "What is a good time?", "What is the good time?"),
    ("meaning", "Is he out of order?", "Is it out of order?"),
    ("meaning", "How do I clean up my act?", "How do I clean my act up?"),
    ("meaning", "What are people like in Oslo?", "What do people like in Oslo?"),
    ("meaning", "Who is it that the committee wants?", "What is it that the committee wants?"),
    ("meaning", "How can one fix the price?", "How can one repair the price?"),
    ("meaning", "What is the best large number?", "What is the best big number?"),
    ("meaning", "How old is the film?", "How old is the movie?"),
    ("meaning", "How do I start a film on a pond?", "How do I start a movie on a pond?"),
    ("meaning", "What photo finish decided it?", "What photograph finish decided it?"),
    ("meaning", "Where is the car of the train?", "Where is the automobile of the train?"),
    ("meaning", "What is the height of fashion?", "How tall is fashion?"),
    ("meaning", "How high is the risk?", "What is the height of the risk?"),
    ("punctuation", "Stop, clubbing seals?", "Stop clubbing seals?"),
    ("punctuation", "Is the boss a woman, without her man nothing?", "Is the boss a woman without her, man nothing?"),
    ("punctuation", "What is this thing called love?", "What is this thing called, love?"),
    ("punctuation", "Is it its own fault?", "Is it it's own fault?"),
)
# These ask the same after all, or differ by a slip of the pen.
_ALIKE = frozenset({
    "How old is the film?", "How do I clean up my act?", "What photo finish decided it?", "What is the best large number?",
    "Is it its own fault?",
})


def heldout() -> list[Pair]:
    """Every pair differs in what its answer must be."""
    return [*_slots(), *(Pair(*pair) for pair in _PAIRS if pair[1] not in _ALIKE)]


def _slots() -> Iterator[Pair]:
    for kind, form, fillers in _SLOTS:
        for one, other in combinations(fillers, 2):
            yield Pair(kind, form.format(one), form.format(other))
