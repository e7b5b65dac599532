# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a request may be answered from the cache, and under which key: pure, and on every request's path.

Two hashes, both over everything that shapes the answer:

- the *partition* is a hard boundary: organisation, owner by scope, the principal's policy, API, model or
  preference, every parameter, and the whole conversation but the text of its last user turn;
- the *exact* key is the partition's material with that text.

A member of the request that this room does not know goes into both, so an unknown parameter can only cost a hit.
Only members known not to shape the answer (`stream`, `user`, `metadata` …) stay outside. JSON is hashed without its
insignificant white space; each part goes in with its length in front (as a MessagePack array), so no two different
requests give the same material.

What is cacheable when nobody asks:

- temperature 0 (an unset temperature counts as above 0, it is 1 with every API served here), no tools, no media.

What is cacheable when the client asks (``x-sophia-cache: on`` or ``refresh``): the same at any temperature, exact
and semantic; with tools or media exact only, for the text alone no longer says what was asked.

Never: several choices, log probabilities, audio or image output, state kept elsewhere (`previous_response_id`),
principals under zero data retention, and bodies over 256 KiB.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from sophia.errors import BadRequest
from sophia.stores.exact import MAX_TTL, Answer, Stamp
from sophia.stores.model import Principal
from sophia.stores.vectors import Vector

__all__ = ["CacheControls", "CacheQuery", "Check", "Scope", "Ticket", "fingerprint", "owner"]

Scope = Literal["user", "team", "organization"]

_MAX_REQUEST = 256 * 1024
_MAX_QUESTION = 8 * 1024
_MAX_TAGS = 8
_FORMAT = b"sophia cache 1"

# What cannot change the answer. `stream` is here because answers are kept whole and replayed in either form.
_SHAPELESS = frozenset(
    {
        "metadata",
        "model",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "session_id",
        "stream",
        "stream_options",
        "trace",
        "usage",
        "user",
    }
)
_TOOLS = frozenset({"tools", "functions", "plugins", "web_search_options", "tool_choice", "mcp_servers", "container"})
_STATE = frozenset(
    {"previous_response_id", "conversation", "background", "prompt", "logprobs", "top_logprobs", "audio"}
)
_EMPTY = frozenset({b"null", b"[]", b"false", b"{}", b"0", b'"none"'})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_TOOL_ROLES = frozenset({"tool", "function"})
_TEXT_MEMBERS = frozenset({"type", "text", "cache_control"})
_NO_CALLS = frozenset({b"", b"null", b"[]"})
_TURNS_OF = {"chat": "messages", "messages": "messages", "responses": "input"}


class CacheControls(msgspec.Struct, frozen=True):
    """What the client wants of the cache, from its headers. Times in seconds; None means the default."""

    mode: Literal["default", "on", "off", "refresh"] = "default"
    read: bool = True
    max_age: int | None = None
    ttl: int | None = None
    tags: tuple[str, ...] = ()
    scope: Scope | None = None

    @classmethod
    def parse(cls, headers: Iterable[tuple[bytes, bytes]]) -> CacheControls:
        """Read ASGI headers (lower-case names).

        `Cache-Control` is read as a client means it (RFC 9111, 5.2.1): `no-store` keeps the request out of the cache
        altogether, `no-cache` and `max-age=0` ask for a fresh answer, which may then be kept.

        Raises:
            BadRequest: a header of ours with a value that means nothing.
        """
        found = {}
        for name, value in headers:
            if name.startswith(b"x-sophia-cache") or name == b"cache-control":
                found[name] = value.decode("latin-1").strip().lower() if name != _TAGS else value.decode("latin-1")
        return _controls(found) if found else _DEFAULT


_TAGS = b"x-sophia-cache-tags"
_DEFAULT = CacheControls()


def _controls(found: Mapping[bytes, str]) -> CacheControls:
    mode: Any = found.get(b"x-sophia-cache", "default")
    if mode not in ("default", "on", "off", "refresh"):
        raise _meaningless("x-sophia-cache", "on, off or refresh")
    scope: Any = found.get(b"x-sophia-cache-scope")
    if scope not in (None, "user", "team", "organization"):
        raise _meaningless("x-sophia-cache-scope", "user, team or organization")
    ttl = found.get(b"x-sophia-cache-ttl")
    if ttl is not None and not (ttl.isascii() and ttl.isdigit() and 1 <= int(ttl[:9]) <= MAX_TTL):
        raise _meaningless("x-sophia-cache-ttl", f"seconds from 1 to {MAX_TTL}")
    tags = tuple(sorted({tag.strip() for tag in found.get(_TAGS, "").split(",") if tag.strip()}))
    if len(tags) > _MAX_TAGS or any(len(tag) > 64 or not tag.isprintable() for tag in tags):
        raise _meaningless("x-sophia-cache-tags", f"at most {_MAX_TAGS} tags of at most 64 printable characters")
    read, max_age = mode != "refresh", None
    for directive in found.get(b"cache-control", "").split(","):
        name, _, value = directive.strip().partition("=")
        if name == "no-store":
            mode = "off"
        elif name == "no-cache":
            read = False
        elif name == "max-age" and value.isascii() and value.isdigit():
            max_age = int(value[:9])
            read = read and max_age > 0
    return CacheControls(mode, read, max_age, None if ttl is None else int(ttl), tags, scope)


def _meaningless(header: str, allowed: str) -> BadRequest:
    return BadRequest("invalid_cache_control", f"The header {header} must be {allowed}.", param=header)


class Check(NamedTuple):
    """A near entry's answer that the request's own is to be compared with, and whose lesson that is."""

    unit: str
    band: int
    answer: Answer


class Ticket:
    """What a lookup learned that the store of the answer needs. One for each request; only `Cache` touches it.

    `embedded`: the question's vector was asked for, with or without success. `leads`: others wait for this request;
    `landed` is what they wait on, and tells them whether there is an answer that is only not to be kept. `check`: a
    near answer that the fresh one is to be compared with.
    """

    __slots__ = ("__weakref__", "check", "embedded", "landed", "leads", "stamp", "vector")

    def __init__(self) -> None:
        self.stamp: Stamp | None = None
        self.vector: Vector | None = None
        self.embedded = False
        self.leads = False
        self.landed: Future[bool] | None = None
        self.check: Check | None = None


class CacheQuery(msgspec.Struct, frozen=True, eq=False):
    """A request as the cache sees it. `text` is what is embedded; None means that only the exact key may hit.

    `ttl` and `max_age` are nanoseconds. `user` is who an entry is booked to, whatever its scope.
    """

    principal: Principal
    api: str
    model: str
    partition: bytes
    exact: bytes
    text: str | None
    tags: tuple[str, ...]
    ttl: int
    max_age: int | None
    read: bool
    user: str
    ticket: Ticket


class _Part(msgspec.Struct, gc=False):
    type: str = "text"
    text: str | None = None


class _Turn(msgspec.Struct):
    role: str = ""
    type: str = "message"
    content: str | list[_Part] | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


_decode_turns = msgspec.json.Decoder(list[_Turn]).decode
_decode_raw_turns = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_parts = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_number = msgspec.json.Decoder(float | None).decode
_compact = msgspec.json.format
_pack = msgspec.msgpack.Encoder().encode


def owner(principal: Principal, scope: Scope) -> tuple[Scope, str]:
    """Whose entries a request shares: never wider than asked for.

    A key that belongs to no user stands for itself, a principal without a team does not share with the organisation.
    """
    if scope == "organization":
        return scope, principal.organization
    if scope == "team" and principal.team is not None:
        return scope, principal.team
    return "user", principal.user or principal.key


def fingerprint(
    principal: Principal,
    api: str,
    model: str,
    fields: Mapping[str, msgspec.Raw],
    controls: CacheControls,
    *,
    scope: Scope,
    ttl: int,
    version: bytes,
) -> CacheQuery | None:
    """Decide whether and under which key a request may be answered from the cache; None where it may not.

    `fields` are the members of the request's JSON object, raw. `scope` and `ttl` (seconds) are what holds where the
    client says nothing; `version` names the data and policy that answers are made from.
    """
    turns_name = _TURNS_OF.get(api)
    if turns_name is None or controls.mode == "off" or principal.zero_data_retention:
        return None
    asked = controls.mode != "default"
    try:
        temperature = fields.get("temperature")
        number = None if temperature is None else _decode_number(temperature)
        if not asked and number != 0:
            return None
        if not _single_and_stateless(fields):
            return None
        return _build(principal, api, model, fields, controls, asked, number, turns_name, scope, ttl, version)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None  # not a request that we understand: upstream shall judge it


def _single_and_stateless(fields: Mapping[str, msgspec.Raw]) -> bool:
    choices = fields.get("n")
    if choices is not None and bytes(choices) not in (b"1", b"null"):
        return False
    if not _STATE.isdisjoint(fields) and not _all_empty(fields, _STATE):
        return False
    modalities = fields.get("modalities")
    return modalities is None or bytes(_compact(modalities, indent=-1)) in (b'["text"]', b"null")


def _all_empty(fields: Mapping[str, msgspec.Raw], names: frozenset[str]) -> bool:
    return all(bytes(fields[name]) in _EMPTY for name in names if name in fields)


def _has_tools(fields: Mapping[str, msgspec.Raw], model: str) -> bool:
    return model.endswith(":online") or not (_TOOLS.isdisjoint(fields) or _all_empty(fields, _TOOLS))


def _build(
    principal: Principal,
    api: str,
    model: str,
    fields: Mapping[str, msgspec.Raw],
    controls: CacheControls,
    asked: bool,
    temperature: float | None,
    turns_name: str,
    scope: Scope,
    ttl: int,
    version: bytes,
) -> CacheQuery | None:
    turns = bytes(fields.get(turns_name, b""))
    if not turns or len(turns) > _MAX_REQUEST:
        return None
    text, context, last, plain = _conversation(turns)
    textual = plain and not _has_tools(fields, model)
    if not textual and not asked:
        return None
    names = sorted(fields.keys() - _SHAPELESS - {turns_name, "temperature"})
    parts = [_FORMAT, version, api.encode(), model.encode(), repr(temperature).encode()]
    parts += _owner_parts(principal, api, fields, controls.scope or scope)
    parts.append(b"%d %d" % (len(names), len(context)))
    for name in names:
        value = bytes(fields[name])
        if len(value) > _MAX_REQUEST:
            return None
        parts.append(name.encode())
        parts.append(_compact(value, indent=-1) if value[:1] in b"[{" else value)
    parts += context
    hashed = sha256(_pack(parts))
    partition = hashed.digest()[:16]
    hashed.update(last)
    return CacheQuery(
        principal,
        api,
        model,
        partition,
        hashed.digest(),
        text if textual and text and len(text) <= _MAX_QUESTION else None,
        controls.tags,
        (controls.ttl or ttl) * 1_000_000_000,
        None if controls.max_age is None else controls.max_age * 1_000_000_000,
        controls.read,
        principal.user or principal.key,
        Ticket(),
    )


def _owner_parts(
    principal: Principal, api: str, fields: Mapping[str, msgspec.Raw], scope: Scope
) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
    """Who shares the entry, and the policy its answer was made under.

    Where a user shares with nobody, the end users that an application names to us do not share with each other.
    """
    kind, who = owner(principal, scope)
    end_user = b""
    if kind == "user":
        names = ("metadata", "user") if api == "messages" else ("safety_identifier", "user")
        end_user = b"\n".join([_compact(fields[name], indent=-1) if name in fields else b"" for name in names])
    return (
        principal.organization.encode(),
        kind.encode(),
        who.encode(),
        end_user,
        b"*" if principal.models is None else "\n".join(sorted(principal.models)).encode(),
        b"*" if principal.regions is None else "\n".join(sorted(principal.regions)).encode(),
    )


def _conversation(raw: bytes) -> tuple[str | None, list[bytes], bytes, bool]:
    """The last user turn's text if there is one, what stands around it, that turn, and whether all is text."""
    if raw[:1] == b'"':
        text = _decode_text(raw)
        return text, [b"string"], text.encode(), True
    turns, raws = _decode_turns(raw), _decode_raw_turns(raw)
    if not turns:
        return None, [b"none"], b"", True
    context = [b"turns"]
    context += [_compact(turn, indent=-1) for turn in raws[:-1]]
    plain = all(map(_is_plain, turns))
    if plain and turns[-1].role == "user":
        return *_last_turn(turns[-1], raws[-1], context), plain
    return None, context, _compact(raws[-1], indent=-1), plain


def _is_plain(turn: _Turn) -> bool:
    if turn.role in _TOOL_ROLES or turn.type != "message" or bytes(turn.tool_calls) not in _NO_CALLS:
        return False
    return not isinstance(turn.content, list) or all(part.type in _TEXT_PARTS for part in turn.content)


def _last_turn(turn: _Turn, raw: msgspec.Raw, context: list[bytes]) -> tuple[str | None, list[bytes], bytes]:
    members = _decode_members(raw)
    content = bytes(members.pop("content", b"null"))
    del members["role"]
    for name in sorted(members):
        context.append(name.encode())
        context.append(_compact(members[name], indent=-1))
    if isinstance(turn.content, str):
        return turn.content, context, turn.content.encode()
    if turn.content is None or not all(_TEXT_MEMBERS.issuperset(part) for part in _decode_parts(content)):
        return None, [*context, b"opaque"], _compact(content, indent=-1)
    texts = [part.text or "" for part in turn.content]
    if len(texts) == 1:
        return texts[0], context, texts[0].encode()
    return "\n".join(texts), [*context, b"parts"], _compact(content, indent=-1)
