"""The root command: a table of names, so that help and completion load no command that is not run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import typer
from typer.core import TyperGroup

from overnight.cli import exits

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter


class Entry(NamedTuple):
    """Where a command lives, and the line that help shows for it."""

    module: str
    name: str
    summary: str


COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry("up", "up", "Start the server, its worker and the web interface, in the foreground."),
    "worker": Entry(
        "worker", "worker", "Carry out runs for servers on the same database, or for a server elsewhere."
    ),
    "run": Entry("run", "run", "Hand over a goal and watch an agent work on it."),
    "ls": Entry("runs", "ls", "List runs, newest first."),
    "show": Entry("runs", "show_run", "Show one run: state, figures, turns."),
    "watch": Entry(
        "watch", "watch", "Follow a run live until it ends; without a run, every change of all runs."
    ),
    "logs": Entry("runs", "logs", "Print what was recorded of a run; to go on watching: overnight watch."),
    "diff": Entry("diff", "diff", "Show what a run changed in its workspace: figures, or a file's patch."),
    "pause": Entry("control", "pause", "Let runs stand still after their turn, or at once with --now."),
    "resume": Entry("control", "resume", "Let runs go on, with raised limits if need be."),
    "cancel": Entry("control", "cancel", "Stop runs and everything that they started."),
    "steer": Entry("control", "steer", "Send a text to the agent of a run."),
    "retry": Entry("control", "retry", "Start a failed or cancelled run again, as a new run."),
    "chat": Entry("chat", "chat", "Talk with an agent in a session, line by line."),
    "sessions": Entry("sessions", "app", "Sessions: conversations and their context, which outlive runs."),
    "approvals": Entry("approvals", "approvals", "Show what waits for a person, and the ways to decide."),
    "approve": Entry("approvals", "approve", "Allow exactly what is shown, once; or raise a spent budget."),
    "deny": Entry(
        "approvals", "deny", "Reject what is shown; of a spent budget, let the run finish as it is."
    ),
    "answer": Entry("approvals", "answer", "Answer a question, or choose any option of an approval."),
    "acp": Entry(
        "acp", "acp", "Be the agent of an editor: the Agent Client Protocol over standard input and output."
    ),
    "agent": Entry(
        "agent",
        "agent",
        "Be a coding agent: the Agent Client Protocol over standard input and output.",
    ),
    "tools": Entry("tools", "app", "Offer tools to agents and programs, and call those that are on offer."),
    "backends": Entry("backends", "app", "The agent programs that are on offer, and whether they are ready."),
    "models": Entry("models", "models", "List the models that the server has for agents, the default first."),
    "workers": Entry("workers", "app", "See the workers, drain them, and release them from quarantine."),
    "doctor": Entry(
        "doctor", "doctor", "Look for what is wrong with this installation, and say how to mend it."
    ),
    "db": Entry("db", "app", "Upgrade, back up, restore, check and copy the database."),
    "config": Entry("config", "app", "The settings in force, and where each came from."),
    "token": Entry("token", "app", "Make, list and revoke access tokens."),
    "upgrade": Entry(
        "upgrade",
        "upgrade",
        "Let this version take over from the server that runs; back again if that fails.",
    ),
    "handover": Entry(
        "handover", "handover", "End the server and leave its agents working for the next one."
    ),
}


class LazyCommands(MutableMapping[str, Any]):
    """The commands by name; one is imported when it is looked up."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def load(name: str) -> Any:
    """The command of that name, imported now. Raises KeyError for a name that is not in the table."""
    entry = COMMANDS[name]
    found = getattr(import_module(f"overnight.cli.{entry.module}"), entry.name)
    if isinstance(found, typer.Typer):
        group = typer.main.get_command(found)
        group.name = name
        return group
    single = new_app()
    single.command(name)(found)
    command = typer.main.get_command(single)
    command.name = name
    return command


class Root(TyperGroup):
    """Shows help from the table; completes names from it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands()

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Names and summaries, without loading anything."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: Context, incomplete: str) -> list[Any]:
        """Names from the table."""
        from typer._click.shell_completion import CompletionItem

        del ctx
        return [
            CompletionItem(name, help=e.summary)
            for name, e in COMMANDS.items()
            if name.startswith(incomplete)
        ]


def new_app(**options: Any) -> typer.Typer:
    """A Typer app as all of ours are: plain help (rich would cost 200 ms), no fancy tracebacks."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
    plain: dict[str, Any] = {
        "rich_markup_mode": None,
        "pretty_exceptions_enable": False,
        "add_completion": False,
    }
    return typer.Typer(context_settings=settings, **plain | options)


def root() -> Any:
    """The whole command line, for running it and for the reference page."""
    app = new_app(cls=Root, no_args_is_help=True, name="overnight", help=HELP, add_completion=True)
    app.callback()(_options)
    return typer.main.get_command(app)


HELP: Final = """Coding agents as durable jobs.

Exit status: 0 done · 1 the run failed, or the server refused · 2 wrong usage or settings · 3 another server holds the
data · 4 no server answers · 5 the run waits for a person · 130 interrupted."""


def _version(wanted: bool) -> None:
    if wanted:
        from overnight.version import VERSION

        sys.stdout.write(f"overnight {VERSION}\n")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    del version


def run(arguments: list[str] | None = None) -> None:
    """Run the command line (None: this process's own) and exit with words where something goes wrong."""
    with exits.told():
        root()(arguments, prog_name="overnight")
