"""The schema for editors: right files fit it, wrong ones do not, and it says of each setting what the help says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from fusain.cli import main as command
from fusain.settings import described, editors, recipes, template

SCHEMA = json.loads(editors.text())
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
NO_RULE = {"$schema", "$defs", "title", "description", "default", "format", "type", "then", "examples"}
"""What only explains, or is read with another key."""


def fits(value, node) -> bool:
    """The keywords that the schema uses, as JSON Schema defines them; one that is not known here is an error."""
    assert set(node) - NO_RULE - set(RULES) == set(), "a keyword that this test does not know"
    kind = node.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    return all(RULES[key](value, part, node) for key, part in node.items() if key in RULES)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _reference(value, part, _) -> bool:
    return fits(value, SCHEMA["$defs"][part.removeprefix("#/$defs/")])


def _properties(value, part, node) -> bool:
    return not isinstance(value, dict) or all(fits(value[name], part[name]) for name in value if name in part)


def _others(value, part, node) -> bool:
    others = set(value) - set(node.get("properties", {})) if isinstance(value, dict) else set()
    return not others if part is False else part is True or all(fits(value[name], part) for name in others)


RULES = {
    "$ref": _reference,
    "properties": _properties,
    "additionalProperties": _others,
    "anyOf": lambda value, part, _: any(fits(value, one) for one in part),
    "allOf": lambda value, part, _: all(fits(value, one) for one in part),
    "not": lambda value, part, _: not fits(value, part),
    "if": lambda value, part, node: not fits(value, part) or fits(value, node["then"]),
    "required": lambda value, part, _: not isinstance(value, dict) or set(part) <= set(value),
    "const": lambda value, part, _: value == part,
    "enum": lambda value, part, _: value in part,
    "items": lambda value, part, _: not isinstance(value, list) or all(fits(one, part) for one in value),
    "minItems": lambda value, part, _: not isinstance(value, list) or len(value) >= part,
    "maxItems": lambda value, part, _: not isinstance(value, list) or len(value) <= part,
    "minLength": lambda value, part, _: not isinstance(value, str) or len(value) >= part,
    "maxLength": lambda value, part, _: not isinstance(value, str) or len(value) <= part,
    "pattern": lambda value, part, _: not isinstance(value, str) or re.search(part, value) is not None,
    "minimum": lambda value, part, _: not _is_number(value) or value >= part,
    "maximum": lambda value, part, _: not _is_number(value) or value <= part,
    "exclusiveMinimum": lambda value, part, _: not _is_number(value) or value > part,
    "exclusiveMaximum": lambda value, part, _: not _is_number(value) or value < part,
    "multipleOf": lambda value, part, _: not _is_number(value) or value % part == 0,
}


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_and_what_is_made_of_them_fit(name):
    assert fits(recipes.load(name).values, SCHEMA)
    assert fits(tomllib.loads(template.toml_text(recipes.load(name), data=Path("images"))), SCHEMA)


RIGHT = [
    "[train]\nsteps = 3\nepochs = 'none'\nlearning_rate = 1",
    "[method]\nkind = 'lora'\nrank = 4",
    "recipe = 'lora'\n[method]\nrank = 4\ntargets = ['attn2.*']",
    "[family]\nkind = 'sd'\nsize = 512",
    "recipe = 'lora'\n[family]\nbase = 'fusain:mini-sd'\nsize = 64",
    "[family]\nchannels = [8, 16]",
    "[engine]\nthreads = 2",
    "[data]\nclass_weights = { cat = 2, dog = 0.5 }",
    "[checkpoint]\nsnapshots = [100, 200]",
    "[[train.parts]]\nnames = '*.bias'\nweight_decay = 0",
    "[train]\noptimizer = 'pytorch_optimizer.ADOPT'\noptimizer_options = { betas = [0.9, 0.99], eps = 1e-6 }",
]
WRONG = [
    "steps = 3",
    "[train]\nstep = 3",
    "[train]\nsteps = 0",
    "[train]\nsteps = '500'",
    "[train]\nsteps = true",
    "recipe = 'loar'",
    "[method]\nkind = 'loar'",
    "[method]\nkind = 'full'\nrank = 4",
    "[method]\nrank = 4",
    "recipe = 'lora'\n[method]\ncondition_warmup = 3",
    "recipe = 'lora'\n[family]\nchannels = [8, 16]",
    "recipe = 'text-to-image'\n[method]\nrank = 4",
    "[family]\nkind = 'sd'\nsize = 500",
    "[engine]\nthreads = 'many'",
    "[data]\nclass_weights = { cat = 'much' }",
    "[[train.parts]]\nname = '*.bias'",
    "[train]\nparts = { names = '*.bias', weight_decay = 0 }",
    "[train]\noptimizer = 'torch.SGD'",
]


@pytest.mark.parametrize("text", RIGHT)
def test_right_files_fit(text):
    assert fits(tomllib.loads(text), SCHEMA)


@pytest.mark.parametrize("text", WRONG)
def test_wrong_files_do_not(text):
    assert not fits(tomllib.loads(text), SCHEMA)


def sections(node: dict) -> list[dict]:
    """The section that a reference leads to, or each of a union of them, or that of a list's items."""
    leading = [node, *node.get("anyOf", []), node.get("items", {})]
    return [SCHEMA["$defs"][one["$ref"].rpartition("/")[2]] for one in leading if "$ref" in one]


@pytest.mark.parametrize("entry", described.load().settings, ids=lambda entry: entry.key)
def test_every_setting_is_there_with_its_help(entry):
    *path, name = entry.key.split(".")
    found = [SCHEMA]
    for part in path:
        found = [inner for one in found for inner in sections(one["properties"].get(part.removesuffix("[]"), {}))]
    settings = [one["properties"][name] for one in found if name in one["properties"]]
    assert settings
    if name != "kind":
        helps = [setting.get("description", "") for setting in settings]
        assert [text for text in helps if text.startswith(entry.help)], helps


def test_new_puts_it_beside_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def new(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            command.main(["new", "unconditional", "--data", "images", *words])
        assert ended.value.code == 0
        return capsys.readouterr().err

    new("-o", "sub/run.toml")
    assert Path("sub/run.toml").read_text().startswith("#:schema ./fusain.schema.json\n# ")
    assert json.loads(Path("sub/fusain.schema.json").read_text()) == SCHEMA
    new("-o", "bare/run.toml", "--no-schema")
    assert [path.name for path in Path("bare").iterdir()] == ["run.toml"]
    assert "#:schema" not in Path("bare/run.toml").read_text()
    Path("fusain.schema.json").write_text('{"title": "mine"}')
    said = new()
    assert said.startswith("fusain.schema.json is something else and stays; editors will not know the settings.\n")
    assert Path("fusain.schema.json").read_text() == '{"title": "mine"}'
    assert "#:schema" not in Path("run.toml").read_text()
    Path("fusain.schema.json").write_text(json.dumps({"title": editors.TITLE}))
    new("--yes")
    assert json.loads(Path("fusain.schema.json").read_text()) == SCHEMA, "an older one is brought up to date"


def test_it_is_printed_and_names_no_machine(capsys):
    with pytest.raises(SystemExit):
        command.main(["explain", "--schema"])
    printed = capsys.readouterr().out
    assert printed == editors.text()
    assert str(Path(__file__).parents[2]) not in printed
    assert str(Path.home()) not in printed
