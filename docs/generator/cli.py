"""The page of the command line, made from the commands themselves."""

from collections.abc import Iterator
from typing import Any

from generator.markup import fence, table
from overnight.cli.app import root

_KINDS = {"int": "NUMBER", "float": "NUMBER", "Path": "PATH"}


def cli_page() -> str:
    """Every command with its arguments and options."""
    command_line = root()
    return (
        "# Commands\n\n"
        + fence(command_line.help)
        + "\nAnswers go to standard output, words to standard error.\n"
        "With `--json` an answer is one JSON object a line.\n\n"
        + table(("", ""), _options(command_line))
        + "\n"
        + "\n".join(_section(path, command) for path, command in _commands("overnight", command_line))
    )


def _commands(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name in group.commands:
        command = group.commands[name]
        if getattr(command, "hidden", False):
            continue
        if not hasattr(command, "commands"):
            yield f"{path} {name}", command
            continue
        if command.invoke_without_command:
            yield f"{path} {name}", command
        yield from _commands(f"{path} {name}", command)


def _section(path: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = _options(command)
    usage = [path, *(["[OPTIONS]"] if options else []), *(_argument(param) for param in arguments)]
    rows = [(f"`{_name(param)}`", _help(param)) for param in arguments if getattr(param, "help", None)]
    rows += options
    words = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    shown = f"\n{table(('', ''), rows)}" if rows else ""
    return f"## {path}\n\n{words}\n\n{fence(' '.join(usage))}{shown}"


def _options(command: Any) -> list[tuple[str, str]]:
    shown = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    return [
        (", ".join(f"`{text}`" for text in _forms(param)), _help(param))
        for param in shown
        if param.name != "help"
    ]


def _name(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _argument(param: Any) -> str:
    name = _name(param) + ("…" if param.nargs == -1 and "…" not in _name(param) else "")
    return name if param.required or name.startswith("[") else f"[{name}]"


def _forms(param: Any) -> list[str]:
    kind = getattr(param.type_descriptor.annotation, "__name__", "")
    value = "" if param.is_flag or param.count else f" {param.metavar or _KINDS.get(kind, 'TEXT')}"
    return [f"{name}{value}" for name in (*param.opts, *param.secondary_opts)]


def _help(param: Any) -> str:
    default = param.default
    shown = isinstance(default, str | int | float) and not isinstance(default, bool)
    return (param.help or "") + (f" Default: {default}." if shown else "")
