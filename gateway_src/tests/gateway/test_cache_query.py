# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether and under which key a request is cacheable."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.errors import BadRequest
from sophia.gateway.fingerprint import CacheControls, CacheQuery, Scope, fingerprint, owner
from sophia.stores.model import Principal, Role

Json = dict[str, Any]

ON = CacheControls(mode="on")


def principal(
    organization: str = "org_a", user: str | None = "user_a", team: str | None = "team_a", **more: Any
) -> Principal:
    values: Json = {
        "key": "key_a",
        "role": Role.MEMBER,
        "scopes": frozenset(),
        "models": None,
        "accounts": (),
        "limits": (),
    }
    return Principal(organization=organization, team=team, user=user, **(values | more))


def ask(
    body: Json | bytes,
    controls: CacheControls = ON,
    who: Principal | None = None,
    *,
    api: str = "chat",
    model: str = "auto",
    scope: Scope = "user",
    version: bytes = b"1",
) -> CacheQuery | None:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return fingerprint(who or principal(), api, model, fields, controls, scope=scope, ttl=3600, version=version)


def asked(body: Json | bytes, *arguments: Any, **options: Any) -> CacheQuery:
    query = ask(body, *arguments, **options)
    assert query is not None
    return query


def user(content: Any, **more: Any) -> Json:
    return {"role": "user", "content": content, **more}


def body(*turns: Json, **more: Any) -> Json:
    return {"model": "auto", "messages": list(turns or [user("What is the capital of France?")]), **more}


IMAGE = user([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}])
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]}


@pytest.mark.parametrize(
    ("request_body", "default", "on"),
    [
        (body(), "off", "semantic"),
        (body(temperature=None), "off", "semantic"),
        (body(temperature=0.7), "off", "semantic"),
        (body(temperature=0), "semantic", "semantic"),
        (body(temperature=0.0, stream=True), "semantic", "semantic"),
        (body(temperature=0, tools=TOOLS), "off", "exact"),
        (body(temperature=0, tools=[]), "semantic", "semantic"),
        (body(temperature=0, plugins=[{"id": "web"}]), "off", "exact"),
        (
            body(user("Who?"), CALLED, {"role": "tool", "content": "x", "tool_call_id": "c"}, temperature=0),
            "off",
            "exact",
        ),
        (body(IMAGE, temperature=0), "off", "exact"),
        (body(IMAGE, {"role": "assistant", "content": "A cat."}, user("And now?"), temperature=0), "off", "exact"),
        (body(user("Who?"), {"role": "assistant", "content": "It is"}, temperature=0), "exact", "exact"),
        (body(temperature=0, n=1), "semantic", "semantic"),
        (body(temperature=0, n=2), "off", "off"),
        (body(temperature=0, logprobs=True), "off", "off"),
        (body(temperature=0, logprobs=False), "semantic", "semantic"),
        (body(temperature=0, modalities=["text"]), "semantic", "semantic"),
        (body(temperature=0, modalities=["text", "audio"]), "off", "off"),
        (body(temperature=0, audio={"voice": "x"}), "off", "off"),
        (body(user("")), "off", "exact"),
        (body(user("word " * 3000), temperature=0), "exact", "exact"),
        (body(user("word " * 60_000), temperature=0), "off", "off"),
        ({"messages": [], "temperature": 0}, "exact", "exact"),
        ({"temperature": 0}, "off", "off"),
        ({"messages": "text", "temperature": 0}, "semantic", "semantic"),
        ({"messages": 7, "temperature": 0}, "off", "off"),
        ({"messages": [7], "temperature": 0}, "off", "off"),
        ({"messages": [{"role": "user", "content": {"x": 1}}], "temperature": 0}, "off", "off"),
        (body(temperature="0"), "off", "off"),
    ],
)
def test_what_is_cacheable(request_body: Json, default: str, on: str) -> None:
    def kind(query: CacheQuery | None) -> str:
        return "off" if query is None else "exact" if query.text is None else "semantic"

    assert kind(ask(request_body, CacheControls())) == default
    assert kind(ask(request_body, ON)) == on
    assert ask(request_body, CacheControls(mode="off")) is None


def test_zero_data_retention_is_never_cached() -> None:
    assert ask(body(temperature=0), ON, principal(zero_data_retention=True)) is None


def test_a_model_that_looks_online_counts_as_a_tool() -> None:
    query = asked(body(), model="openai/gpt-4o:online")
    assert query.text is None
    assert ask(body(temperature=0), CacheControls(), model="openai/gpt-4o:online") is None


def test_other_apis_are_not_cached() -> None:
    assert ask({"input": "x", "temperature": 0}, api="embeddings") is None


def test_the_three_apis_never_meet() -> None:
    queries = [
        asked(body(user("x")), api="chat"),
        asked(body(user("x")), api="messages"),
        asked({"input": "x"}, api="responses"),
        asked({"input": [user("x")]}, api="responses"),
    ]
    assert [query.text for query in queries] == ["x"] * 4
    assert len({query.exact for query in queries}) == len({query.partition for query in queries}) == 4


def test_state_kept_elsewhere_is_not_cached() -> None:
    assert ask({"input": "x", "previous_response_id": "resp_1"}, api="responses") is None
    assert ask({"input": "x", "previous_response_id": None}, api="responses") is not None


SHAPING: list[Json] = [
    body(),
    body(user("What is the capital of Spain?")),
    body(user("What is the capital of France? ")),
    body({"role": "system", "content": "Be brief."}, user("What is the capital of France?")),
    body({"role": "developer", "content": "Be brief."}, user("What is the capital of France?")),
    body(user("Be brief."), user("What is the capital of France?")),
    body(user("What is the capital of France?", name="ann")),
    body(user("What is the capital of France?"), {"role": "assistant", "content": ""}),
    body(temperature=0),
    body(temperature=0.1),
    body(seed=1),
    body(seed=2),
    body(max_tokens=10),
    body(max_completion_tokens=10),
    body(stop=["x"]),
    body(stop="x"),
    body(top_p=0.5),
    body(response_format={"type": "json_object"}),
    body(tools=TOOLS),
    body(tool_choice="auto"),
    body(reasoning={"effort": "high"}),
    body(reasoning_effort="high"),
    body(provider={"order": ["openai"]}),
    body(models=["a/b"]),
    body(plugins=[{"id": "web"}]),
    body(a_parameter_of_tomorrow=1),
    body(a_parameter_of_tomorrow=2),
    body(store=True),
]


def test_everything_that_shapes_the_answer_is_in_the_keys() -> None:
    queries = [asked(each) for each in SHAPING]
    assert len({query.exact for query in queries}) == len(SHAPING)
    same_partition = {
        (one, two)
        for one, two in combinations(range(len(SHAPING)), 2)
        if queries[one].partition == queries[two].partition
    }
    assert same_partition == {(0, 1), (0, 2), (1, 2)}  # only the last user turn's text differs


@pytest.mark.parametrize(
    "member",
    [
        {"stream": True},
        {"stream_options": {"include_usage": True}},
        {"metadata": {"job": "7"}},
        {"trace": {"trace_id": "7"}},
        {"session_id": "7"},
        {"prompt_cache_key": "7"},
        {"service_tier": "flex"},
        {"usage": {"include": True}},
        {"model": "is given apart"},
    ],
    ids=str,
)
def test_what_does_not_shape_the_answer_is_not(member: Json) -> None:
    assert asked(body() | member).exact == asked(body()).exact


def test_how_a_request_is_written_does_not_matter() -> None:
    plain = asked(
        b'{"model":"auto","messages":[{"role":"user","content":"d\\u00e9j\\u00e0 vu"}],'
        b'"temperature":0,"stop":["a","b"]}'
    )
    other = '{ "stop" : [ "a",\n"b" ], "temperature" : 0.0, "messages" : [ {"content": "déjà vu" , "role":"user"} ] }'
    parts = asked(body(user([{"type": "text", "text": "déjà vu"}]), temperature=0, stop=["a", "b"]))
    spaced = asked(other.encode())
    assert plain.exact == spaced.exact == parts.exact
    assert plain.partition == spaced.partition == parts.partition


def test_parts_are_told_apart_from_their_joined_text() -> None:
    joined = asked(body(user("a\nb")))
    parts = asked(body(user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])))
    assert parts.text == joined.text == "a\nb"
    assert parts.exact != joined.exact


@pytest.mark.parametrize("api", ["chat", "messages"])
def test_end_users_of_an_application_do_not_share(api: str) -> None:
    def of(name: str) -> Json:
        return body(user=name) if api == "chat" else body(metadata={"user_id": name})

    assert asked(of("ann"), api=api).partition != asked(of("bob"), api=api).partition
    wide = CacheControls(mode="on", scope="organization")
    assert asked(of("ann"), wide, api=api).partition == asked(of("bob"), wide, api=api).partition


def test_model_version_and_policy_are_boundaries() -> None:
    queries = [
        asked(body()),
        asked(body(), model="auto:fast"),
        asked(body(), version=b"2"),
        asked(body(), who=principal(models=())),
        asked(body(), who=principal(models=("a/b",))),
        asked(body(), who=principal(regions=("eu",))),
    ]
    assert len({query.partition for query in queries}) == len({query.exact for query in queries}) == len(queries)


SCOPES: list[Scope] = ["user", "team", "organization"]


def test_no_two_owners_share_a_key() -> None:
    """A thousand random principals and scopes, one prompt: equal keys exactly where the owner is one."""
    chance = random.Random(7)
    seen: dict[bytes, tuple[str, ...]] = {}
    shared = 0
    for _ in range(1000):
        who = principal(
            organization=f"org_{chance.randrange(5)}",
            team=chance.choice([None, "x", "y", "org_1"]),
            user=chance.choice([None, "x", "y", "user_1", "org_1"]),
            key=f"key_{chance.randrange(3)}",
        )
        scope = chance.choice(SCOPES)
        query = asked(body(), CacheControls(mode="on", scope=scope), who)
        owned = (who.organization, *owner(who, scope))
        assert seen.setdefault(query.exact, owned) == owned
        assert seen.setdefault(query.partition, owned) == owned
        shared += 1
    assert len(seen) == 2 * len(set(seen.values()))
    assert shared > len(seen) / 2


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), min_size=2, max_size=2, unique=True), st.text())
def test_no_text_can_pass_for_another_structure(pair: list[tuple[str, str]], end: str) -> None:
    one, two = (asked(body({"role": "system", "content": first}, user(second), user(end))) for first, second in pair)
    assert one.exact != two.exact
    assert one.partition != two.partition


@given(st.binary(max_size=200))
def test_rubbish_is_never_an_error(raw: bytes) -> None:
    fields = {"messages": msgspec.Raw(raw), "temperature": msgspec.Raw(b"0"), "x": msgspec.Raw(b"[1]")}
    fingerprint(principal(), "chat", "auto", fields, ON, scope="user", ttl=1, version=b"")


def test_controls_of_headers() -> None:
    controls = CacheControls.parse(
        [
            (b"host", b"x"),
            (b"x-sophia-cache", b" On "),
            (b"x-sophia-cache-ttl", b"60"),
            (b"x-sophia-cache-tags", b"Docs-7, a,,a"),
            (b"x-sophia-cache-scope", b"team"),
            (b"cache-control", b"max-age=30, proxy-revalidate"),
        ]
    )
    assert controls == CacheControls("on", True, 30, 60, ("Docs-7", "a"), "team")
    query = asked(body(), controls)
    assert (query.ttl, query.max_age, query.tags) == (60_000_000_000, 30_000_000_000, ("Docs-7", "a"))


@pytest.mark.parametrize(
    ("cache_control", "mode", "read"),
    [
        (b"no-store", "off", True),
        (b"No-Store, max-age=3", "off", True),
        (b"no-cache", "default", False),
        (b"max-age=0", "default", False),
        (b"max-age=soon", "default", True),
        (b"private", "default", True),
        (b"", "default", True),
    ],
)
def test_cache_control(cache_control: bytes, mode: str, read: bool) -> None:
    controls = CacheControls.parse([(b"cache-control", cache_control)])
    assert (controls.mode, controls.read) == (mode, read)


def test_no_store_wins_over_on() -> None:
    assert CacheControls.parse([(b"x-sophia-cache", b"on"), (b"cache-control", b"no-store")]).mode == "off"


def test_refresh_stores_and_does_not_read() -> None:
    query = asked(body(), CacheControls.parse([(b"x-sophia-cache", b"refresh")]))
    assert not query.read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-sophia-cache", b"yes"),
        (b"x-sophia-cache-scope", b"world"),
        (b"x-sophia-cache-ttl", b"0"),
        (b"x-sophia-cache-ttl", b"86401"),
        (b"x-sophia-cache-ttl", b"-1"),
        (b"x-sophia-cache-ttl", b"1.5"),
        (b"x-sophia-cache-ttl", b"99999999999999999999"),
        (b"x-sophia-cache-ttl", "٣".encode()),
        (b"x-sophia-cache-tags", b"a,b,c,d,e,f,g,h,i"),
        (b"x-sophia-cache-tags", b"x" * 65),
        (b"x-sophia-cache-tags", b"a\x01b"),
    ],
)
def test_a_header_without_meaning_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        CacheControls.parse([(name, value)])
    assert caught.value.param == name.decode()
