"""JSON Schemas of the records that commands print, derived from the dataclasses that write them."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from matir_cli.cli.commands.add import AddReport
from matir_cli.cli.commands.config import SettingRow
from matir_cli.cli.commands.doctor import FindingRow
from matir_cli.cli.commands.info import InfoReport, JointInfoReport
from matir_cli.cli.commands.models import ModelSetRow, TrialRow
from matir_cli.cli.commands.saved import SavedSearchRow
from matir_cli.cli.progress import ProgressRecord
from matir_cli.evaluation.reporting.result_records import ResultsRecord
from matir_cli.maintenance.duplicates import DuplicateGroup
from matir_cli.maintenance.export import VectorId
from matir_cli.maintenance.listing import ListedFile, SkippedFile
from matir_cli.maintenance.show import PhotoDetails
from matir_cli.output.event_records import FinalRecord, GroundedRecord, Stage1Record, VerdictRecord
from matir_cli.output.json_records import AnswerRecord, ResultRecord
from matir_cli.search.phrases.description import Description

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class Contract:
    """One kind of record that is printed as JSON."""

    name: str
    """Name of the schema: its file without the suffix."""
    printed: str
    """The commands that print such records, and where."""
    records: tuple[type, ...]
    """The dataclass that writes them; several if a record is one of them."""


CONTRACTS = (
    Contract(
        "find",
        "One result of `matir find`: --jsonl prints one per line, --json an array.",
        (ResultRecord,),
    ),
    Contract("find-answers", "One line of `matir find -`: the answer to one query.", (AnswerRecord,)),
    Contract(
        "find-stream",
        "One line of `matir find --jsonl --stream`: an event.",
        (Stage1Record, VerdictRecord, GroundedRecord, FinalRecord),
    ),
    Contract("ls", "One file of `matir ls`: --jsonl prints one per line, --json an array.", (ListedFile,)),
    Contract(
        "ls-skipped",
        "One file of `matir ls --skipped`: --jsonl prints one per line, --json an array.",
        (SkippedFile,),
    ),
    Contract(
        "duplicates",
        "One group of `matir duplicates`: --jsonl prints one per line, --json an array.",
        (DuplicateGroup,),
    ),
    Contract(
        "saved-run",
        "One result of `matir saved run`, as of `matir find`.",
        (ResultRecord,),
    ),
    Contract(
        "saved-list", "One element of the array that `matir saved list --json` prints.", (SavedSearchRow,)
    ),
    Contract("add", "The object that `matir add --json` prints.", (AddReport,)),
    Contract("show", "The object that `matir show --json` prints.", (PhotoDetails,)),
    Contract("info", "The object that `matir info --json` prints.", (InfoReport, JointInfoReport)),
    Contract("doctor", "One element of the array that `matir doctor --json` prints.", (FindingRow,)),
    Contract("config", "One element of the array that `matir config --json` prints.", (SettingRow,)),
    Contract("parse", "The object that `matir parse --json` prints.", (Description,)),
    Contract(
        "models-list", "One element of the array that `matir models list --json` prints.", (ModelSetRow,)
    ),
    Contract("models-try", "One element of the array that `matir models try --json` prints.", (TrialRow,)),
    Contract(
        "export-ids", "One line of the file FILE.ids.jsonl that `matir export --vectors` writes.", (VectorId,)
    ),
    Contract("eval", "The file `results.json` that `matir eval` writes.", (ResultsRecord,)),
    Contract("progress", "One line that `--progress json` prints on standard error.", (ProgressRecord,)),
)


def schema_text(contract: Contract) -> str:
    """Return the schema of a record, as its file holds it."""
    return json.dumps(make_schema(contract), indent=1) + "\n"


def make_schema(contract: Contract) -> dict[str, Any]:
    """Return the schema of a record; a reader must accept further fields."""
    references, components = msgspec.json.schema_components(
        contract.records, schema_hook=_path_schema, ref_template="#/$defs/{name}"
    )
    classes = {each.__name__: each for each in _classes(contract.records)}
    for name, component in components.items():
        if "properties" in component:
            _describe(component, classes[name])
    choice = references[0] if len(references) == 1 else {"oneOf": [*references]}
    head = {"$schema": DIALECT, "title": contract.name, "description": contract.printed}
    return {**head, **choice, "$defs": components}


def _path_schema(kind: type) -> dict[str, Any]:
    if issubclass(kind, Path):
        return {"type": "string", "description": "Path."}
    raise NotImplementedError


def _describe(component: dict[str, Any], kind: type) -> None:
    """Give a record its fields' docstrings; fields that may be None are left out then, never null."""
    documented = field_docstrings(kind)
    required = []
    component["description"] = " ".join((kind.__doc__ or "").split())
    fields: dict[str, dict[str, Any]] = component["properties"]
    for name, field in fields.items():
        field.pop("default", None)
        choices = field.get("anyOf", [])
        if {"type": "null"} in choices:
            choices.remove({"type": "null"})
            if len(choices) == 1:
                field.update(field.pop("anyOf")[0])
        else:
            required.append(name)
        if name in documented:
            field["description"] = documented[name]
    component["required"] = required


def _classes(kinds: tuple[type, ...]) -> Iterator[type]:
    """Yield dataclasses and all those that their fields refer to."""
    seen = set[type]()
    waiting: list[Any] = [*kinds]
    while waiting:
        kind = waiting.pop()
        waiting += getattr(kind, "__args__", ())
        if inspect.isclass(kind) and hasattr(kind, "__dataclass_fields__") and kind not in seen:
            seen.add(kind)
            yield kind
            waiting += inspect.get_annotations(kind, eval_str=True).values()
            waiting += kind.__bases__


def field_docstrings(kind: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass and of its bases, on one line."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        module = ast.parse(inspect.getsource(sys.modules[each.__module__]))
        (body,) = (
            node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == each.__name__
        )
        for field, below in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def field_tables() -> str:
    """Return the fields of all records as Markdown: one section per schema, each record once."""
    parts, shown = [], set[str]()
    for contract in CONTRACTS:
        components = make_schema(contract)["$defs"]
        parts += [f"## {contract.name}", contract.printed]
        own = [record.__name__ for record in contract.records]
        for name in [*own, *sorted(components.keys() - own)]:
            component = components[name]
            if "properties" in component and name not in shown:
                parts += [f"`{name}`: {component['description']}", _table(component)]
                shown.add(name)
    return "\n\n".join(parts)


def _table(component: dict[str, Any]) -> str:
    lines = ["| field | type | |", "|---|---|---|"]
    for name, field in component["properties"].items():
        kind = _kind(field) + ("" if name in component["required"] else ", or left out")
        lines.append(f"| `{name}` | {kind} | {field.get('description', '')} |".replace(" |  |", " | |"))
    return "\n".join(lines)


def _kind(field: dict[str, Any]) -> str:
    """Return the type of a value in words."""
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if "anyOf" in field:
        return " or ".join(map(_kind, field["anyOf"]))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") != "array":
        return str(field.get("type", "any"))
    if field.get("prefixItems"):
        kinds = dict.fromkeys(map(_kind, field["prefixItems"]))
        return f"array of {len(field['prefixItems'])}: {', '.join(kinds)}"
    return f"array of {_kind(field['items'])}"
