"""The prompt of a turn. What is read from the workspace is gathered first; putting it together is pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.domain.event import canonical
from overnight.domain.session import SessionMessage
from overnight.domain.spec import RunSpec
from overnight.domain.text import cut_utf8, plain
from overnight.ports.workspace import Workspaces

MAX_LOG: Final = 48_000
"""Bytes of each log; a longer one is cut from the top."""
MAX_REFERENCE: Final = 64_000
"""Bytes of each reference file; a longer one is cut at the end."""
MAX_REFERENCES: Final = 400_000
"""Bytes of all reference files together."""
MESSAGES: Final = 100
"""How many of a session's messages go into the prompt of a backend that cannot resume."""
MAX_MESSAGE: Final = 8_000
MAX_HISTORY: Final = 200_000
MAX_VARIABLES: Final = 32_000
"""Bytes of a session's variables in a prompt."""

INSTRUCTIONS: Final = """\
You are working through a longer piece of work in several turns, unattended. Between turns you may forget everything \
that is not written down, so the two logs below are your memory and the only thing the next turn can rely on.

At the start of every turn
1. Read the work log and the decision log first. They say what is done and what comes next.
2. Look at the workspace as it is now; where it differs from the logs, the workspace is right.

While you work
3. Take the next step towards the goal and finish it properly before you begin another.
4. Work test-first: write the test that shows what is missing, see it fail, then make it pass. Run all tests \
before you stop.
5. Never drop, weaken or postpone a requirement on your own. Where one seems wrong, unclear or impossible, write the \
question as a line of its own into {questions} and go on with what does not depend on the answer.
6. When you decide something that a later reader could wonder about, add an entry to {decision_log}: \
Context / Decision / Rationale / Alternatives / Impact.

At the end of every turn
7. Add an entry to {log} with the headings Completed / Current status / Next steps / Tests / Blockers. \
Only add to the logs; never rewrite what earlier turns have written.
8. {ending}"""

_STOP: Final = (
    "When the whole goal is reached, and only then, create the file {stop_file}. It ends the work; "
    "until it exists there will be another turn."
)
_NO_STOP: Final = "When the whole goal is reached, say so plainly in the log and in your last message."
_PATTERN: Final = " Also write a line that matches this regular expression into {log}: {pattern}"

TEMPLATES: Final = {
    "work": """\
# Work log

One entry for each turn, the newest at the end:

## Turn N
### Completed
### Current status
### Next steps
### Tests
### Blockers
""",
    "decision": """\
# Decision log

One entry for each decision, the newest at the end:

## Title
### Context
### Decision
### Rationale
### Alternatives
### Impact
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A file of the workspace as it goes into the prompt. `size` is the whole file's, in bytes."""

    path: str
    text: str
    size: int
    cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the workspace contributes to a prompt."""

    work_log: Excerpt | None = None
    decision_log: Excerpt | None = None
    references: tuple[Excerpt, ...] = ()


def make_logs(workspaces: Workspaces, workspace: Path, spec: RunSpec) -> tuple[str, ...]:
    """Create the missing logs of a continuous run from templates; the paths created. Blocks on the disk."""
    wanted = ((spec.completion.log, TEMPLATES["work"]), (spec.prompt.decision_log, TEMPLATES["decision"]))
    return tuple(path for path, text in wanted if workspaces.create_text(workspace, path, text))


def gather(workspaces: Workspaces, workspace: Path | None, spec: RunSpec) -> Material:
    """Read logs and references; what is missing or no plain file beneath the workspace is left out. Blocks."""
    if workspace is None:
        return Material()
    left = MAX_REFERENCES
    references = []
    for path in dict.fromkeys(spec.prompt.references):
        if found := _read_head(workspaces, workspace, path, min(MAX_REFERENCE, left)):
            references.append(found)
            left -= len(found.text.encode("utf-8", "replace"))
    if not spec.keeps_logs:
        return Material(references=tuple(references))
    return Material(
        work_log=_read_tail(workspaces, workspace, spec.completion.log),
        decision_log=_read_tail(workspaces, workspace, spec.prompt.decision_log),
        references=tuple(references),
    )


def assemble(
    spec: RunSpec,
    material: Material,
    *,
    turn: int = 1,
    messages: Sequence[SessionMessage] = (),
    steers: Sequence[str] = (),
    again: bool = False,
    variables: Mapping[str, object] | None = None,
) -> str:
    """The prompt of a turn.

    `messages` is the session's history for a backend that cannot resume, oldest first (empty for one that can);
    `steers` are texts that a person has sent for this turn (in a chat all that is said in it); `again`: this turn was
    abandoned and is done once more; `variables` are the session's.
    """
    if spec.mode == "chat":
        return _chat(material, messages, steers, again=again, variables=variables)
    if spec.mode == "oneshot":
        parts = [spec.goal.strip(), *_references(material), *_history(messages)]
    else:
        parts = [
            _instructions(spec),
            f"# Goal\n\n{spec.goal.strip()}",
            *_state(material, turn),
            *_history(messages),
            *_references(material),
        ]
    parts += [*_variables(variables), *_notices(steers, again=again)]
    if spec.mode != "oneshot":
        parts.append(
            "# Begin work\n\nThis is turn " + f"{turn}. Read the logs above, then take the next step now."
        )
    return "\n\n".join(parts) + "\n"


def _chat(
    material: Material,
    messages: Sequence[SessionMessage],
    said: Sequence[str],
    *,
    again: bool,
    variables: Mapping[str, object] | None,
) -> str:
    """Just what is said, where nothing else has to be told; else that comes first and the message last."""
    before = [*_references(material), *_history(messages), *_variables(variables), *_notices((), again=again)]
    text = "\n\n".join(words.strip() for words in said)
    parts = [*before, f"# The message to answer now\n\n{text}"] if before and text else [*before, text]
    return "\n\n".join(part for part in parts if part) + "\n"


def _variables(variables: Mapping[str, object] | None) -> list[str]:
    """The session's variables as JSON, in a fence that nothing in them can close."""
    if not variables:
        return []
    body = _shortened(plain(canonical(dict(variables)).decode()), MAX_VARIABLES)
    fence = "`" * max(3, _longest_run(body) + 1)
    return [f"# Variables of this session\n\n{fence}json\n{body}\n{fence}"]


def _instructions(spec: RunSpec) -> str:
    if spec.prompt.instructions is not None:
        return spec.prompt.instructions.strip()
    stop, pattern = spec.completion.stop_file, spec.completion.pattern
    ending = _STOP.format(stop_file=stop) if stop else _NO_STOP
    if pattern:
        ending += _PATTERN.format(log=spec.completion.log, pattern=pattern)
    return INSTRUCTIONS.format(
        questions=spec.prompt.questions,
        decision_log=spec.prompt.decision_log,
        log=spec.completion.log,
        ending=ending,
    )


def _state(material: Material, turn: int) -> list[str]:
    logs = [("Work log", material.work_log), ("Decision log", material.decision_log)]
    shown = [_excerpt(f"## {name}", log) for name, log in logs if log is not None]
    nothing = (
        "Nothing has been written down yet." if turn == 1 else "The logs are missing: look at the workspace."
    )
    return ["# Current state: read this first", *(shown or [nothing])]


def _excerpt(heading: str, excerpt: Excerpt) -> str:
    body = plain(excerpt.text).strip("\n")
    fence = "`" * max(3, _longest_run(body) + 1)
    return f"{heading}: {excerpt.path}\n\n{fence}\n{body}\n{fence}"


def _references(material: Material) -> list[str]:
    if not material.references:
        return []
    return ["# Reference files", *(_excerpt("## File", excerpt) for excerpt in material.references)]


def _history(messages: Sequence[SessionMessage]) -> list[str]:
    """The end of the conversation; whole messages, the newest kept."""
    shown: list[str] = []
    left = MAX_HISTORY
    for message in reversed(messages[-MESSAGES:]):
        text = _shortened(plain(message.text).strip(), MAX_MESSAGE)
        left -= len(text.encode("utf-8", "replace"))
        if left < 0:
            break
        shown.append(f"## {message.role.capitalize()}\n\n{text}")
    if not shown:
        return []
    return ["# The conversation so far", *reversed(shown)]


def _notices(steers: Sequence[str], *, again: bool) -> list[str]:
    found = []
    if again:
        found.append(
            "# This turn is being done again\n\nAn earlier try at this turn was cut off. Its changes may be in the "
            "workspace, complete or in part: look before you repeat anything."
        )
    if steers:
        texts = "\n\n".join(text.strip() for text in steers)
        found.append(
            f"# New instructions from a person\n\nThey take precedence over the plan in the logs.\n\n{texts}"
        )
    return found


def _read_tail(workspaces: Workspaces, workspace: Path, path: str) -> Excerpt | None:
    found = workspaces.read_text(workspace, path, limit=MAX_LOG)
    if found is None:
        return None
    text, size = found
    if size <= MAX_LOG:
        return Excerpt(path=path, text=text, size=size, cut=False)
    text = text[text.find("\n") + 1 :]
    note = f"[… the first {size - len(text.encode('utf-8', 'replace'))} bytes are left out …]\n"
    return Excerpt(path=path, text=note + text, size=size, cut=True)


def _read_head(workspaces: Workspaces, workspace: Path, path: str, limit: int) -> Excerpt | None:
    found = workspaces.read_text(workspace, path, limit=4 * MAX_REFERENCES) if limit > 0 else None
    if found is None:
        return None
    text, size = found
    if size <= limit:
        return Excerpt(path=path, text=text, size=size, cut=False)
    if size > 4 * MAX_REFERENCES:
        text = f"[… only the end of {size} bytes is shown …]\n" + text[-limit // 4 :]
    return Excerpt(path=path, text=_shortened(text, limit), size=size, cut=True)


def _shortened(text: str, limit: int) -> str:
    head = cut_utf8(text, limit)
    return text if head == text else head + "\n[… the rest is left out …]"


def _longest_run(text: str) -> int:
    """The longest run of backquotes, so that a fence around `text` cannot be closed from inside."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest
