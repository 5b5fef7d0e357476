"""``config``: check a configuration, show what is in effect, print its JSON schema."""

from __future__ import annotations

import argparse
import json

import msgspec

from efficientad_stream import strict_yaml
from efficientad_stream.config import Config, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Three actions: check, show, schema."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("check", "say ok, or what is wrong and in which line"),
        ("show", "print the configuration in effect, defaults included, as YAML"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("file", metavar="FILE")
        action.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
            help="override a value, such as source.fps=30",
        )  # fmt: skip
    text = "print the JSON schema of a configuration, for editors"
    actions.add_parser("schema", help=text, description=text)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action; a configuration that is wrong raises ConfigError."""
    if args.action == "schema":
        print(json.dumps(msgspec.json.schema(Config), indent=2))
        return 0
    config = load(args.file, args.overrides)
    print(summary(config) if args.action == "check" else effective(config), end="")
    return 0


def summary(config: Config) -> str:
    """Two lines for people: that it is right, and what it says."""
    kind = type(config.source).__struct_config__.tag
    where = getattr(config.source, "path", getattr(config.source, "device", ""))
    return (
        f"ok\nstation {config.station}: {kind} {where}".rstrip()
        + f" -> {config.recipe} -> {config.publish.decisions}\n"
    )


def effective(config: Config) -> str:
    """The configuration as YAML that loads to the same."""
    return strict_yaml.dump(msgspec.to_builtins(config))
