"""What may be published: bounds on every field of a draft, and text that can be stored."""

from __future__ import annotations

import re

import msgspec

from orchestrator.errors import BadEvent, BadRequest
from orchestrator.identifiers import check_identifier
from orchestrator.models import EventDraft
from orchestrator.storage.codec import clean_text, encode, without_surrogates

MAX_TTL_S = 86400
MAX_TEXT = 256
MAX_REFERENCES = 64
_PRIORITIES = ("low", "normal", "high")
#: The sidecar's own events about an agent, a run or a result carry its id and a dot. Taken by somebody else before, the
#: end of an agent would be a repetition, and told to nobody.
_OWN_EVENT_ID = re.compile(r"(agt|run|res)_[0-9a-z]{26}\.")
_ENCODER = msgspec.json.Encoder()


def check_draft(draft: EventDraft, *, max_data_bytes: int, is_trusted: bool) -> tuple[EventDraft, int]:
    """The draft as it can be stored, and the size of its data's JSON in bytes.

    ``is_trusted``: it comes from the sidecar itself or an operator, whose ``event_id`` may be of any form.

    Raises BadEvent or BadRequest (``details["field"]``).
    """
    check_identifier(draft.event_type, "event_type")
    check_identifier(draft.topic, "topic")
    _check_text(draft.publisher, "publisher")
    for field in ("event_id", "correlation_id"):
        value = getattr(draft, field)
        if value is not None:
            _check_text(value, field)
    if not is_trusted and draft.event_id is not None and _OWN_EVENT_ID.match(draft.event_id):
        raise BadEvent(
            "event_id must not begin with the id of an agent, a run or a result and a dot, as the sidecar's own do; "
            "choose another, or leave it out",
            details={"field": "event_id"},
        )
    if len(draft.references) > MAX_REFERENCES:
        raise _bad("references", f"at most {MAX_REFERENCES} entries")
    for reference in draft.references:
        _check_text(reference, "references")
    if type(draft.ttl_seconds) is not int or not 1 <= draft.ttl_seconds <= MAX_TTL_S:
        raise _bad("ttl_seconds", f"1 to {MAX_TTL_S}")
    if draft.priority not in _PRIORITIES:
        raise _bad("priority", "low, normal or high")
    if draft.round is not None and (type(draft.round) is not int or not 0 <= draft.round < 1 << 31):
        raise _bad("round", "a whole number from 0")
    return _check_data(draft, max_data_bytes)


def _check_data(draft: EventDraft, max_data_bytes: int) -> tuple[EventDraft, int]:
    if not isinstance(draft.data, dict):
        raise _bad("data", "an object")
    try:
        try:
            raw = _ENCODER.encode(draft.data)
        except UnicodeEncodeError:
            draft = msgspec.structs.replace(draft, data=without_surrogates(draft.data))
            raw = _ENCODER.encode(draft.data)
        if raw.count(b"{") + raw.count(b"[") > 100:
            encode(draft.data)  # the exact count of levels, for a body with many brackets
    except BadRequest as error:
        raise BadEvent(error.message, slug=error.slug, details={"field": "data"}) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise BadEvent("data cannot be written as JSON", slug="not_json", details={"field": "data"}) from error
    if len(raw) > max_data_bytes:
        raise _bad("data", f"at most {max_data_bytes} bytes of JSON (it has {len(raw)})")
    return draft, len(raw)


def _check_text(value: object, field: str) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT:
        raise _bad(field, f"a text of 1 to {MAX_TEXT} characters")
    if not value.isprintable() or clean_text(value) != value:
        raise _bad(field, "printable characters")


def _bad(field: str, expected: str) -> BadEvent:
    return BadEvent(f"{field} must be {expected}", details={"field": field, "expected": expected})
