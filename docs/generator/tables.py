"""Pages made from what the code keeps as data: states, events, errors, settings."""

from generator.markup import table
from overnight.config.setting import Setting
from overnight.config.table import CONFIG_VARIABLE, SETTINGS
from overnight.domain.event import FINAL_TYPES, SCHEMA_VERSION, TYPES
from overnight.domain.states import FINAL, HELD, MEANINGS, TRANSITIONS, TURN_TRANSITIONS
from overnight.errors import tree


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
