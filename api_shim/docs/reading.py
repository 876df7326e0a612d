"""The OpenAPI document as a person reads it: sections of operations, schemas as rows of fields."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup, escape

_CODE: Final = re.compile(r"`+([^`]+)`+")
_CAPITALS: Final = re.compile(r"\b[A-Z]+(?:_[A-Z]+)*")
_DEEPEST: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A parameter, or a field of a body: ``to[].email``."""

    name: str
    kind: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One form that a body may have."""

    title: str
    description: str
    fields: list[Field]
    examples: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: str
    description: str
    codes: list[str]
    """Error codes that it may carry."""
    examples: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    anchor: str
    method: str
    path: str
    summary: str
    description: str
    scope: str | None
    parameters: list[Field]
    bodies: list[Body]
    answers: list[Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    name: str
    description: str
    operations: list[Operation]


def prose(text: str) -> Markup:
    """Text with its paragraphs and its ``code`` marked up, all else escaped."""
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n", text))
    shown = (_CODE.sub(r"<code>\1</code>", str(escape(part))) for part in paragraphs if part)
    return Markup("".join(f"<p>{part}</p>" for part in shown))  # noqa: S704 -- every part was escaped


class Reader:
    """Reads one OpenAPI document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def sections(self) -> list[Section]:
        found: dict[str, list[Operation]] = {tag["name"]: [] for tag in self._document["tags"]}
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                found[operation["tags"][0]].append(self._operation(path, method, operation))
        described = {tag["name"]: tag["description"] for tag in self._document["tags"]}
        return [
            Section(name=name, description=described[name], operations=operations)
            for name, operations in found.items()
            if operations
        ]

    def _operation(self, path: str, method: str, operation: Mapping[str, Any]) -> Operation:
        security = operation["security"]
        return Operation(
            anchor=operation["operationId"],
            method=method.upper(),
            path=path,
            summary=operation.get("summary", ""),
            description=re.sub(r"\s*(Scope: `[^`]+`\.|Public: no key\.)$", "", operation["description"]),
            scope=security[0]["bearer"][0] if security else None,
            parameters=[self._parameter(item) for item in operation.get("parameters", ())],
            bodies=list(self._bodies(operation)),
            answers=[self._answer(status, answer) for status, answer in operation["responses"].items()],
        )

    def _parameter(self, item: Mapping[str, Any]) -> Field:
        place = "" if item["in"] == "query" else f" ({item['in']})"
        return Field(
            name=item["name"] + place,
            kind=self.kind(item["schema"]),
            required=item.get("required", False),
            description=item.get("description") or item["schema"].get("description", ""),
        )

    def _bodies(self, operation: Mapping[str, Any]) -> Iterator[Body]:
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            schema = self.resolved(content.get("schema", {}))
            for option in schema.get("oneOf", [schema]):
                form = self.resolved(option)
                title = "" if media_type == "application/json" and "oneOf" not in schema else form.get("title", "")
                yield Body(
                    title=title if media_type == "application/json" else media_type,
                    description=form.get("description", ""),
                    fields=list(self._fields(form)),
                    examples=[as_json(value) for value in self._examples(form)],
                )

    def _examples(self, schema: Mapping[str, Any]) -> list[Any]:
        return [schema["example"]] if "example" in schema else list(schema.get("examples", ()))

    def _answer(self, status: str, given: Mapping[str, Any]) -> Answer:
        answer = self.resolved(given)
        content = answer.get("content", {}).get("application/json", {})
        values = [item["value"] for item in content.get("examples", {}).values()]
        is_error = status >= "400"
        values = [content["example"]] if "example" in content else values
        return Answer(
            status=status,
            description=answer["description"],
            codes=list(dict.fromkeys(_CAPITALS.findall(" ".join(content.get("examples", ()))))) if is_error else [],
            examples=[] if is_error else [as_json(value) for value in values],
        )

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a ``$ref`` of this document stands for, with what is written beside it."""
        if "$ref" not in schema:
            return schema
        found: Any = self._document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return {**found, **{name: value for name, value in schema.items() if name != "$ref"}}

    def _fields(self, schema: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[Field]:
        """The fields of an object and of the objects in it."""
        needed = schema.get("required", ())
        for name, given in schema.get("properties", {}).items():
            form = self.resolved(given)
            yield Field(
                name=prefix + name,
                kind=self.kind(form),
                required=name in needed,
                description=form.get("description", ""),
            )
            for inner, suffix in self._within(form):
                if depth < _DEEPEST:
                    yield from self._fields(inner, f"{prefix}{name}{suffix}.", depth + 1)

    def _within(self, schema: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
        """The objects that a field holds, with what its name then ends in."""
        for option in schema.get("anyOf", [schema]):
            form = self.resolved(option)
            items = self.resolved(form.get("items", {}))
            if "properties" in form:
                yield form, ""
            elif "properties" in items:
                yield items, "[]"

    def kind(self, given: Mapping[str, Any]) -> str:
        """What a value must be, in a few words."""
        schema = self.resolved(given)
        words = self._kind(schema)
        words += "".join(f", {text} {schema[name]}" for name, text in _LIMITS.items() if name in schema)
        return words + (f", default {json.dumps(schema['default'])}" if schema.get("default") is not None else "")

    def _kind(self, schema: Mapping[str, Any]) -> str:
        for many in ("anyOf", "oneOf"):
            if many in schema:
                return " or ".join(dict.fromkeys(self.kind(option) for option in schema[many]))
        if "enum" in schema or "const" in schema:
            return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
        types = schema.get("type", "anything")
        return " or ".join(self._type(schema, name) for name in (types if isinstance(types, list) else [types]))

    def _type(self, schema: Mapping[str, Any], name: str) -> str:
        if name == "string":
            return str(schema.get("format", schema.get("contentEncoding", name)))
        if name == "array":
            return f"list of {self.kind(schema.get('items', {}))}"
        return name


_LIMITS: Final = {
    "minLength": "length at least", "maxLength": "length at most", "minimum": "at least", "maximum": "at most",
    "minItems": "entries at least", "maxItems": "entries at most", "maxProperties": "members at most",
}  # fmt: skip


def as_json(value: Any) -> str:
    """JSON as it is shown."""
    return json.dumps(value, indent=2, ensure_ascii=False)
