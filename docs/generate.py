"""Writes the reference pages under docs/reference from the code, or checks that they are up to date.

python docs/generate.py            write every page
python docs/generate.py --check    exit 1 and name each page that differs from the code
"""

import argparse
import ast
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from overnight.config.table import CONFIG_VARIABLE, SETTINGS, Setting
from overnight.domain.event import FINAL_TYPES, SCHEMA_VERSION, TYPES
from overnight.domain.states import FINAL, HELD, MEANINGS, TRANSITIONS, TURN_TRANSITIONS
from overnight.errors import tree

SOURCE = Path(__file__).resolve().parents[1] / "src" / "overnight"
REFERENCE = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code; edit the code, then run `make docs`. -->\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; pipes and line ends inside a cell are made harmless."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def states_page() -> str:
    """Every state of a run, every move between them, and what each input means."""
    kinds = {
        state: "final" if state in FINAL else "held" if state in HELD else "open" for state in TRANSITIONS
    }
    moves = [
        (f"`{state}`", f"`{input}`", f"`{target}`", MEANINGS[input])
        for state, row in TRANSITIONS.items()
        for input, target in row.items()
    ]
    turns = [
        (f"`{state}`", ", ".join(f"`{target}`" for target in sorted(targets)) or "nothing: final")
        for state, targets in TURN_TRANSITIONS.items()
    ]
    return (
        "# States\n\n"
        "A run is in one of these states. *Held* states have a worker with a lease; *final* states accept nothing.\n\n"
        + table(("state", "kind"), ((f"`{state}`", kind) for state, kind in kinds.items()))
        + "\n## Moves of a run\n\nAny other pair is refused: `invalid_transition`, over HTTP a 409 that names both.\n\n"
        + table(("from", "input", "to", "when"), moves)
        + "\n## Moves of a turn\n\n"
        + table(("from", "to"), turns)
    )


def events_page() -> str:
    """Every type of event with its meaning, by family."""
    families: dict[str, list[tuple[str, str]]] = {}
    for name, text in TYPES.items():
        families.setdefault(name.split(".")[0], []).append((f"`{name}`", text))
    return (
        "# Events\n\n"
        "An event is a recorded fact: `{seq, type, run_id, session_id, at, turn, attempt, data}`. Its `seq` has\n"
        "no gap within a stream, and its bytes never change. A reader skips types that it does not know.\n"
        f"The shape of `data` is at version {SCHEMA_VERSION}.\n"
        f"A run's stream ends with one of {', '.join(f'`{name}`' for name in sorted(FINAL_TYPES))}.\n\n"
        + "\n".join(f"## {family}\n\n" + table(("type", "says"), rows) for family, rows in families.items())
    )


def errors_page() -> str:
    """Every error of the tree with its code and HTTP status."""

    def depth(kind: type) -> int:
        return len(kind.__mro__) - 4

    def first_paragraph(kind: type) -> str:
        return (kind.__doc__ or "").split("\n\n")[0]

    kinds = sorted(tree(), key=lambda kind: [base.__name__ for base in reversed(kind.__mro__)])
    return (
        "# Errors\n\n"
        "Every error that Overnight raises on purpose has a code that does not change. Over HTTP it is the `code`\n"
        "of an `application/problem+json` document (RFC 9457); in Python it is a class of `overnight.errors`.\n"
        "Errors with status 500 are met by the operator or in logs, seldom by a client.\n\n"
        + table(
            ("code", "status", "class", "means"),
            (
                (
                    f"`{kind.code}`",
                    str(kind.status),
                    "· " * depth(kind) + kind.__name__,
                    first_paragraph(kind),
                )
                for kind in kinds
            ),
        )
    )


FAILURES = {
    "agent_exit": "the program ended with a status that is not 0, and said nothing better",
    "agent_killed": "the program was ended by a signal that we did not send",
    "attempts_exhausted": "one turn was tried `limits.attempts` times without success",
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
    "model_timeout": "the model service did not answer in time",
    "model_unavailable": "the model service has a fault or is overloaded",
    "not_found": "the model service does not know the model",
    "output_limit": "the agent printed more than `limits.output_bytes`",
    "preflight_failed": "the backend's check failed when the run was to begin",
    "program_broken": "the program does not even say its version",
    "program_missing": "the program was not found, or may not be executed",
    "rate_limited": "the model service asks to slow down",
    "sandbox_unavailable": "the program cannot sandbox commands on this host",
    "service_unverified": "the model service could not be asked whether the key is good",
    "session_lost": "the program does not know its own session any more; the next try begins a new one",
    "stopped": "the turn was stopped on request",
    "stream_cut": "the connection to the model service broke",
    "turn_failed": "the program reported an error in words that are not known",
    "turn_timeout": "the turn took longer than `limits.turn_timeout_s`",
    "unauthorized": "the model service does not accept the key or login",
    "usage_limit": "the account's limit or credit is used up for now",
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


def settings_page() -> str:
    """Every setting: where it may be set, what it takes, its default."""

    def takes(setting: Setting) -> str:
        if setting.choices:
            return " or ".join(f"`{choice}`" for choice in setting.choices)
        bounds = (setting.least is not None, setting.most is not None)
        least, most = f"{setting.least or 0:,.12g}", f"{setting.most or 0:,.12g}"
        limits = {
            (True, True): f" {least} to {most}",
            (True, False): f" from {least}",
            (False, True): f" to {most}",
        }
        return setting.kind + limits.get(bounds, "")

    return (
        "# Settings\n\n"
        "A setting comes from the command line where a command offers it, else from the environment, else from the\n"
        "operator's `overnight.toml` in the user's configuration folder, else it has its default.\n"
        f"`{CONFIG_VARIABLE}` names another file. `overnight config show` says where each value came from.\n"
        "Nothing in a workspace changes a setting.\n\n"
        "In the file, `worker.slots` is the key `slots` of the table `[worker]`.\n\n"
        + table(
            ("key", "environment", "takes", "default", "is for"),
            (
                (
                    f"`{setting.key}`",
                    f"`{setting.variable}`" if setting.variable else "",
                    takes(setting),
                    f"`{setting.default}`" if setting.default else "none",
                    setting.description,
                )
                for setting in SETTINGS
            ),
        )
    )


PAGES: dict[str, Callable[[], str]] = {
    "states": states_page,
    "events": events_page,
    "errors": errors_page,
    "failures": failures_page,
    "settings": settings_page,
}


def pages() -> dict[Path, str]:
    """Every page's place and the content that it should have."""
    return {REFERENCE / f"{name}.md": NOTE + "\n" + make().rstrip() + "\n" for name, make in PAGES.items()}


def stale() -> list[str]:
    """What is wrong with the pages on disk: those that differ, and those that nothing makes."""
    wanted = pages()
    differs = [
        f"{path.name} is not what the code says" for path, text in wanted.items() if _read(path) != text
    ]
    strays = [f"{path.name} is made by nothing" for path in sorted(REFERENCE.glob("*")) if path not in wanted]
    return differs + strays


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> int:
    """Run from the command line; the exit status is 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare, and exit 1 if a page is stale")
    if parser.parse_args().check:
        found = stale()
        for line in found:
            print(f"docs/reference/{line}; run `make docs`", file=sys.stderr)
        return 1 if found else 0
    REFERENCE.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
