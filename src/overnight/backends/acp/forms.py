"""Questions that an agent puts as a form: one with one choice, or one line of text, is put to people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from overnight.backends.acp.shapes import as_object, objects, texts
from overnight.domain.action import Action
from overnight.domain.update import Answer, Asked
from overnight.ports.backend import Verdict

IN_WORDS: Final = "in_words"
"""The one answer to a question without choices: what is said stands in the verdict's feedback."""
DECLINED: Final[Mapping[str, object]] = {"action": "decline"}
CANCELLED: Final[Mapping[str, object]] = {"action": "cancel"}
_MOST_CHOICES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form that waits for its answer."""

    choice: str | None
    """The member that one of the choices goes into; None where there are none."""
    choices: Mapping[str, object]
    """Value by id."""
    words: str | None
    """The member that takes free text."""

    def filled(self, verdict: Verdict) -> Mapping[str, object]:
        """The answer to the request."""
        if not verdict.allow or verdict.option is None:
            return DECLINED
        content: dict[str, object] = {}
        if self.choice is not None and verdict.option in self.choices:
            content[self.choice] = self.choices[verdict.option]
        if self.words is not None and verdict.feedback:
            content[self.words] = verdict.feedback
        return {"action": "accept", "content": content} if content else DECLINED


def form(params: Mapping[str, Any], key: str) -> tuple[Asked, Form] | None:
    """The question that an `elicitation/create` puts; None when it is more than one, or wants a browser."""
    members = as_object(as_object(params.get("requestedSchema")).get("properties"))
    choosing = {name: found for name, told in members.items() if (found := _choices(as_object(told)))}
    writing = [
        name
        for name, told in members.items()
        if name not in choosing and as_object(told).get("type") == "string"
    ]
    required = set(texts(as_object(params.get("requestedSchema")).get("required")))
    if (
        params.get("mode", "form") != "form"
        or len(choosing) > 1
        or len(members) != len(choosing) + len(writing)
    ):
        return None
    if (not choosing and len(writing) != 1) or len(required - set(choosing)) > (0 if choosing else 1):
        return None
    name, labels = next(iter(choosing.items()), (None, {IN_WORDS: ("Answer in words, as feedback", None)}))
    answers = tuple(Answer(id=id, label=label) for id, (label, _) in labels.items())
    wanted = Form(
        choice=name,
        choices={id: value for id, (_, value) in labels.items()} if name is not None else {},
        words=writing[0] if writing else None,
    )
    item = str(params.get("toolCallId") or "") or None
    title = str(params.get("message") or "The agent asks")
    action = Action(kind="other", tool="elicitation/create", title=title[:500], arguments={"message": title})
    return Asked(key=key, action=action, item_id=item, answers=answers), wanted


def _choices(told: Mapping[str, Any]) -> dict[str, tuple[str, object]]:
    """Id, label and value of each choice that a member offers; empty for one that takes anything."""
    kind = told.get("type")
    if kind == "boolean":
        return {"yes": ("Yes", True), "no": ("No", False)}
    many = kind == "array"
    inner = as_object(told.get("items")) if many else told
    named = [(str(o["const"]), str(o.get("title") or o["const"])) for o in _titled(inner) if "const" in o]
    found = named or [(value, value) for value in texts(inner.get("enum"))]
    return {value: (label, [value] if many else value) for value, label in found[:_MOST_CHOICES]}


def _titled(inner: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return objects(inner.get("oneOf")) or objects(inner.get("anyOf"))
