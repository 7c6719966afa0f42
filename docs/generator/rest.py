"""The page of the REST interface, made from the server's own OpenAPI description."""

from collections.abc import Mapping
from typing import Any

from generator.markup import table
from overnight.server.app import create_api

Json = Mapping[str, Any]
_EVERYWHERE = {"401", "403", "404", "413", "415", "422", "500", "503"}


HEAD = """\
# REST

A running server describes itself at `/openapi.json` and `/docs`; this page is the same description.

Every route wants `Authorization: Bearer TOKEN` (or the cookie of a login) unless it is marked *open*. Refusals are
`application/problem+json` with a stable `code`, see [errors](errors.md). 401, 403, 404, 422, 500 and 503 can be met
everywhere, 413 and 415 wherever there is a body; a route names the others. Unknown fields and query parameters are
refused.

"""
SHAPES = """
## Shapes

What is sent may leave out fields that have a default; what is answered has all of them.

"""


def rest_page() -> str:
    """Every route with its parameters and answers, and every shape that travels."""
    described = create_api("1").openapi()
    by_tag: dict[str, list[str]] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(method.upper(), path, operation))
    shapes = [shape(name, schema) for name, schema in sorted(described["components"]["schemas"].items())]
    return (
        HEAD
        + "\n".join(f"## Routes: {tag}\n\n" + "\n".join(operations) for tag, operations in by_tag.items())
        + SHAPES
        + "\n".join(shapes)
    )


def _operation(method: str, path: str, operation: Json) -> str:
    opened = " · *open*" if operation.get("security") == [] else ""
    parts = [
        f"### {method} {path}\n",
        f"**{operation['summary']}**{opened}. {operation.get('description', '')}\n",
    ]
    if parameters := operation.get("parameters"):
        parts.append(table(("parameter", "in", "takes", ""), map(_parameter, parameters)))
    if body := operation.get("requestBody"):
        parts.append(f"Body: {_type(_content(body))}\n")
    answers = [
        f"{status} {_answer(answer)}".rstrip()
        for status, answer in operation["responses"].items()
        if status not in _EVERYWHERE
    ]
    parts.append(f"Answers: {' · '.join(answers)}\n")
    return "\n".join(parts)


def _parameter(parameter: Json) -> tuple[str, str, str, str]:
    return (
        f"`{parameter['name']}`",
        str(parameter["in"]),
        _type(parameter["schema"]) + _default(parameter["schema"]),
        str(parameter.get("description", "")),
    )


def _content(carrier: Json) -> Json:
    media: Json = next(iter(carrier["content"].values()))
    schema: Json = media["schema"]
    return schema


def _answer(answer: Json) -> str:
    if "content" not in answer:
        return str(answer["description"])
    kind = next(iter(answer["content"]))
    if kind == "application/problem+json":
        return str(answer["description"])
    return _type(_content(answer)) if kind == "application/json" else f"`{kind}`"


def shape(name: str, schema: Json) -> str:
    """One shape that travels, as a table of its fields."""
    head = f"### {name}\n\n"
    if about := schema.get("description"):
        head += f"{' '.join(about.split())}\n\n"
    if "properties" not in schema:
        return head + _type(schema) + "\n"
    rows = (
        (f"`{field}`", _type(kind) + _default(kind), str(kind.get("description", "")))
        for field, kind in schema["properties"].items()
    )
    return head + table(("field", "type", ""), rows)


def _default(schema: Json) -> str:
    default = schema.get("default")
    if default is None or isinstance(default, dict | list):
        return ""
    return f" = `{default if not isinstance(default, bool) else str(default).lower()}`"


def _type(schema: Json) -> str:
    """A schema in a few words; shapes are links."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return " or ".join(f"`{choice}`" for choice in choices)
    if kinds := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(kind) for kind in kinds)
    if all_of := schema.get("allOf"):
        return " and ".join(_type(kind) for kind in all_of)
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema.get('items', {}))}"
        case "object" if isinstance(values := schema.get("additionalProperties"), dict):
            return f"object of {_type(values)}"
        case str(kind):
            return kind + _bounds(schema)
        case _:
            return "anything"


def _bounds(schema: Json) -> str:
    least = _number(schema.get("minimum", schema.get("exclusiveMinimum")))
    most = _number(schema.get("maximum", schema.get("maxLength")))
    if least is None:
        return f" to {most}" if most is not None else ""
    return f" {least} to {most}" if most is not None else f" from {least}"


def _number(bound: float | None) -> str | None:
    return None if bound is None else f"{bound:,.0f}" if bound == int(bound) else f"{bound:g}"
