"""Decodes one agent's side of the Agent Client Protocol, and says what our side answers. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from overnight.backends.acp import rpc
from overnight.backends.acp.asking import (
    Pending,
    Permission,
    Unfit,
    covers,
    permission,
    reading,
    terminal,
    use_of_terminal,
    writing,
)
from overnight.backends.acp.conversation import Call, Notes, Talk, conversation, state_of
from overnight.backends.acp.forms import DECLINED, Form, form
from overnight.backends.acp.results import REQUEST_CANCELLED, chosen, copied, given_up, result_of
from overnight.backends.acp.script import Script
from overnight.backends.acp.shapes import as_object
from overnight.backends.acp.updates import Telling
from overnight.backends.process.failures import by_status, by_words, shortened
from overnight.backends.process.lines import StandardError, silent_exit
from overnight.backends.process.program import Exit
from overnight.backends.process.program import Verdict as Closing
from overnight.backends.process.talk import Deed, Errand, ReadText, Result, Say
from overnight.domain.update import (
    Asked,
    Custom,
    Output,
    SessionKnown,
    TurnOutcome,
    Update,
    UsageReported,
    Warned,
    Withdrawn,
)
from overnight.domain.values import Failure
from overnight.ports.backend import Verdict

LONGEST_LINE: Final = 16 << 20
"""Bytes of a message: agents write whole files in one."""
_STATUS: Final = re.compile(r"\bHTTP ([45]\d\d)\b")


@dataclass(frozen=True, slots=True)
class _Granted:
    """Leave that was given, as far as it has not been used."""

    key: str
    permission: Permission


class AcpCodec:
    """One turn. See `Talking`."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._notes = Notes()
        self._telling = Telling(script)
        self._errors = StandardError()
        self._begun = False
        self._outcome: TurnOutcome | None = None
        self._errands: list[Errand] = []
        self._replies: dict[str, Mapping[str, Any]] = {}
        """What has been said to the agent's requests, by key."""
        self._called: set[str] = set()
        """Keys of our own requests that have been said."""
        self._pending: dict[str, Pending] = {}
        self._seen: Counter[rpc.Id] = Counter()
        self._asked_for: list[_Granted] = []
        self._used: set[str] = set()
        self._limits: dict[str, int] = {}
        """How much of its output each terminal may tell."""
        self._talk: Talk = conversation(script, self._notes)
        self._call = 0
        self._history_over = False
        self._waiting = False
        """For the end of the history that the agent tells."""
        self._step(None)
        self.opening: bytes = b"".join(errand.data for errand in self._errands if isinstance(errand, Say))
        """The first message, for the launch."""
        self._errands.clear()

    # what the agent says

    def stdout(self, line: bytes, total: int | None = None) -> list[Update]:
        """See `Codec.stdout`."""
        if total is not None:
            return self._too_long(line, total)
        message = rpc.read(line)
        match message:
            case None:
                return [Output(stream="stdout", data=line)]
            case rpc.Notification():
                return self._notified(message)
            case rpc.Request():
                return self._requested(message)
            case rpc.Response():
                return self._answered(message)
            case rpc.Broken():
                return self._unreadable(message)

    def stderr(self, line: bytes, total: int | None = None) -> list[Update]:
        """See `Codec.stderr`."""
        return [self._errors.feed(line, total)]

    def inject(self, text: str) -> bytes | None:  # noqa: ARG002  # the port names it
        """Never: the protocol has no words for it."""
        return None

    def finish(self, exit: Exit) -> Closing:
        """See `Codec.finish`: what the agent answered to the prompt decides, whatever the exit status."""
        outcome = self._outcome
        if outcome is None:
            outcome = TurnOutcome(failure=silent_exit(exit, self._errors, begun=self._begun))
        return Closing(outcome=outcome, updates=tuple(self._telling.end()))

    # what we say

    @property
    def max_line(self) -> int:
        """See `Talking.max_line`."""
        return LONGEST_LINE

    @property
    def under_way(self) -> bool:
        """See `Talking.under_way`."""
        return self._notes.prompted

    @property
    def over(self) -> bool:
        """See `Talking.over`."""
        return self._outcome is not None

    def said(self, messages: Iterable[bytes]) -> None:
        """See `Talking.said`."""
        for data in messages:
            key = rpc.key_of(data)
            if key is None:
                continue
            if key.startswith("call:"):
                self._called.add(key)
            else:
                self._replies[key] = orjson.loads(data)
                self._pending.pop(key, None)

    def errands(self) -> list[Errand]:
        """See `Talking.errands`."""
        due, self._errands = self._errands, []
        return [
            errand for errand in due if errand.key not in self._called and errand.key not in self._replies
        ]

    def asks(self) -> tuple[Asked, ...]:
        """See `Talking.asks`."""
        return tuple(pending.asked for pending in self._pending.values() if pending.asked is not None)

    def decide(self, key: str, verdict: Verdict) -> Errand | None:
        """See `Talking.decide`."""
        pending = self._pending.get(key)
        if pending is None or pending.asked is None:
            return None
        if isinstance(pending.wanted, Permission):
            return Say(key=key, data=chosen(pending, pending.wanted, verdict))
        if isinstance(pending.wanted, Form):
            return Say(key=key, data=rpc.reply(pending.id, pending.wanted.filled(verdict)))
        if verdict.allow:
            return pending.wanted
        why = f"not allowed: {verdict.feedback}" if verdict.feedback else "not allowed"
        return Say(key=key, data=rpc.refusal(pending.id, rpc.REFUSED, why, copied(pending.copy)))

    def reply(self, key: str, result: Result) -> Say | None:
        """See `Talking.reply`."""
        pending = self._pending.get(key)
        if pending is None or isinstance(pending.wanted, Permission | Form):
            return None
        return Say(key=key, data=result_of(pending, pending.wanted, result))

    def terminal_of(self, item_id: str) -> str | None:
        """See `Talking.terminal_of`."""
        name = self._telling.terminal_of(item_id)
        return name if name in self._limits else None

    def farewell(self) -> bytes:
        """See `Talking.farewell`."""
        no = b"".join(given_up(pending) for pending in self._pending.values())
        if self._notes.session is None:
            return no
        # In this order: an agent that hears no first may go on in another way before it hears that it shall stop.
        return rpc.notification("session/cancel", {"sessionId": self._notes.session}) + no

    # how it goes on

    def _notified(self, message: rpc.Notification) -> list[Update]:
        if message.method == "$/cancel_request":
            return self._withdrawn(message.params.get("requestId"))
        if message.method != "session/update":
            return [Custom(name=f"acp.{message.method}"[:200], data=message.params)]
        if self._notes.session is not None and message.params.get("sessionId") not in {
            None,
            self._notes.session,
        }:
            return []  # a helper of the agent's own, whose words are for the agent
        told = as_object(message.params.get("update"))
        if told.get("sessionUpdate") == self._script.history_ends_with:
            self._history_over = True
            if self._waiting:
                return self._step(None)
        if self._notes.replaying or self._waiting or self._outcome is not None:
            return []
        return self._telling.update(told)

    def _answered(self, message: rpc.Response) -> list[Update]:
        if message.id != self._call or self._outcome is not None or self._waiting:
            text = f"the agent answers {message.id!r}, which was not asked"[:300]
            return [Warned(code="unasked_answer", message=text, retryable=False)]
        return self._step(message)

    def _step(self, answer: rpc.Response | None) -> list[Update]:
        """Go on with the conversation by one answer; its next request becomes an errand."""
        self._begun = self._begun or answer is not None
        self._waiting = False
        ended: list[Update] = []
        try:
            wish = self._talk.send(answer)
        except StopIteration as stop:
            ended = self._ended(stop.value)
        else:
            if isinstance(wish, Call):
                self._call += 1
                data = rpc.request(self._call, wish.method, wish.params)
                self._errands.append(Say(key=rpc.key_of_call(self._call), data=data))
            elif self._history_over:
                return self._step(None)
            else:
                self._waiting = True
        news, self._notes.news = self._notes.news, []
        return [*news, *ended]

    def _ended(self, outcome: TurnOutcome) -> list[Update]:
        last = self._telling.end()
        usage = self._telling.spending.result(self._notes.result)
        self._outcome = self._true(outcome)
        updates: list[Update] = [*last, *([UsageReported(usage=usage)] if usage else [])]
        if self._notes.lasting and self._telling.spending.cost != self._script.cost_before:
            cost = self._telling.spending.cost
            updates.append(SessionKnown(state=state_of(self._script, self._notes.session, cost)))
        open_asks = [key for key, pending in self._pending.items() if pending.asked is not None]
        self._pending.clear()
        return [*updates, *(Withdrawn(key=key) for key in open_asks)]

    def _true(self, outcome: TurnOutcome) -> TurnOutcome:
        """Some answer a failed turn like a good one."""
        speech, prefix = self._telling.speech, self._script.error_prefix
        if outcome.failure is not None or outcome.stop_reason == "cancelled":
            return outcome
        if self._telling.broken:
            return TurnOutcome(failure=by_words(speech.last.strip() or "the agent reports an error"))
        if (
            prefix is not None
            and speech.last_piece.strip().startswith(prefix)
            and not self._notes.result.get("usage")
        ):
            said = speech.last_piece.strip()
            status = _STATUS.search(said)
            return TurnOutcome(failure=by_status(int(status[1]), said) if status else by_words(said))
        return outcome

    # what the agent asks

    def _requested(self, message: rpc.Request) -> list[Update]:
        self._seen[message.id] += 1
        copy = self._seen[message.id] - 1
        key = rpc.key_of_reply(message.id, copy)
        if copy:
            data = rpc.refusal(message.id, rpc.INVALID_REQUEST, "this id was used before", copied(copy))
            self._errands.append(Say(key=key, data=data))
            return [
                Warned(code="id_used_twice", message=f"the agent asks {message.method} under an id of before")
            ]
        if self._outcome is not None:
            self._refuse(message.id, key, rpc.INVALID_REQUEST, "the turn is over")
            return []
        try:
            return self._taken_up(message, key)
        except Unfit as unfit:
            self._refuse(message.id, key, unfit.code, str(unfit))
            return [Warned(code="unfit_request", message=f"{message.method}: {unfit}"[:500], retryable=False)]

    def _taken_up(self, message: rpc.Request, key: str) -> list[Update]:
        params, before = message.params, list[Update]()
        match message.method:
            case "session/request_permission":
                call, before = self._telling.call(as_object(params.get("toolCall")))
                asked, leave = permission(params, key, call)
                self._asked_for.append(_Granted(key, leave))
                return [*before, *self._wait(message, key, asked, leave)]
            case "elicitation/create" if self._script.forms:
                if (put := form(params, key)) is not None:
                    return self._wait(message, key, *put)
                self._errands.append(Say(key=key, data=rpc.reply(message.id, DECLINED)))
                return [
                    Warned(
                        code="form_declined",
                        message="the agent's form asks more than one thing",
                        retryable=False,
                    )
                ]
            case "fs/read_text_file" if self._script.reads:
                return self._wait(message, key, *reading(params, key))
            case "fs/write_text_file" if self._script.writes:
                return self._wait(message, key, *writing(params, key))
            case "terminal/create" if self._script.terminals:
                asked, deed = terminal(params, key, f"terminal-{len(self._limits) + 1}")
                self._limits[deed.terminal] = deed.output_bytes
                return self._wait(message, key, asked, deed)
            case method if (use := use_of_terminal(method, params, key, self._limits)) is not None:
                self._pending[key] = Pending(id=message.id, key=key, copy=0, asked=None, wanted=use)
                self._errands.append(use)
                return []
            case _:
                self._refuse(message.id, key, rpc.METHOD_NOT_FOUND, "there is no such method here")
                return [Custom(name=f"acp.{message.method}"[:200], data=params)]

    def _wait(
        self, message: rpc.Request, key: str, asked: Asked, wanted: Permission | Form | Deed
    ) -> list[Update]:
        """The request waits for an answer, unless leave for it has been given, or it was answered already."""
        covered = not isinstance(wanted, Permission | Form) and self._is_covered(wanted)
        if key in self._replies:
            return []
        question = None if covered else asked
        self._pending[key] = Pending(id=message.id, key=key, copy=0, asked=question, wanted=wanted)
        if covered and not isinstance(wanted, Permission | Form):
            self._errands.append(wanted)
        return [] if covered else [asked]

    def _is_covered(self, deed: Deed) -> bool:
        for granted in self._asked_for:
            said = as_object(as_object(self._replies.get(granted.key)).get("result"))
            option = as_object(said.get("outcome")).get("optionId")
            if granted.key in self._used or not granted.permission.allows(option):
                continue
            if covers(granted.permission, deed, self._script.workspace):
                if not isinstance(deed, ReadText):
                    self._used.add(granted.key)
                return True
        return False

    def _withdrawn(self, id: object) -> list[Update]:
        key = rpc.key_of_reply(id) if isinstance(id, int | str) else ""
        pending = self._pending.pop(key, None)
        if pending is None:
            return []
        self._refuse(pending.id, key, REQUEST_CANCELLED, "cancelled")
        return [Withdrawn(key=key)] if pending.asked is not None else []

    def _refuse(self, id: rpc.Id, key: str, code: int, why: str) -> None:
        self._errands.append(Say(key=key, data=rpc.refusal(id, code, why)))

    def _unreadable(self, message: rpc.Broken) -> list[Update]:
        if message.id is not None and not self._seen[message.id] and message.id != self._call:
            self._seen[message.id] += 1
            self._refuse(message.id, rpc.key_of_reply(message.id), rpc.INVALID_REQUEST, message.why)
        return [
            Warned(
                code="unfit_message", message=f"the agent sent no fit message: {message.why}", retryable=False
            )
        ]

    def _too_long(self, line: bytes, total: int) -> list[Update]:
        """It cannot be read, but whoever waits for an answer to it shall not wait for ever."""
        output = Output(stream="stdout", data=line, total=total)
        id, method = rpc.head_of(line)
        if id is None or self._outcome is not None:
            return [output]
        if method is not None:
            self._seen[id] += 1
            if self._seen[id] == 1:
                why = f"a message may have {LONGEST_LINE} bytes, this one has {total}"
                self._refuse(id, rpc.key_of_reply(id), rpc.INVALID_REQUEST, why)
        elif id == self._call:
            failure = Failure(
                code="message_too_long", message=shortened(f"an answer has {total} bytes"), retryable=True
            )
            return [output, *self._ended(TurnOutcome(failure=failure))]
        return [output]
