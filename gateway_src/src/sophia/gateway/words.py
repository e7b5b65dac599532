# SPDX-License-Identifier: GPL-3.0-or-later
"""The words by which `judge` knows a task: English first, with the same few verbs in other languages.

``word:2`` weighs 2. A word may speak for several tasks, may make a task harder or easier, and may begin a phrase: one
look-up per word tells all.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["CONDITIONS", "FOREIGN", "KINDS", "MARKS", "NEAR", "REFERS", "WORDS", "Entry"]

KINDS = (
    "chat",
    "code",
    "reasoning",
    "maths",
    "writing",
    "extraction",
    "translation",
    "summarisation",
    "classification",
    "vision",
    "roleplay",
)

_TEXT = {
    "code": """
        code:2 coding:1.5 program:1.4 programm:1.4 programming:1.5 programme:0.6 function:1.1 functions:0.8 python:2
        javascript:2 typescript:2 java:1.8 rust:1.4 golang:2 kotlin:2 swift:0.8 scala:1.6 ruby:1.4 php:2 perl:1.6
        bash:1.8 powershell:2 sql:2 html:1.8 css:1.8 regex:2 regexp:2 api:1.1 endpoint:1 rest:0.3 graphql:2 json:0.5
        yaml:0.6 xml:0.5 dockerfile:2 docker:1.6 kubernetes:1.6 terraform:1.8 ansible:1.8 playbook:1 helm:0.8 git:1.4
        github:1.2 compile:1.4 compiler:1.4 debug:2 debugger:1.6 bug:1.4 bugs:1.3 exception:1 traceback:2
        stacktrace:2 segfault:2 refactor:2 refactoring:1.8 unittest:2 pytest:2 algorithm:1.5 algorithms:1.2
        recursion:1.5 recursive:1.2 array:1.4 arrays:1.2 linkedlist:1.5 hashmap:1.5 dictionary:0.5 tree:0.4
        binary:0.7 sort:0.5 sorted:0.4 loop:0.8 async:1.4 await:1 thread:0.8 mutex:1.6 deadlock:1.4 database:0.9
        query:0.7 schema:0.7 class:0.5 method:0.3 variable:0.6 pointer:1 implement:1.6 implementation:1
        parallelize:1.8 parallelise:1.8 script:1.1 scripts:1 shell:1 cli:1.2 library:0.5 framework:0.6 react:1.4
        vue:1.2 django:1.8 flask:1.6 fastapi:2 node:0.8 npm:1.8 numpy:1.6 pandas:1.5 webpage:1 website:0.8
        frontend:1.2 backend:1.2 cpp:2 leetcode:2 unit:0.2 lint:1.4 parser:1.2 parse:0.9 codebase:1.8 commit:0.6
        software:0.5 button:0.6 programmieren:1.8 funktion:1.2 skript:1.4 programmiere:1.8 quellcode:2
        fehlermeldung:1.4 fonction:1.2 código:2 codigo:2 función:1.2 funcion:1.2 programa:1.2 codice:2 funzione:1.2
        função:1.2 код:2 функцию:1.5 программу:1.5 скрипт:1.6
    """,
    "reasoning": """
        reason:0.6 reasoning:1.5 logic:1.4 logical:1.3 logically:1.3 puzzle:2 riddle:2 deduce:1.8 infer:1.3 infers:1
        conclude:1 conclusion:0.5 premise:1.4 premises:1.4 statement:0.6 statements:0.8 true:0.5 false:0.6
        uncertain:0.8 why:0.5 justify:1 evaluate:0.6 paradox:1.4 fallacy:0.6 hypothesis:0.7 imply:1 implies:1
        therefore:0.6 suppose:0.6 imagine:0.3 scenario:0.3 father:0.5 mother:0.4 brother:0.9 sister:0.9 sisters:0.9
        brothers:0.9 relationship:0.6 belongs:0.7 belong:0.9 direction:0.6 facing:0.8 shadow:0.6 overtaken:1.4
        overtake:1.2 overtook:1.4 race:0.4 knight:0.4 knave:1.5 tradeoffs:1 tradeoff:1 strategy:0.5 diagnose:0.8
        plan:0.3 physics:0.7 experiment:0.4 principles:0.3 strictly:0.3 liar:1.2 left:0.3 right:0.2 seated:1 sits:0.6
        north:0.5 south:0.5 logik:1.4 rätsel:2 raetsel:2 schlussfolgere:1.8 warum:0.5 begründe:1.2 énigme:2 enigme:2
        logique:1.3 pourquoi:0.5 acertijo:2 lógica:1.4 razona:1.5 indovinello:2 логика:1.5 загадка:2 почему:0.5
    """,
    "maths": """
        calculate:1.7 compute:1.2 solve:1.3 equation:1.8 equations:1.4 integral:1.8 derivative:1.8 differentiate:1.4
        integrate:0.5 algebra:1.8 geometry:1.6 calculus:1.8 trigonometry:1.8 probability:1.8 matrix:1.3 eigenvalue:2
        eigenvalues:2 theorem:1.6 proof:1.2 prove:1.2 sum:0.8 product:0.3 divide:0.8 divided:1.1 multiply:1.1
        multiplied:1.1 remainder:1.6 percent:0.8 percentage:0.8 fraction:1 integer:0.9 integers:1.3 prime:0.9
        factorial:1.4 inequality:1.3 polynomial:1.6 triangle:1.3 circle:0.8 radius:1 area:0.8 perimeter:1.2
        vertices:1 angle:0.8 arithmetic:1.5 average:0.6 mean:0.2 median:0.5 variance:1 dice:1.3 total:0.6 cost:0.3
        price:0.2 priced:0.7 interest:0.3 compound:0.4 logarithm:1.5 square:0.5 root:0.4 cube:0.5 mod:0.6 modulo:1.2
        math:1.8 maths:1.8 mathematics:1.5 mathematical:1 twice:0.7 half:0.5 sqrt:1.4 many:0.4 berechne:1.8
        rechne:1.6 gleichung:1.8 wahrscheinlichkeit:1.8 ableitung:1.6 summe:0.8 löse:1.3 loese:1.3 calcule:1.7
        calculer:1.7 équation:1.8 probabilité:1.8 résous:1.5 calcula:1.7 ecuación:1.8 ecuacion:1.8 resuelve:1.5
        probabilidad:1.8 calcola:1.7 equazione:1.8 вычисли:1.8 уравнение:1.8 реши:1.4 вероятность:1.6
    """,
    "writing": """
        write:0.7 compose:1.6 draft:1.7 rewrite:1.4 rephrase:1.4 proofread:1.6 essay:1.8 poem:2 poetry:1.6 haiku:2
        limerick:2 sonnet:2 story:1.5 stories:1.2 novel:0.9 fiction:1 fictional:1 blog:1.6 article:0.6 email:1.3
        letter:0.9 speech:1 headline:1.4 slogan:1.6 tagline:1.6 lyrics:1.8 song:0.9 screenplay:1.8 dialogue:1
        paragraph:0.9 paragraphs:0.7 edit:0.8 grammar:1.2 grammatical:1.2 grammatically:1.2 tone:0.7 style:0.4
        creative:1.1 captivating:1.2 engaging:1 persuasive:1.4 vivid:1 descriptive:1 imagery:1.2 metaphor:0.9
        simile:0.9 craft:1.2 outline:0.8 newsletter:1.4 press:0.4 resume:0.7 cover:0.4 caption:1.2 intro:0.7
        introduction:0.5 ad:0.6 advert:1 marketing:0.6 copywriting:1.6 cv:0.8 pitch:0.9 proposal:0.7 essays:1.6
        character:0.4 opening:0.5 intriguing:0.9 tweet:1.2 post:0.6 describe:0.4 schreibe:1 schreib:1 verfasse:1.8
        formuliere:1.4 gedicht:2 aufsatz:1.8 geschichte:0.9 brief:0.5 rédige:1.8 redige:1.8 écris:1.2 ecris:1.2
        poème:2 lettre:0.8 histoire:0.9 escribe:1.2 redacta:1.8 poema:2 cuento:1.5 carta:0.8 historia:0.8 scrivi:1.2
        poesia:2 racconto:1.5 lettera:0.8 escreva:1.2 напиши:0.8 стихотворение:2 рассказ:1.6 письмо:1 эссе:1.8
    """,
    "extraction": """
        extract:2.2 extraction:1.8 extracts:1.6 identify:1 entities:1.6 entity:1 fields:0.7 table:0.5 csv:1.2
        columns:0.7 json:1 yaml:0.6 xml:0.6 format:0.5 output:0.5 list:0.3 names:0.5 named:0.6 dates:0.6 invoice:1.3
        receipt:1.2 records:0.8 following:0.4 given:0.3 dictionary:0.5 key:0.3 keys:0.4 values:0.4 count:0.6
        appear:0.6 appearances:1 mentioned:1 retrieve:0.8 pull:0.4 phone:0.2 addresses:0.6 reviews:0.5 ratings:0.6
        data:0.4 highest:0.4 lowest:0.4 presented:0.5 extrahiere:2.2 entnimm:1.6 extrais:2.2 extraire:2 extrae:2.2
        extraer:2 estrai:2.2 extraia:2.2 извлеки:2.2
    """,
    "translation": """
        translate:2.8 translation:2.2 translated:1.6 translating:2 translator:1.8 english:0.5 french:0.7 german:0.7
        spanish:0.7 italian:0.5 chinese:0.6 japanese:0.6 korean:0.6 russian:0.6 portuguese:0.7 arabic:0.7 dutch:0.6
        polish:0.4 turkish:0.6 hindi:0.7 latin:0.5 localize:1.2 localise:1.2 übersetze:2.8 uebersetze:2.8
        übersetzung:2.2 übersetzen:2.8 traduis:2.8 traduire:2.8 traduction:2.2 traduce:2.8 traducir:2.8
        traducción:2.2 traduci:2.8 traduzione:2.2 traduza:2.8 traduzir:2.8 vertaal:2.8 переведи:2.8 перевод:2.2
    """,
    "summarisation": """
        summarize:2.6 summarise:2.6 summary:2.2 summaries:1.8 summarizing:2.2 summarising:2.2 tldr:2.8 condense:1.8
        shorten:1.3 gist:1.8 abstract:0.8 recap:1.8 synopsis:2 digest:1 bullets:0.5 takeaways:1.8 minutes:0.3
        transcript:0.7 zusammenfassung:2.4 zusammenfassen:2.6 fasse:1.8 zusammen:0.8 résume:2.4 résumé:1.2
        résumer:2.6 resume:0.6 resumir:2.6 resumen:2.4 riassumi:2.6 riassunto:2.4 resuma:2.4 resumo:2.2
        samenvatten:2.6 резюмируй:2.4 кратко:1.2
    """,
    "classification": """
        classify:2.6 classification:1.8 categorize:2.4 categorise:2.4 category:1.1 categories:1.6 label:1.4
        labels:1.2 sentiment:2.2 spam:1.4 positive:0.8 negative:0.8 neutral:0.9 assign:1.1 tag:0.8 tags:0.7 topic:0.6
        intent:1.2 scale:0.7 rate:0.4 rating:0.8 toxic:1 moderation:1.2 priority:0.5 triage:1.6 ticket:0.6
        klassifiziere:2.6 kategorisiere:2.4 stimmung:1 classe:0.8 classifie:2.6 clasifica:2.6 classifica:2.4
        классифицируй:2.6
    """,
    "vision": """
        image:0.6 picture:0.6 photo:0.6 screenshot:0.8 diagram:0.3
    """,
    "roleplay": """
        roleplay:3 pretend:2.2 persona:1.6 impersonate:2.2 embody:1.8 acting:0.8 embrace:0.7 role:0.9 assume:0.6
        character:0.6 interviewer:1 roles:0.5 tutor:0.7 yourself:1.1 spiel:0.8 rolle:1.2 rollenspiel:3 joue:0.8
        rôle:1.2 actúa:2 actua:2 finge:2 fingi:2 представь:1 притворись:2.2
    """,
}

_PHRASES = {
    "roleplay": """
        act as:3.2 acting as:2.4 behave as:3 respond as:2.4 answer as:2 speak as:2.4 talk like:2.4 speak like:2.4
        act like:2.6 take on the role:3.2 take on the persona:3.2 play the role:3.2 play the part:3
        assume the role:3.4 embody the persona:3 as if you were:2 as if you are:2.4 as though you:2
        imagine you are:1.8 imagine yourself:2 imagine that you:1.6 picture yourself:3 put yourself:1.8 you are a:1.2
        you are an:1.2 you are now:2.4 now you are:2.2 you are the:1 be my:1.6 stay in character:3 in character:1.4
        embrace the role:3.2 du bist ein:2 tu es un:2 eres un:2 from now on you:2.6
    """,
    "summarisation": """
        tl dr:2.8 in one sentence:1.8 in two sentences:1.8 in three sentences:1.8 main points:2.2 key points:2.2
        main point:1.6 key takeaways:2.4 boil this down:2.4 boil it down:2.4 three bullets:1.4 bullet points:0.8
        too long:1.2 fasse zusammen:2
    """,
    "extraction": """
        in json format:2.4 as json:2 as csv:1.8 as yaml:1.8 json format:1.4 yaml format:1.4 named entities:2.4
        named entity:2.2 json dictionary:1.6 as a json:2 one book per line:1 separate line:1.2 per line:1
        in the format:1.4 following information:1.4 pull out:1.6 list of names:1.4 json string:1.4 csv string:1.4
        on a scale:0.8 given the following:0.7 following data:1 following records:1.2
    """,
    "classification": """
        which category:2.4 which class:1.6 which label:2 positive or negative:2.4 positive negative:1.8
        negative positive:1.8 spam or:2.2 one of the following categories:2.4 one of these categories:2.4
        following categories:2 these categories:1.6
    """,
    "translation": """
        how do you say:2.6 wie sagt man:2.6 comment dit on:2.6 cómo se dice:2.6
    """,
    "code": """
        unit tests:2.2 unit test:2.2 pull request:2 time complexity:2 space complexity:2 binary tree:2
        search tree:1.6 linked list:2 stack trace:2 data structure:1.4 data structures:1.4 write a function:2.2
        a function to:1.6 command line:1.4 code review:2.2 merge conflict:2.2 null pointer:2 off by one:1.6
        web app:1.2 sorted arrays:1.4 sorted lists:1.4
    """,
    "maths": """
        how many:1.3 how much:1.2 the probability:1.6 the area:1.4 the remainder:1.6 the value of:1.4 solve for:2
        square root:1.6 standard deviation:2 total cost:1.4 per cent:0.8 the sum of:1.4 find x:1.6
        greatest common:1.8 least common:1.8
    """,
    "reasoning": """
        step by step:1 brain teaser:2.4 true false or uncertain:2.4 which one:0.7 which word:1.6 which of the:0.9
        not belong:1.8 all of the:0.3 the oldest:1.2 the tallest:1.2 the youngest:1.2 pros and cons:1.6
        what will happen:1.6 what would happen:1.6 can we conclude:2.2 must be true:2 does it follow:2
        the reasons:0.9 could be the:0.7 passage carefully:1.4 answer the questions:1 explain your reasoning:2
        your answer:0.3 who is the:0.6 where is the:0.7 which situation:1.2 root cause:1.8 trade offs:1.4
        trade off:1.4 each of them:0.8 your current position:1.4
    """,
    "writing": """
        blog post:2.2 linkedin post:2.2 instagram post:2.2 cover letter:2.4 short story:2.2 press release:2.4
        product description:2.4 grammatical errors:2.2 grammar errors:2.2 thank you note:2.2 opening line:1.6
        opening paragraph:1.8 write an email:2.4 write me a:0.6 wedding speech:2.2 lesson plan:1.6 correct any:0.8
        video script:1.6 creative language:1.6 character description:1.6
    """,
}

_LANGUAGES = """
    french german spanish italian japanese chinese english korean russian portuguese arabic dutch polish turkish
    hindi latin mandarin deutsch englische englisch französische anglais français allemand inglés español inglese
    italiano português deutsche spanische
"""

MARKS = (
    ("code", "```", 2.2, "code fence"),
    ("code", "c++", 2.0, "c++"),
    ("code", "c#", 1.8, "c#"),
    ("code", "\ndef ", 2.0, "code in the text"),
    ("code", "\nclass ", 1.4, "code in the text"),
    ("code", "\nimport ", 1.8, "code in the text"),
    ("code", "#include", 2.2, "code in the text"),
    ("code", "</", 1.2, "markup in the text"),
    ("code", ");\n", 1.6, "code in the text"),
    ("code", "() {", 1.6, "code in the text"),
    ("code", "){", 1.2, "code in the text"),
    ("code", "=> {", 1.6, "code in the text"),
    ("code", "traceback (most", 2.6, "stack trace"),
    ("code", "select * from", 2.2, "SQL in the text"),
    ("code", ".py", 1.6, "source file"),
    ("code", ".js", 1.4, "source file"),
    ("code", ".yml", 1.2, "source file"),
    ("code", "o(1)", 1.6, "complexity"),
    ("code", "o(n", 1.6, "complexity"),
    ("code", "==", 0.8, "operator"),
    ("maths", "^2", 1.2, "power"),
    ("maths", "^3", 1.2, "power"),
    ("maths", "f(x)", 1.6, "function of x"),
    ("maths", "\\frac", 2.0, "formula"),
    ("maths", "\\int", 2.0, "formula"),
    ("maths", "\\sum", 1.6, "formula"),
    ("maths", "dx", 0.4, "differential"),
)
"""Substrings of the lower-case text, looked for as they are: a regular expression over them costs ten times as much."""

FOREIGN = (
    *(("translation", term, 2.8) for term in ("翻译", "翻譯", "翻訳", "번역")),
    *(("summarisation", term, 2.6) for term in ("总结", "總結", "概括", "摘要", "要約", "요약")),
    *(("code", term, 2.4) for term in ("代码", "代碼", "函数", "编程", "脚本", "コード", "関数", "코드")),
    *(("maths", term, 2.4) for term in ("计算", "計算", "方程", "概率", "求解", "証明", "確率", "계산", "방정식")),
    *(("extraction", term, 2.4) for term in ("提取", "抽取", "抽出", "추출")),
    *(("classification", term, 2.4) for term in ("分类", "分類", "感情分析", "분류")),
    *(("roleplay", term, 2.6) for term in ("扮演", "假装", "なりきって", "역할")),
    *(("reasoning", term, 1.8) for term in ("推理", "逻辑", "邏輯", "論理", "谜语", "논리")),
    *(("writing", term, 2.0) for term in ("写一", "作文", "写信", "小说", "物語", "書いて", "써줘")),
    *(("maths", term, 1.2) for term in ("≤", "≥", "√", "∫", "∑", "π")),
)
"""Terms of languages that are written without spaces, and signs outside ASCII: looked for only where there are any."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


REFERS = _set("""
    it that this these those previous earlier above again same instead now also them your response answer reply
    continue das dies es nochmal vorherige cela précédent eso anterior first second third last what
""")

CONDITIONS = _set("""
    must only exactly without ensure constraint each every except cannot never always strictly muss nicht sans
    doit sin debe нельзя только
""")

_HARD = """
    prove:0.2 proof:0.18 rigorous:0.15 rigorously:0.15 optimal:0.12 optimize:0.12 optimise:0.12 efficient:0.08
    complexity:0.14 concurrent:0.18 concurrency:0.2 distributed:0.2 consensus:0.15 asynchronous:0.1 deadlock:0.18
    race:0.06 scalable:0.15 architecture:0.16 design:0.1 architect:0.14 tradeoffs:0.15 tradeoff:0.15 refactor:0.1
    migrate:0.1 migration:0.1 theorem:0.15 integral:0.1 derivative:0.08 eigenvalue:0.15 eigenvalues:0.15 quantum:0.1
    differential:0.14 stochastic:0.15 thoroughly:0.1 comprehensive:0.1 detailed:0.06 analyse:0.08 analyze:0.08
    compare:0.06 contrast:0.05 critique:0.08 evaluate:0.06 justify:0.08 derive:0.12 formal:0.08 formally:0.12
    induction:0.15 recursive:0.06 parallelize:0.12 parallelise:0.12 security:0.08 vulnerability:0.1
    cryptographic:0.16 legal:0.08 regulatory:0.1 strategy:0.06 novel:0.04 complex:0.1 multiple:0.04 algorithm:0.08
    dynamic:0.05 simulation:0.08 lockfree:0.2 compiler:0.15 nuanced:0.1 contradictory:0.1 earthquakes:0.05
    budget:0.03 seismically:0.06 optimization:0.12 simple:-0.12 simply:-0.1 quick:-0.1 quickly:-0.08 basic:-0.1
    easy:-0.12 short:-0.06 brief:-0.06 briefly:-0.08 hello:-0.12 hi:-0.12 hey:-0.12 thanks:-0.12 thank:-0.1
    trivial:-0.12 eli5:-0.08 beginner:-0.06 oneliner:-0.08 einfach:-0.1 kurz:-0.08 simplement:-0.1 rapide:-0.08
    sencillo:-0.1 beweise:0.2 démontre:0.2 demuestra:0.2 докажи:0.2
"""


class Entry(NamedTuple):
    """What a word says: for which tasks (index, weight), how hard, whether it sets a condition, and the phrases that it
    begins, by their second word: (the rest, task, weight, the phrase)."""

    word: str
    weights: tuple[tuple[int, float], ...]
    hard: float
    condition: bool
    phrases: dict[str, tuple[tuple[tuple[str, ...], int, float, str], ...]]


_ITEM = re.compile(r"\s*([^:]+):(-?[\d.]+)")


def _weighted(text: str) -> list[tuple[str, float]]:
    """Read ``some words:1.5 more:2``: everything up to a weight is one item."""
    return [(words, float(weight)) for words, weight in _ITEM.findall(text)]


def _phrases() -> dict[str, dict[str, tuple[tuple[tuple[str, ...], int, float, str], ...]]]:
    found: dict[str, dict[str, tuple[tuple[tuple[str, ...], int, float, str], ...]]] = {}
    pairs = [(kind, *pair) for kind, text in _PHRASES.items() for pair in _weighted(text)]
    pairs += [
        ("translation", f"{first} {language}", 1.6)
        for language in _LANGUAGES.split()
        for first in ("in", "into", "to", "auf", "ins", "en", "al", "au")
    ]
    for kind, phrase, weight in pairs:
        first, second, *rest = phrase.split()
        begun = found.setdefault(first, {})
        begun[second] = (*begun.get(second, ()), (tuple(rest), KINDS.index(kind), weight, phrase))
    return found


def _lexicon() -> tuple[dict[str, Entry], dict[str, Entry]]:
    weights: dict[str, dict[int, float]] = {}
    for kind, text in _TEXT.items():
        for word, weight in _weighted(text):
            weights.setdefault(word, {})[KINDS.index(kind)] = weight
    hard = dict(_weighted(_HARD))
    phrases = _phrases()
    whole = {
        word: Entry(
            word, tuple(weights.get(word, {}).items()), hard.get(word, 0.0), word in CONDITIONS, phrases.get(word, {})
        )
        for word in {*weights, *hard, *phrases, *CONDITIONS}
    }
    near = {word: entry for word, entry in whole.items() if len(word) >= 6 and weights.get(word)}
    for word, entry in list(near.items()):
        for at in range(1, len(word) - 1):
            near.setdefault(word[:at] + word[at + 1 :], entry)
    return whole, near


WORDS, NEAR = _lexicon()
"""`WORDS`: by the word as written. `NEAR`: by words of six letters and more, and by those with one letter left out."""
