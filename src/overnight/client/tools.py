"""Tools in Python: a decorator that makes one of any function, for `overnight tools serve FILE` or a host of one's own.

    from overnight.client.tools import Say, tool

    @tool(destructive=True)
    async def deploy(target: str, dry_run: bool = True, say: Say | None = None) -> str:
        "Bring the current build to a target."
        await say("building", percent=10)
        return f"{target} is up"

The schema comes from the parameters' annotations, the description from the docstring. A parameter annotated `Say` is
not the model's: it gets a function that tells how far the work is. Plain functions run in a thread of their own; there
`say` is called without `await`.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from overnight.client.daemon import Abandoned, in_daemon
from overnight.client.socket.tools import Answer, Hear, Progress
from overnight.errors import ArgumentsRefused, InvalidInput

__all__ = ["Abandoned", "Answer", "FunctionTool", "Say", "collect", "tool"]
_MARK: Final = "__overnight_tool__"
_SCHEMAS: Final = (PydanticUserError, NameError, TypeError, ValueError)
"""What annotations raise that no schema can be made of."""


class Say(Protocol):
    """Tells how far a tool is: a piece of what it says, a percentage, a word about what it does."""

    def __call__(
        self, partial: str | None = None, *, percent: float | None = None, status: str | None = None
    ) -> Awaitable[None]:
        """Returns once it may go on. In a plain function it returns nothing to await, and raises Abandoned once
        the call was cancelled.
        """
        ...


class FunctionTool:
    """A function as a tool of a host. Raises InvalidInput for one whose parameters make no schema."""

    def __init__(self, function: Callable[..., Any], meta: Mapping[str, Any]) -> None:
        self.function = function
        try:
            hints = get_type_hints(function, include_extras=True)
            self._say = next((name for name, hint in hints.items() if _is_say(hint)), None)
            self._model, self._names = _model_of(function, hints, self._say)
            schema = self._model.model_json_schema(by_alias=True)
        except _SCHEMAS as error:
            said = str(error).partition("\n")[0]
            raise InvalidInput(f"{_name(function)}: its parameters make no schema: {said}") from None
        for titled in (schema, *schema.get("properties", {}).values()):
            titled.pop("title", None)
        self._meta = {**meta, "parameters": schema, "streaming": self._say is not None}

    @property
    def meta(self) -> Mapping[str, Any]:
        """See `client.socket.tools.Tool`."""
        return self._meta

    async def run(self, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        """See `client.socket.tools.Tool`. A plain function that was cancelled goes on to its end, or its next `say`."""
        try:
            given = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ArgumentsRefused(str(error)) from None
        named = {name: getattr(given, field) for field, name in self._names.items()}

        async def say(
            partial: str | None = None, *, percent: float | None = None, status: str | None = None
        ) -> None:
            await hear(Progress(percent=percent, partial=partial, status=status))

        if inspect.iscoroutinefunction(self.function):
            return _answer_of(await self.function(**named, **({self._say: say} if self._say else {})))
        found = await in_daemon(
            lambda ask: self.function(
                **named, **({self._say: lambda *more, **said: ask(say(*more, **said))} if self._say else {})
            ),
            name=f"tool {self._meta['name']}",
        )
        return _answer_of(found)


def tool(
    function: Callable[..., Any] | None = None, *, name: str | None = None, description: str | None = None,
    destructive: bool = False, permissions: tuple[str, ...] = (), version: str = "1.0.0",
) -> Any:  # fmt: skip
    """Mark a function as a tool. `destructive`, or any `permissions`: people are asked before an agent calls it."""

    def mark(found: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(found) or inspect.isgeneratorfunction(found):
            raise InvalidInput(
                f"{_name(found)}: a generator is no tool", mend="return, and tell more by `Say`"
            )
        meta = {
            "name": name or _name(found), "description": description or inspect.getdoc(found) or "",
            "destructive": destructive, "permissions": list(permissions), "version": version,
        }  # fmt: skip
        setattr(found, _MARK, FunctionTool(found, meta))
        return found

    return mark if function is None else mark(function)


def collect(names: Mapping[str, Any]) -> dict[str, FunctionTool]:
    """The tools among the names of a module. Raises InvalidInput when two have the same name."""
    found: dict[str, FunctionTool] = {}
    for value in names.values():
        made = getattr(value, _MARK, None)
        if isinstance(made, FunctionTool):
            known = found.setdefault(str(made.meta["name"]), made)
            if known is not made:
                raise InvalidInput(f"two tools are named {made.meta['name']}")
    return found


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _is_say(hint: Any) -> bool:
    """`Say`, or `Say | None`."""
    if get_origin(hint) in {types.UnionType, Union}:
        return Say in get_args(hint)
    return hint is Say


def _model_of(
    function: Callable[..., Any], hints: Mapping[str, Any], say: str | None
) -> tuple[type[BaseModel], dict[str, str]]:
    """The model of the parameters, and which field is which: a parameter may have a name that no field can have."""
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise InvalidInput(f"{_name(function)}: a tool's parameters all have names of their own")
        if name == say:
            continue
        if name not in hints:
            raise InvalidInput(f"{_name(function)}: the parameter {name} has no annotation")
        default = ... if parameter.default is parameter.empty else parameter.default
        field = f"argument_of_tool_{len(fields)}"
        fields[field], names[field] = (hints[name], default), name
    config = ConfigDict(
        # Also asked for the fields of plain dataclasses in the annotations, which keep their names.
        alias_generator=lambda field: names.get(field, field),
        extra="forbid", arbitrary_types_allowed=False,
    )  # fmt: skip
    return create_model(f"{_name(function)}_arguments", __config__=config, **fields), names


def _answer_of(value: Any) -> Answer:
    if isinstance(value, Answer):
        return value
    if isinstance(value, str):
        return Answer(content=[{"type": "text", "text": value}])
    if value is None:
        return Answer(content=[{"type": "text", "text": "done"}])
    plain = TypeAdapter(Any).dump_python(value, mode="json")
    return Answer(content=[{"type": "text", "text": json.dumps(plain, ensure_ascii=False)}], details=plain)
