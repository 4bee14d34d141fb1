"""The parts of schemas."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
SECONDS = "Time in seconds since 1970."
FILE_ID = "Id of an uploaded file, or an address s3://bucket/key."


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def integer(description: str, **more: Any) -> Schema:
    return {"type": "integer", "description": description, **more}


def number(description: str, **more: Any) -> Schema:
    return {"type": "number", "description": description, **more}


def boolean(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def nullable(schema: Schema) -> Schema:
    """The same value, or null."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    if isinstance(schema["type"], list):
        return schema
    return {**schema, "type": [schema["type"], "null"]}


def list_of(item: Schema, description: str = "", **more: Any) -> Schema:
    found: Schema = {"type": "array", "items": item, **more}
    return found | ({"description": description} if description else {})


def record(properties: dict[str, Schema], *, required: list[str] | None = None) -> Schema:
    """An object of an answer. required: all properties by default."""
    names = [*properties] if required is None else required
    return {"type": "object", "properties": properties, "required": names}


def body(properties: dict[str, Schema], required: list[str]) -> Schema:
    """A body of a request: every optional field may be null, and no other field is accepted."""
    optional = {
        name: found if name in required or "anyOf" in found or "type" not in found
        else nullable(found)
        for name, found in properties.items()
    }  # fmt: skip
    return {
        "type": "object",
        "properties": optional,
        "required": required,
        "additionalProperties": False,
    }


def page_of(item: str) -> Schema:
    """A list object, with or without further pages."""
    return record(
        {
            "object": {"const": "list"},
            "data": list_of(ref(item)),
            "has_more": boolean("Whether further pages follow."),
            "first_id": nullable(text("Id of the first object.")),
            "last_id": nullable(text("Id of the last object, for `after` of the next page.")),
        }
    )
