"""Walks a schema once and writes down what help, template, reference and forms show of it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pydantic_core import PydanticUndefined, to_jsonable_python

from fusain.messages import catalogue
from fusain.settings import schema
from fusain.settings.described import Described, Description
from fusain.settings.section import Section


def describe(root: type[Section], user: type[Section] | None = None) -> Description:
    """Every setting below `root`, and those of the user's file; one that several kinds share is listed once."""
    kinds = dict(_kinds(root))
    found: dict[tuple[str, str], Described] = {}
    for setting in schema.walk(root):
        entry = _described(setting)
        if entry.key in kinds:
            _add_kind(found, entry, kinds[entry.key])
            continue
        twin = found.get(identity := (entry.key, _words(entry)))
        found[identity] = entry if twin is None else _joined(twin, entry)
    of_user = [_described(setting) for setting in schema.walk(user)] if user else []
    return Description(list(found.values()), dict(_sections(root)), kinds, of_user)


def as_json(description: Description) -> str:
    """The text of `described.json`."""
    stored = {
        "settings": [_stored(entry) for entry in description.settings],
        "sections": description.sections,
        "kinds": description.kinds,
        "user": [_stored(entry) for entry in description.user],
    }
    return json.dumps(stored, indent=1, ensure_ascii=False) + "\n"


def _stored(entry: Described) -> dict[str, Any]:
    given = {name: value for name, value in asdict(entry).items() if value not in ([], {}, "")}
    return given | {"help": entry.help, "default": entry.default}


def settings_page(description: Description) -> str:
    """The reference page of all settings."""
    lines = ["# Settings", "", _GENERATED, ""]
    lines += [
        "Each stands in a settings file as `[section]` and `name = value`, and on the command line as",
        "`--section.name value`. **Bold** settings are the ones to meet first.",
        "",
    ]
    section = None
    for entry in description.settings:
        if entry.section != section:
            section = entry.section
            lines += ["", f"## {section or 'The file itself'}", "", *_paragraph(description.sections.get(section, ""))]
            lines += _HEAD
        lines.append(_row(entry))
    if description.user:
        lines += ["", "## Your own settings", "", *_OF_USER, "", *_HEAD, *(_row(entry) for entry in description.user)]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def errors_page(exit_codes: Mapping[int, str]) -> str:
    """The reference page of all codes, those of the process first."""
    lines = ["# Errors and warnings", "", _GENERATED, "", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [*(f"| {code} | {meaning} |" for code, meaning in exit_codes.items()), "", "## Messages", ""]
    lines += ["Words in braces are filled in when it happens. Codes that begin with W stop nothing.", ""]
    for code, message in sorted(catalogue().items(), key=lambda entry: (entry[0].split("-")[1:], entry[0])):
        block = "\n".join(message.what.splitlines()[1:])
        lines += [f"### {code}", "", message.what.splitlines()[0], ""]
        lines += [f"```text\n{block}\n```", ""] if block else []
        lines += [f"**Why.** {message.why}", ""] if message.why else []
        lines += [f"**What to do.** {message.do}", ""] if message.do else []
    return "\n".join(lines)


_GENERATED = "<!-- Made by `make docs`; change the source instead. -->"
_HEAD = ["| setting | what it does | value | default |", "|---|---|---|---|"]
_OF_USER = [
    "These stand in a file of yours, `settings.toml` in your folder for configurations, and hold for every run on this",
    "machine, below recipes and settings files. `fusain explain runs_folder` says where that file is.",
]


def _row(entry: Described) -> str:
    name = f"**`{entry.key}`**" if entry.basic else f"`{entry.key}`"
    return f"| {name} | {_cell(_help(entry))} | {_cell(_value(entry))} | `{_cell(entry.default_text)}` |"


def _described(setting: schema.Setting) -> Described:
    info = setting.field
    default = schema.default_of(info)
    limits = schema.limits_of(info.annotation, info.metadata)
    return Described(
        key=setting.key,
        help=" ".join((info.description or "").split()),
        type=schema.expected_of(info),
        basic=bool(setting.extra.get("basic")),
        required=default is PydanticUndefined,
        default=None if default is PydanticUndefined else to_jsonable_python(default),
        choices=list(schema.choices_of(info.annotation)),
        limits={name: limit for name, limit in asdict(limits).items() if limit is not None},
        usual=list(setting.extra.get("usual", [])),
        when={key: [kind] for key, kind in setting.when},
        instead_of=str(setting.extra.get("instead_of", "")),
    )


def _add_kind(found: dict[tuple[str, str], Described], entry: Described, default: str) -> None:
    """The choice of a kind is one setting, though each kind's section has its own field for it."""
    before = found.get((entry.key, ""))
    choices = [*(before.choices if before else []), *entry.choices]
    words = " or ".join(repr(choice) for choice in choices)
    text = f"Which kind of {entry.section} it is."
    found[entry.key, ""] = replace(entry, choices=choices, type=words, default=default, help=text, when={})


def _words(entry: Described) -> str:
    return json.dumps({name: value for name, value in asdict(entry).items() if name not in ("when", "choices")})


def _joined(one: Described, other: Described) -> Described:
    when = {key: list(dict.fromkeys([*names, *other.when.get(key, [])])) for key, names in one.when.items()}
    return replace(one, when=when)


def _sections(section: type[Section], prefix: str = "") -> Any:
    yield prefix.rstrip("."), _doc(section)
    for name, info in section.model_fields.items():
        kinds = schema.variants(info.annotation)
        if len(kinds) > 1:
            yield f"{prefix}{name}", " ".join(f"`{kind}`: {_doc(variant)}" for kind, variant in kinds.items())
        for variant in kinds.values():
            inner = dict(_sections(variant, f"{prefix}{name}."))
            yield from ((key, text) for key, text in inner.items() if len(kinds) == 1 or key != f"{prefix}{name}")
        item = schema.item_section(info.annotation)
        if item is not None:
            yield from _sections(item, f"{prefix}{name}[].")


def _kinds(section: type[Section], prefix: str = "") -> Any:
    for name, info in section.model_fields.items():
        kinds = schema.variants(info.annotation)
        if schema.default_kind(info):
            yield f"{prefix}{name}.kind", schema.default_kind(info)
        for variant in kinds.values():
            yield from _kinds(variant, f"{prefix}{name}.")


def _doc(section: type[Section]) -> str:
    return " ".join((section.group_help or inspect.cleandoc(section.__doc__ or "")).split())


def _help(entry: Described) -> str:
    when = " and ".join(f"`{key} = {' or '.join(names)}`" for key, names in entry.when.items())
    return f"{entry.help} (with {when})" if when else entry.help


def _value(entry: Described) -> str:
    usual = f"; usually {entry.usual[0]:g} to {entry.usual[1]:g}" if entry.usual else ""
    return entry.type + usual


def _paragraph(text: str) -> list[str]:
    return [text, ""] if text else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
