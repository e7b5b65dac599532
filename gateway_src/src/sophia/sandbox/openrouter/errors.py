# SPDX-License-Identifier: GPL-3.0-or-later
"""The vendor's errors, as it words them.

::

    VendorError      status, message, metadata, headers: everything that is not a success

One class: the vendor tells errors apart by status and `error.metadata.error_type`, not by shape. The constructors below
name each kind that the documentation or the field has shown (docs: "Errors and Debugging", "Limits").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ANTHROPIC_TYPES", "ERROR_TYPES", "VendorError", "by_status"]

ERROR_TYPES = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    412: "precondition_failed",
    413: "payload_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    500: "server",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
    524: "timeout",
    529: "provider_overloaded",
}

ANTHROPIC_TYPES = {
    "authentication": "authentication_error",
    "permission_denied": "permission_error",
    "payment_required": "billing_error",
    "not_found": "not_found_error",
    "rate_limit_exceeded": "rate_limit_error",
    "provider_overloaded": "overloaded_error",
    "timeout": "timeout_error",
}

MESSAGES = {
    400: "Invalid request parameters",
    401: "Missing Authentication header",
    402: "Insufficient credits. Add more using https://openrouter.ai/credits",
    403: "Only management keys can perform this operation",
    404: "Resource not found",
    408: "Operation timed out. Please try again later.",
    409: "Resource conflict. Please try again later.",
    412: "Precondition failed",
    413: "Request payload too large",
    422: "Invalid argument",
    429: "Rate limit exceeded",
    500: "Internal Server Error",
    502: "Provider returned error",
    503: "Service temporarily unavailable",
    504: "The operation was aborted due to timeout",
    524: "Request timed out. Please try again later.",
    529: "Provider returned error",
}


class VendorError(Exception):
    """An answer that is not a success. `upstream` errors are the model's, so that a fallback model may still answer."""

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        error_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        availability: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        upstream: bool = False,
    ) -> None:
        self.status = status
        self.message = message or MESSAGES.get(status, "Provider returned error")
        super().__init__(self.message)
        self.error_type = error_type or ERROR_TYPES.get(status)
        self.metadata = dict(metadata or {})
        self.availability = availability
        self.headers = dict(headers or {})
        self.upstream = upstream

    def error(self) -> dict[str, Any]:
        """The `error` object of a body or a chunk."""
        error: dict[str, Any] = {"code": self.status, "message": self.message}
        metadata = dict(self.metadata)
        if self.error_type is not None:
            metadata = {"error_type": self.error_type} | metadata
        if metadata:
            error["metadata"] = metadata
        if self.availability is not None:
            error["availability"] = self.availability
        return error

    def body(self) -> dict[str, Any]:
        """The body of chat, embeddings and management endpoints."""
        return {"error": self.error()}

    def responses_body(self) -> dict[str, Any]:
        """The body of `/responses`: the type is at the top."""
        return {"error": self.error(), "error_type": self.error_type}

    def messages_error(self) -> dict[str, Any]:
        """Anthropic's `error` object with the vendor's `error_type`."""
        return {"type": self.anthropic_type, "message": self.message, "error_type": self.error_type or "unmapped"}

    def messages_body(self, generation_id: str | None) -> dict[str, Any]:
        """The body of `/messages`, in Anthropic's shape."""
        body: dict[str, Any] = {"type": "error", "error": self.messages_error(), "request_id": generation_id}
        if self.metadata:
            body["metadata"] = self.metadata
        return body

    @property
    def anthropic_type(self) -> str:
        """Anthropic's type of this error."""
        known = ANTHROPIC_TYPES.get(self.error_type or "")
        return known or ("invalid_request_error" if 400 <= self.status < 500 else "api_error")


def key_limit_exceeded(window: str | None) -> VendorError:
    """A key's own limit is spent: 403, not 402 (seen in the field; the documentation says 402)."""
    text = f"Key limit exceeded ({window or 'total'} limit). Manage it using https://openrouter.ai/settings/keys"
    return VendorError(403, text, error_type="permission_denied")


def cannot_afford(requested: int, affordable: int) -> VendorError:
    """402 before the model starts: what is left does not pay for `max_tokens`."""
    text = (
        f"This request requires more credits, or fewer max_tokens. You requested up to {requested} tokens, "
        f"but can only afford {affordable}. To increase, visit https://openrouter.ai/settings/credits "
        "and add more credits"
    )
    return VendorError(402, text, metadata={"requested_tokens": requested, "affordable_tokens": affordable})


def moderated(model: str, provider: str) -> VendorError:
    """403: the input was flagged before it reached the model."""
    metadata = {
        "reasons": ["violence/graphic"],
        "flagged_input": "the flagged part of the prompt",
        "provider_name": provider,
        "model_slug": model,
    }
    text = f"{model} requires moderation on {provider}. Your input was flagged. No credits were charged."
    return VendorError(403, text, error_type="content_policy_violation", metadata=metadata, upstream=True)


def guardrail_blocked(patterns: Sequence[str]) -> VendorError:
    """403: a guardrail of the account stopped the request."""
    text = "Request blocked: prompt injection patterns detected"
    return VendorError(403, text, metadata={"patterns": list(patterns)})


def platform_limited(limit: int, reset: float, retry_after: float | None = None) -> VendorError:
    """429 of OpenRouter itself: the only answers that carry X-RateLimit headers. `reset` is seconds since the epoch."""
    marks = {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(reset * 1000))}
    headers = dict(marks)
    if retry_after is not None:
        headers["Retry-After"] = _seconds(retry_after)
    return VendorError(429, f"Rate limit exceeded: limit_rpm/{limit}", metadata={"headers": marks}, headers=headers)


def upstream_limited(model: str, provider: str, retry_after: float | None = None) -> VendorError:
    """429 of the provider."""
    metadata = {
        "provider_code": "rate_limit_exceeded",
        "provider_name": provider,
        "raw": f"{model} is temporarily rate-limited upstream. Please retry shortly.",
    }
    headers = {} if retry_after is None else {"Retry-After": _seconds(retry_after)}
    return VendorError(429, "Provider returned error", metadata=metadata, headers=headers, upstream=True)


def unavailable(
    status: int,
    code: str,
    message: str,
    models: Sequence[str],
    *,
    retryable: bool = False,
    retry_after: float | None = None,
    excluded_by: Sequence[str] = (),
    fallback_models: Sequence[str] = (),
) -> VendorError:
    """A model that cannot be served, with the availability object; clients switch on its `retryable`."""
    availability: dict[str, Any] = {"code": code, "retryable": retryable, "requested_models": list(models)}
    if retry_after is not None:
        availability["retry_after"] = retry_after
    if excluded_by:
        availability["excluded_by"] = list(excluded_by)
    if fallback_models:
        availability["fallback_models"] = list(fallback_models)
    availability["docs_url"] = "https://openrouter.ai/docs/guides/routing/provider-selection"
    headers = {} if retry_after is None else {"Retry-After": _seconds(retry_after)}
    return VendorError(status, message, availability=availability, headers=headers, upstream=True)


def by_status(
    status: int, variant: str | None, *, model: str, provider: str, now: float, retry_after: float | None = None
) -> VendorError:
    """The error that a fault asks for. Each status has its ordinary variant; an unknown one is the ordinary one."""
    match status, variant:
        case 402, "affordability":
            return cannot_afford(4096, 117)
        case 403, "key_limit":
            return key_limit_exceeded(None)
        case 403, "moderation":
            return moderated(model, provider)
        case 403, "guardrail":
            return guardrail_blocked(["ignore all previous instructions"])
        case 403, "region":
            return unavailable(403, "region_restricted", "This model is not available in your region.", [model])
        case 400, "context_length":
            text = "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000 tokens."
            return VendorError(400, text, error_type="context_length_exceeded", upstream=True)
        case 400, "model_not_found":
            return unavailable(400, "model_not_found", f"{model} is not a valid model ID", [model])
        case 401, "disabled":
            return VendorError(401, "API key is disabled")
        case 404, "model_deprecated":
            return unavailable(404, "model_deprecated", f"{model} is no longer available.", [model])
        case 404, "no_endpoints":
            return unavailable(404, "no_endpoints", f"No endpoints found for {model}.", [model])
        case 429, "upstream":
            return upstream_limited(model, provider, retry_after)
        case 429, "capacity":
            text = f"{model} is at capacity. Please try again shortly."
            return unavailable(429, "capacity_exhausted", text, [model], retryable=True, retry_after=retry_after)
        case 429, _:
            return platform_limited(20, now + (retry_after or 60.0), retry_after)
        case 503, "bare":
            headers = {} if retry_after is None else {"Retry-After": _seconds(retry_after)}
            return VendorError(503, headers=headers, upstream=True)
        case 503, _:
            text = "Service temporarily unavailable"
            return unavailable(503, "temporarily_unavailable", text, [model], retryable=True, retry_after=retry_after)
        case _:
            headers = {} if retry_after is None else {"Retry-After": _seconds(retry_after)}
            metadata = {"provider_name": provider} if status in (408, 502, 524, 529) else {}
            upstream = status in (408, 422, 500, 502, 504, 524, 529)
            return VendorError(status, metadata=metadata, headers=headers, upstream=upstream)


def _seconds(value: float) -> str:
    return f"{value:g}"
