"""Composite and rules read from a TOML or YAML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrp_onnx.errors import RuleError, first_line, shown
from lrp_onnx.files.missing import advice
from lrp_onnx.files.reading import regular_text

SETTINGS = ("composite", "start", "bias", "rules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values in a rules file; None where a key is missing."""

    composite: str | None = None
    start: str | None = None
    bias: str | None = None
    rules: dict[str, str] = field(default_factory=dict)
    """Node-name pattern or kind of step → rule as text, in the order of the file."""


def read_settings(path: Path) -> Settings:
    """Read a .toml, .yaml or .yml file.

    Raises:
        RuleError: it cannot be read, or has an unknown key or a value of the wrong kind.
    """
    try:
        text = regular_text(path)
    except FileNotFoundError:
        raise RuleError(f"there is no rules file {shown(path)}{advice(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(f"the rules file {path} cannot be read: {first_line(error)}") from error
    values = _parse(path, text)
    unknown = sorted(set(values) - set(SETTINGS))
    if unknown:
        raise RuleError(
            f"{path} says {', '.join(unknown)}, which is not known; "
            f"the keys of a rules file are {', '.join(SETTINGS)}"
        )
    rules = values.get("rules") or {}
    flat = {k: v for k, v in values.items() if k != "rules"}
    if not isinstance(rules, dict) or not all(
        isinstance(v, str) for v in (*rules.values(), *flat.values())
    ):
        raise RuleError(
            f'{path}: rules is a table of "node pattern" = "rule(parameter=value)", '
            "every other value is text"
        )
    return Settings(rules={str(k): v for k, v in rules.items()}, **flat)


def _parse(path: Path, text: str) -> dict[str, Any]:
    if path.suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RuleError(f"{path} is not valid TOML: {error}") from error
    if path.suffix not in (".yaml", ".yml"):
        raise RuleError(f"{path}: the name of a rules file ends in .toml, .yaml or .yml")
    try:
        import yaml
    except ImportError:
        raise RuleError(
            f"{path}: YAML needs `pip install lrp-onnx[yaml]`; TOML works without it"
        ) from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RuleError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise RuleError(f"{path} is not a table of {', '.join(SETTINGS)}")
    return values
