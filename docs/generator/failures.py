"""The page of failure codes, whose meanings stand here and whose list is held against the code."""

import ast
import sys
from pathlib import Path

from generator.markup import table

SOURCE = Path(__file__).resolve().parents[2] / "src" / "overnight"
FAILURES = {
    "agent_exit": "the program ended with a status that is not 0, and said nothing better",
    "agent_killed": "the program was ended by a signal that we did not send",
    "agent_silent": "the agent was not ready for its prompt within two minutes",
    "attempts_exhausted": "one turn was tried `limits.attempts` times without success",
    "not_here": "a run of the backend `remote` reached a worker of ours; it is for those that lease over REST",
    "bad_request": "the model service does not accept the request",
    "bad_stream": "the model service sent something that is not what it should be",
    "budget_spent": "a budget is spent and `limits.on_spent` is `fail`",
    "children_limit": "the agent had more processes than `limits.children`",
    "condition_not_met": "the run ended by its limit of turns, or idle, without the condition that it was given",
    "context_exceeded": "the conversation is longer than the model takes",
    "event_limit": "the run has recorded `limits.events` events",
    "fenced": "the keeper ended the agent because no server renewed its hold",
    "forbidden": "the model service refuses this key this",
    "home_in_temporary_folder": "the program cannot work safely with its home in the temporary folder",
    "internal": "a fault of Overnight's own; the log has the details",
    "keeper_failed": "the keeper could not start the program or take care of it",
    "keeper_lost": "keeper and agent are gone, and there is no record of the end",
    "keeper_terminated": "somebody ended the keeper, which ended the agent in order",
    "key_missing": "the program wants a key that is not set",
    "key_refused": "the model service does not accept the key",
    "login_missing": "there is neither a key nor a login",
    "message_too_long": "an answer of the agent is longer than a message of the protocol may be",
    "mode_refused": "the agent does not take the mode that the run's policy or sandbox needs",
    "model_timeout": "the model service did not answer in time",
    "model_unavailable": "the model service has a fault or is overloaded",
    "not_found": "the model service does not know the model",
    "output_limit": "the agent printed more than `limits.output_bytes`",
    "preflight_failed": "the backend's check failed when the run was to begin",
    "program_broken": "the program does not even say its version",
    "program_missing": "the program was not found, or may not be executed",
    "program_unfit": "the program that was found must not be driven: it would obey what a workspace brings along",
    "protocol_error": "the agent does not keep to its protocol",
    "protocol_version": "the agent speaks another version of its protocol",
    "rate_limited": "the model service asks to slow down",
    "sandbox_failed": "the sandbox could not be made, so the agent was not started",
    "sandbox_unavailable": "the agent cannot be confined on this host",
    "service_unverified": "the model service could not be asked whether the key is good",
    "session_lost": "the program does not know its own session any more; the next try begins a new one",
    "stopped": "the turn was stopped on request",
    "stream_cut": "the connection to the model service broke",
    "turn_failed": "the program reported an error in words that are not known",
    "turn_timeout": "the turn took longer than `limits.turn_timeout_s`",
    "unauthorized": "the model service does not accept the key or login",
    "unknown_setting": "the agent does not offer the model, effort or mode that the run names",
    "usage_limit": "the account's limit or credit is used up for now",
    "version_unknown": "the program does not tell its version",
    "version_untried": "the program's version is not one that was tried; it may work all the same",
}


def failure_codes() -> set[str]:
    """Every code that the code gives to the failure of a turn or run, or to a problem that a preflight finds."""
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        if SOURCE / "testing" in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call):
                found |= _code_of(node, path)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and path.name == "failures.py":
                found |= {
                    c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and c.value in FAILURES
                }
    return {str(code) for code in found}


def _code_of(call: ast.Call, path: Path) -> set[object]:
    name = ast.unparse(call.func).split(".")[-1]
    given = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
    if name in ("fail", "warn") and path.parent.parent.name == "backends" and call.args:
        given = [call.args[0]]
    elif name not in ("Failure", "BackendFailure"):
        return set()
    return {code.value for code in given if isinstance(code, ast.Constant)}


def failures_page() -> str:
    """Every code that the `error` of a turn or run, or a problem of a preflight, may carry."""
    known, used = set(FAILURES), failure_codes()
    if known != used:
        sys.exit(
            f"docs/generate.py: FAILURES lacks {sorted(used - known)} and names unused {sorted(known - used)}"
        )
    return (
        "# Failures\n\n"
        "What the `error` of a run or turn says, and the problems that a backend's check finds. `retryable` beside it\n"
        "is true only when trying again may really help. Where an error of Overnight's own is the cause, its code\n"
        "from [errors](errors.md) stands here.\n\n"
        + table(("code", "means"), ((f"`{code}`", text) for code, text in sorted(FAILURES.items())))
    )
