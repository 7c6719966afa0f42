"""The one exception tree. Each class has a stable `code`, the HTTP status a server answers with, and a short title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class OvernightError(Exception):
    """Base of every error that Overnight raises on purpose.

    `detail` says what was wrong and where, `mend` how to put it right, `extra` holds members for the problem document.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong inside Overnight"

    def __init__(
        self, detail: str = "", *, mend: str = "", extra: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.mend = mend
        self.extra = dict(extra or {})


class InvalidInput(OvernightError):
    """A request that cannot be carried out as it stands."""

    code = "invalid_request"
    status = 422
    title = "The request is not valid"


class InvalidId(InvalidInput):
    """Text that is not an id of the expected kind."""

    code = "invalid_id"
    title = "Not a valid id"


class InvalidCursor(InvalidInput):
    """A page cursor or stream position that this server did not give out."""

    code = "invalid_cursor"
    title = "Not a valid cursor"


class InvalidPattern(InvalidInput):
    """A completion pattern that is no linear-time regular expression (RE2 syntax)."""

    code = "invalid_pattern"
    title = "The pattern is not a valid regular expression"


class EnvironmentRefused(InvalidInput):
    """An environment variable that a request may not set."""

    code = "environment_refused"
    title = "That environment variable may not be set"


class WorkspaceRefused(InvalidInput):
    """A workspace outside the configured roots, missing, not a directory, or not writable."""

    code = "workspace_refused"
    title = "That workspace cannot be used"


class StopFilePresent(InvalidInput):
    """The stop file is there before the run has begun, so it could only complete by mistake."""

    code = "stop_file_present"
    title = "The stop file is already there"


class ModeUnavailable(InvalidInput):
    """A mode that this server does not offer."""

    code = "mode_unavailable"
    title = "That mode is not available"


class PolicyUnsupported(InvalidInput):
    """An approval policy that the chosen backend cannot ask for."""

    code = "policy_unsupported"
    title = "The backend cannot ask for approvals"


class SandboxUnavailable(InvalidInput):
    """The sandbox asked for cannot be had on this host, and the operator requires it."""

    code = "sandbox_unavailable"
    title = "The sandbox cannot be had on this host"


class UnknownBackend(InvalidInput):
    """No backend of that name is configured."""

    code = "unknown_backend"
    title = "No such backend"


class UnknownAgent(InvalidInput):
    """No agent profile of that name is configured."""

    code = "unknown_agent"
    title = "No such agent profile"


class UnknownSecret(InvalidInput):
    """The operator holds no secret of that name."""

    code = "unknown_secret"
    title = "No such secret"


class BackendNotReady(InvalidInput):
    """The preflight of the backend is known to fail."""

    code = "backend_not_ready"
    title = "The backend is not ready"


class UnknownOption(InvalidInput):
    """The approval offers no such option, or the option takes no such changes."""

    code = "unknown_option"
    title = "The approval has no such option"


class IdempotencyKeyReused(InvalidInput):
    """The same Idempotency-Key came with another body."""

    code = "idempotency_key_reused"
    title = "That Idempotency-Key was used for another request"


class CountMismatch(InvalidInput):
    """A bulk action met another number of runs than the caller expected; nothing was done."""

    code = "count_mismatch"
    title = "The number of runs is not the expected one"


class MalformedRequest(OvernightError):
    """Bytes that are no HTTP request."""

    code = "malformed_request"
    status = 400
    title = "That is not an HTTP request"


class Unauthorized(OvernightError):
    """No credential, or one that is not valid."""

    code = "unauthorized"
    status = 401
    title = "A valid token is needed"


class Forbidden(OvernightError):
    """A valid credential that may not do this."""

    code = "forbidden"
    status = 403
    title = "That is not allowed"


class AboveCeiling(Forbidden):
    """The request asks for more than the operator's ceilings."""

    code = "above_ceiling"
    title = "Above the operator's ceiling"


class OriginRefused(Forbidden):
    """A Host or Origin that is not on the allow-list."""

    code = "origin_refused"
    title = "That host or origin is not allowed"


class NotFound(OvernightError):
    """No such thing, or not one that the caller may see."""

    code = "not_found"
    status = 404
    title = "Not found"


class MethodNotAllowed(OvernightError):
    """The path is known, the method is not."""

    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"


class Conflict(OvernightError):
    """The thing is not in a state that allows this."""

    code = "conflict"
    status = 409
    title = "Not possible in this state"


class InvalidTransition(Conflict):
    """A state machine was given an input that its state does not accept."""

    code = "invalid_transition"
    title = "Not possible in this state"

    def __init__(self, state: str, input: str) -> None:
        super().__init__(
            f"a run that is {state} does not accept {input!r}", extra={"state": state, "input": input}
        )
        self.state = state
        self.input = input


class ApprovalPending(Conflict):
    """The run waits for a decision, which `resume` alone does not give."""

    code = "approval_pending"
    title = "The run waits for a decision"


class AlreadyDecided(Conflict):
    """Somebody else has decided otherwise; the decision that counts comes with the error."""

    code = "already_decided"
    title = "The approval has been decided otherwise"


class ActionChanged(Conflict):
    """What would happen is no longer what was shown: other arguments, another file, a link in its place."""

    code = "action_changed"
    title = "The action has changed since it was shown"


class StaleVersion(Conflict):
    """Somebody else has changed the session meanwhile; the present version comes with the error."""

    code = "stale_version"
    title = "The session was changed by somebody else"


class SessionExpired(Conflict):
    """The session was left alone for too long and takes nothing any more; it can still be read and deleted."""

    code = "session_expired"
    title = "The session has expired"


class SessionBusy(Conflict):
    """A run of the session is not final."""

    code = "session_busy"
    title = "The session has a live run"


class MessageTaken(Conflict):
    """A turn has begun with the message already."""

    code = "message_taken"
    title = "The message no longer waits"


class RunNotFinal(Conflict):
    """Only a run that has ended can be deleted or retried."""

    code = "run_not_final"
    title = "The run has not ended"


class OnAnotherHost(Conflict):
    """What is asked for lies in the data directory of another host; `extra` names it as `host_id` and `host`."""

    code = "on_another_host"
    title = "The files lie on another host"


class LeaseLost(Conflict):
    """The caller no longer holds the run: wrong token, or a lease that has run out."""

    code = "lease_lost"
    title = "The lease is lost"


class StaleFacts(Conflict):
    """The run has changed since the worker last heard of it; what is true now comes with the refusal.

    `facts` is that, as whoever raises it knows it. `place_free`: whether the workspace can be had, where that was
    what the worker had got wrong.
    """

    code = "stale_facts"
    title = "The run has changed meanwhile"

    def __init__(
        self, detail: str = "", *, mend: str = "", extra: Mapping[str, object] | None = None,
        facts: object = None, place_free: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(detail, mend=mend, extra=extra)
        self.facts = facts
        self.place_free = place_free


class BatchOutOfOrder(Conflict):
    """Batches of one lease are numbered 1, 2, 3 …; this one is not the next, or other content had its number."""

    code = "batch_out_of_order"
    title = "That is not the next batch"


class Gone(OvernightError):
    """It was there and is no longer."""

    code = "gone"
    status = 410
    title = "No longer there"


class ApprovalOver(Gone):
    """The approval has expired or was cancelled: nothing can be decided any more."""

    code = "approval_over"
    title = "The approval is over"


class StreamTrimmed(Gone):
    """The events after the given cursor have been trimmed."""

    code = "stream_trimmed"
    title = "Those events have been trimmed"


class BodyTooLarge(OvernightError):
    """A request body over the limit."""

    code = "body_too_large"
    status = 413
    title = "The body is too large"


class UnsupportedMediaType(OvernightError):
    """A request body that is not JSON."""

    code = "unsupported_media_type"
    status = 415
    title = "The body must be JSON"


class TooManyRequests(OvernightError):
    """A rate or connection limit was reached."""

    code = "too_many_requests"
    status = 429
    title = "Too many requests"


class ProtocolError(OvernightError):
    """A message of the socket protocol that cannot be taken as it stands."""

    code = "protocol_error"
    status = 400
    title = "The message breaks the protocol"


class VersionMismatch(ProtocolError):
    """The two sides speak no version in common; `extra` lists those of this side as `supported_versions`."""

    code = "version_mismatch"
    title = "That version of the protocol is not spoken here"


class UnknownType(ProtocolError):
    """A message type that the protocol does not have, or not in that kind of scope."""

    code = "unknown_type"
    title = "No such message type"


class UnexpectedType(ProtocolError):
    """A message type that this side does not send, or not at this moment."""

    code = "unexpected_type"
    title = "Nobody expects that message here"


class InvalidPayload(ProtocolError):
    """A member of a message that is missing or mistyped; `extra` says where it belongs, as `pointer`."""

    code = "invalid_payload"
    title = "The message is not what its type says"


class InvalidSequence(ProtocolError):
    """A sequence number that is no integer from 1."""

    code = "invalid_sequence"
    title = "Not a sequence number"


class DuplicateSequence(ProtocolError):
    """A sequence number that the scope has had."""

    code = "duplicate_sequence"
    title = "That sequence number was used"


class SequenceGap(ProtocolError):
    """Messages of the scope are missing; `extra` says `expected` and `received`."""

    code = "sequence_gap"
    title = "Messages are missing"


class UnknownScope(ProtocolError):
    """The scope has not been opened on this connection."""

    code = "unknown_scope"
    title = "No such scope"


class ScopeExists(ProtocolError):
    """The scope is open already."""

    code = "scope_exists"
    title = "The scope is open already"


class ScopeOver(ProtocolError):
    """The scope has had its terminal message; nothing goes into it any more."""

    code = "scope_over"
    title = "The scope is over"


class CreditExceeded(ProtocolError):
    """More was sent in the scope than its reader had granted."""

    code = "credit_exceeded"
    title = "More than was granted"


class TooSlow(ProtocolError):
    """The reader did not keep up, and the scope was to fail rather than to wait."""

    code = "too_slow"
    title = "The reader does not keep up"


class Disconnected(ProtocolError):
    """The connection was cut, and what belonged to it could not be taken up again."""

    code = "disconnected"
    title = "The connection was cut"


class NotAvailable(ProtocolError):
    """A request that the protocol has and this side does not serve."""

    code = "not_available"
    title = "That is not available here"


class Unavailable(OvernightError):
    """Not now: the server is draining, or a part that it needs is away."""

    code = "unavailable"
    status = 503
    title = "Not available now"


class Draining(Unavailable):
    """The server is shutting down and takes no new work."""

    code = "draining"
    title = "The server is shutting down"


class OutcomeUnknown(Unavailable):
    """A commit failed in such a way that nobody knows whether it took place: read again before trying again."""

    code = "outcome_unknown"
    title = "Whether this was stored is not known"


class DiskFull(OvernightError):
    """Too little disk is left to accept new work; reads and cancels go on."""

    code = "disk_full"
    status = 507
    title = "The disk is too full"


class StartRefused(OvernightError):
    """The server will not start like this."""

    code = "start_refused"
    title = "The server cannot start"


class DataInUse(StartRefused):
    """Another server holds the data directory (exit code 3)."""

    code = "data_in_use"
    title = "Another server holds the data"


class UnsafeDatabase(StartRefused):
    """A SQLite library or database file that could corrupt or has been made by a newer Overnight."""

    code = "unsafe_database"
    title = "The database cannot be used safely"


class SchemaOutdated(StartRefused):
    """The shared database has the schema of an earlier Overnight; nobody changes it without being told to."""

    code = "schema_outdated"
    title = "The database has an older schema"


class ConfigInvalid(StartRefused):
    """A setting that makes no sense; says which and where it came from."""

    code = "config_invalid"
    title = "The configuration is not valid"


class BackendFailure(OvernightError):
    """An agent program could not be started or talked to; `retryable` says whether trying again may help."""

    code = "backend_failure"
    title = "The backend failed"

    def __init__(self, detail: str, *, code: str, retryable: bool, mend: str = "") -> None:
        super().__init__(detail, mend=mend)
        self.failure_code = code
        self.retryable = retryable


class ModelError(OvernightError):
    """A model's provider failed, or what it said made no sense; `retryable` says whether trying again may help.

    `retry_after_s`: how long to wait before that, where the provider said so.
    """

    code = "provider_error"
    status = 502
    title = "The model's provider failed"
    may_help: ClassVar[bool] = True

    def __init__(
        self, detail: str = "", *, mend: str = "", extra: Mapping[str, object] | None = None,
        retryable: bool | None = None, retry_after_s: float | None = None,
    ) -> None:  # fmt: skip
        self.retryable = self.may_help if retryable is None else retryable
        said: dict[str, object] = {"retryable": self.retryable}
        if retry_after_s is not None:
            said["retry_after_s"] = retry_after_s
        super().__init__(detail, mend=mend, extra={**said, **(extra or {})})
        self.retry_after_s = retry_after_s


class ModelNotFound(ModelError):
    """No model of that name is configured, or its provider does not know it."""

    code = "model_not_found"
    status = 422
    title = "No such model"
    may_help = False


class AuthRequired(ModelError):
    """The operator has given no key for the model's provider, or the provider does not take it."""

    code = "auth_required"
    status = 503
    title = "The model's provider wants a valid key"
    may_help = False


class RateLimited(ModelError):
    """The provider's limit, or ours, has been reached; wait and try again."""

    code = "rate_limited"
    status = 429
    title = "The limit has been reached"


class ContextOverflow(ModelError):
    """The conversation is longer than the model can take; make it shorter."""

    code = "context_overflow"
    status = 422
    title = "The conversation is too long for the model"
    may_help = False


class ModelTimeout(ModelError):
    """The model took longer than it is given."""

    code = "model_timeout"
    status = 504
    title = "The model took too long"


class Aborted(ModelError):
    """Somebody gave the answer up."""

    code = "aborted"
    status = 409
    title = "The answer was given up"
    may_help = False


class BudgetSpent(ModelError):
    """The run has used up its tokens or its money: no more answers for it."""

    code = "budget_spent"
    status = 403
    title = "The run's budget is spent"
    may_help = False


class ToolFailure(OvernightError):
    """A tool did not come to a result: it failed in a way of its own."""

    code = "tool_execution_error"
    status = 502
    title = "The tool has failed"


class ToolNotFound(ToolFailure):
    """No tool of that name is on offer to this caller."""

    code = "tool_not_found"
    status = 404
    title = "No such tool"


class ArgumentsRefused(ToolFailure):
    """The arguments of a tool do not fit its schema."""

    code = "invalid_arguments"
    status = 422
    title = "The tool's arguments are not valid"


class ToolTimeout(ToolFailure):
    """The tool took longer than the execution was given."""

    code = "tool_timeout"
    status = 504
    title = "The tool took too long"


class ToolUnavailable(ToolFailure):
    """The host of the tool is not there, or left before the tool had come to a result."""

    code = "tool_unavailable"
    status = 503
    title = "The tool's host is not there"


class ToolTaken(OvernightError):
    """Another host that is there now offers a tool of that name."""

    code = "tool_taken"
    status = 409
    title = "Another host offers that tool"


class LeaveNeeded(ToolFailure):
    """The tool may only be called with a person's leave, and there is none for exactly this call."""

    code = "leave_needed"
    status = 403
    title = "The call needs a person's leave"


class KeeperGone(OvernightError):
    """The keeper of a turn does not answer any more."""

    code = "keeper_gone"
    title = "The keeper is gone"


class WorkspaceUnreadable(OvernightError):
    """A workspace could not be compared or checked out: git is missing, failed, or took too long."""

    code = "workspace_unreadable"
    status = 503
    title = "The workspace could not be read"


class Unreachable(OvernightError):
    """The client found no server (exit code 4)."""

    code = "unreachable"
    title = "No server answers"


class NoReply(Unreachable):
    """A request was sent over the socket, and its reply did not come in time; it may have been carried out."""

    code = "no_reply"
    title = "The reply did not come in time"


class UrlRefused(InvalidInput):
    """A URL to which no socket is opened: of another scheme, or with a user, a token or a fragment in it."""

    code = "url_refused"
    title = "Not a URL for a socket"


class HandshakeFailed(Unreachable):
    """Something answered, but not as a server with our socket does."""

    code = "handshake_failed"
    title = "The socket was not opened"


class AlreadyConnected(Conflict):
    """The socket is open, or is being opened or closed: only one that is over connects."""

    code = "already_connected"
    title = "The socket is already connected"


class NotConnected(Unreachable):
    """There is no connection to send on."""

    code = "not_connected"
    title = "The socket is not connected"


def tree() -> list[type[OvernightError]]:
    """Every class with a code of its own, parents before children; the reference page is made from it."""
    found: list[type[OvernightError]] = [OvernightError]
    for kind in found:
        found.extend(child for child in kind.__subclasses__() if "code" in vars(child))
    return found
