"""The schema of a settings file as JSON Schema, so that editors complete, explain and check it while it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from fusain.settings import recipes, schema
from fusain.settings.editors import TITLE
from fusain.settings.section import Section

Node = dict[str, Any]


def json_schema(root: type[Section]) -> Node:
    """What pydantic says of the schema, as it holds for a file: without `none`, and with a recipe beneath."""
    found = _for_files(root.model_json_schema())
    found["properties"] = {"recipe": _recipe(), **found["properties"]}
    found["allOf"] = [rule for name, info in root.model_fields.items() for rule in _left_open(name, info)]
    draft = "http://json-schema.org/draft-07/schema#"
    return {"$schema": draft, "title": TITLE, **{key: part for key, part in found.items() if key != "title"}}


def as_text(root: type[Section]) -> str:
    """The text of the file in the package."""
    return json.dumps(json_schema(root), indent=1, ensure_ascii=False) + "\n"


def _recipe() -> Node:
    return {
        "enum": recipes.names(),
        "description": "The recipe that this file starts from; what it leaves out is as the recipe has it.",
    }


def _for_files(node: Any) -> Any:
    """A part of pydantic's schema as it holds for a TOML file."""
    if isinstance(node, list):
        return [_for_files(part) for part in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "null":
        return {"const": "none"}
    kept = {key: _for_files(part) for key, part in node.items() if key not in _DROPPED}
    # A value that is left out comes from the recipe or the command line, so none is required; and a kind that is
    # left out fits whichever section the rest fits.
    if "oneOf" in kept:
        kept["anyOf"] = kept.pop("oneOf")
    if isinstance(kept.get("default"), dict):
        del kept["default"]  # a section's: each of its settings says its own
    elif kept.get("default", "") is None:
        kept["default"] = "none"
    if "properties" in node:
        kept["properties"] = {name: _explained(name, part) for name, part in node["properties"].items()}
    if "$defs" in node:
        kept["$defs"] = {name: _for_files(part) for name, part in node["$defs"].items()}
    return kept


_DROPPED: Final = {
    *("required", "discriminator", "title"),
    *("basic", "usual", "usual_unless", "instead_of", "only_when", "elsewhere"),
}
"""What pydantic and our fields note that no editor reads; names of settings are not among the keys that are asked."""


def _explained(name: str, node: Node) -> Node:
    """A setting with its usual values in its description, and its name as title."""
    found: Node = {"title": name, **_for_files(node)}
    if "usual" in node:
        low, high = node["usual"]
        found["description"] = f"{node.get('description', '')} Usually {low:g} to {high:g}.".strip()
    if "description" in found:
        found["description"] = " ".join(found["description"].split())
    return found


def _left_open(name: str, info: Any) -> Iterator[Node]:
    """Where a file names no kind, the one of its recipe holds: only its settings may stand there."""
    kinds = schema.variants(info.annotation)
    if len(kinds) < 2:
        return
    default = schema.default_kind(info)
    by_kind: dict[str, list[str]] = {}
    for recipe in recipes.names():
        values = recipes.load(recipe).values.get(name, {})
        by_kind.setdefault(values.get("kind", default), []).append(recipe)
    unnamed = {"properties": {name: {"not": {"required": ["kind"]}}}, "required": [name]}
    without_recipe = {"not": {"required": ["recipe"]}}
    for kind, variant in kinds.items():
        named: Node = {"required": ["recipe"], "properties": {"recipe": {"enum": by_kind.get(kind, [])}}}
        starts = [named] if kind in by_kind else []
        starts += [without_recipe] if kind == default else []
        if starts:
            holds = {"properties": {name: {"$ref": f"#/$defs/{variant.__name__}"}}}
            yield {"if": {"allOf": [unnamed, {"anyOf": starts}]}, "then": holds}
