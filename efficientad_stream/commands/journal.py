"""``journal``: list, show and verify a journal, beside the daemon that writes it or without one."""

from __future__ import annotations

import argparse
from pathlib import Path

from efficientad_stream.core import text, wire
from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.messages import MAX_U32, Decision, WireError
from efficientad_stream.core.segment import StoredRecord
from efficientad_stream.sinks.journal import reader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Three actions: ls, show, verify."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in (
        ("ls", "list the files: epoch and seq"),
        ("show", "print decisions"),
        ("verify", "read every byte; say ok, or which record of which file is damaged"),
    ):
        action = actions.add_parser(name, help=words, description=words)
        action.add_argument("path", metavar="PATH", type=Path, help="folder of the journal")
        if name == "show":
            action.add_argument("--from", dest="first", type=int, default=1, metavar="SEQ")
            action.add_argument("--to", dest="last", type=int, default=MAX_U32, metavar="SEQ")
            action.add_argument("--epoch", type=int, help="default: the newest")
            action.add_argument("--json", action="store_true", help="one JSON object a decision")


def run(args: argparse.Namespace) -> int:
    """Do the chosen action; damage raises ArtifactError."""
    {"ls": _list, "show": _show, "verify": _verify}[args.action](args)
    return 0


def _list(args: argparse.Namespace) -> None:
    for segment, last in reader.spans(reader.existing(args.path)):
        print(f"{segment.path.name}  epoch {segment.epoch}  {_span(segment.first_seq, last)}")


def _show(args: argparse.Namespace) -> None:
    line = text.decision_json if args.json else text.decision_line
    for record in reader.records(args.path, args.first, args.last, args.epoch):
        print(line(_decode(args.path, record)))


def _verify(args: argparse.Namespace) -> None:
    total = 0
    for found in reader.check(args.path):
        segment, last = found.segment, found.last_seq
        for record in reader.within(segment, segment.first_seq, last):
            header = _decode(args.path, record).header
            if (header.seq, header.epoch) != (record.seq, segment.epoch):
                raise ArtifactError(
                    f"journal {segment.path}: offset {record.offset}: record {record.seq} holds "
                    f"decision {header.seq} of epoch {header.epoch}"
                )
            total += 1
        note = f"  ({found.note})" if found.note else ""
        print(f"{segment.path.name}  {_span(segment.first_seq, last)}{note}")
    print(f"ok: {total} decisions")


def _span(first: int, last: int) -> str:
    return f"seq {first} to {last}" if last >= first else "empty"


def _decode(path: Path, record: StoredRecord) -> Decision:
    try:
        return wire.decode_decision(record.header, record.body)
    except WireError as error:
        raise ArtifactError(f"journal {path}: record {record.seq}: {error}") from error
