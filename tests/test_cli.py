"""The command line as its users meet it: real processes, exit codes, and no heavy imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from efficientad_stream import __version__, cli
from efficientad_stream.core.errors import ArtifactError, EfficientADError, FatalError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = str(ROOT / "configs" / "simulated.yaml")

LOADED = """
import sys
from efficientad_stream.cli import main
code = main(sys.argv[1:])
print(*{"torch", "cv2", "zmq", "safetensors", "numpy"} & set(sys.modules), file=sys.stderr)
sys.exit(code)
"""

WITHOUT = """
import sys
sys.modules["msgspec"] = None
from efficientad_stream.cli import main
sys.exit(main(["config", "schema"]))
"""


def call(*args: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    what = ["-m", "efficientad_stream"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *what, *args], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_names_every_command() -> None:
    done = call("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)


def test_version() -> None:
    done = call("--version")
    assert (done.returncode, done.stdout) == (0, f"efficientad-stream {__version__}\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_in_the_table_explains_itself(name: str) -> None:
    done = call(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: efficientad-stream {name}")


@pytest.mark.parametrize(
    "args", [["--help"], ["config", "check", EXAMPLE], ["config", "show", EXAMPLE]]
)
def test_light_commands_import_no_engine(args: list[str]) -> None:
    done = call(*args, code=LOADED)
    assert done.returncode == 0
    assert done.stderr.split() == []


@pytest.mark.parametrize("name", ["watch", "journal"])
def test_commands_that_do_not_score_import_no_engine(name: str) -> None:
    done = call(name, "--help", code=LOADED)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "cv2", "safetensors"} & set(done.stderr.split())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "a command is missing; see 'efficientad-stream --help'"),
        (["wach"], "unknown command 'wach'; did you mean watch?"),
        (["zzz"], f"unknown command 'zzz'; known: {', '.join(cli.COMMANDS)}"),
        (["--verbose"], "unrecognized arguments: --verbose; see 'efficientad-stream --help'"),
        (
            ["config"],
            "the following arguments are required: ACTION; see 'efficientad-stream config --help'",
        ),
        (
            ["config", "check"],
            "the following arguments are required: FILE; "
            "see 'efficientad-stream config check --help'",
        ),
        (["config", "check", "no.yaml"], "no.yaml: cannot be read: No such file or directory"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(args: list[str], said: str) -> None:
    done = call(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"efficientad-stream: {said}\n"


def test_config_check_summarises() -> None:
    done = call("config", "check", EXAMPLE)
    assert done.returncode == 0
    assert done.stdout.startswith("ok\nstation demo: simulated -> ")


def test_config_show_is_a_configuration(tmp_path: Path) -> None:
    shown = call("config", "show", EXAMPLE, "--set", "source.parts=7")
    (tmp_path / "shown.yaml").write_text(shown.stdout)
    again = call("config", "show", str(tmp_path / "shown.yaml"))
    assert again.stdout == shown.stdout
    assert "parts: 7" in shown.stdout


def test_config_schema_is_json() -> None:
    done = call("config", "schema", code=LOADED)
    assert done.returncode == 0
    assert '"SimulatedSource"' in done.stdout
    assert done.stderr.split() == []


@pytest.mark.parametrize("error", [ArtifactError, FatalError])
def test_errors_end_with_their_own_code(
    error: type[EfficientADError],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(argv: list[str]) -> int:
        raise error("recipe.yaml: gone")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main([]) == error.exit_code
    assert capsys.readouterr().err == "efficientad-stream: recipe.yaml: gone\n"


def test_an_interrupt_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert cli.main([]) == 130
    assert capsys.readouterr().err == ""


def test_a_defect_says_so_and_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defect(argv: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_dispatch", defect)
    assert cli.main([]) == cli.EXIT_INTERNAL
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert said.endswith("internal error, please report it with the lines above\n")


def test_a_library_that_is_not_there_is_one_line() -> None:
    done = call(code=WITHOUT)
    assert done.returncode == 4
    assert done.stderr.startswith("efficientad-stream: cannot load msgspec: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "efficientad_stream", "config", "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_closed_standard_files_are_replaced_before_anything_else_takes_their_numbers() -> None:
    look = """
import os, sys
from efficientad_stream.cli import main
code = main(["config", "check", "/nowhere.yaml"])
taken = {os.readlink(f"/proc/self/fd/{n}") for n in range(3)}
os._exit(code if taken == {"/dev/null"} and sys.stderr is not None else 99)
"""
    command = [sys.executable, "-c", look]
    shell = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *command]
    assert subprocess.run(shell, timeout=60, check=False).returncode == 2


def test_a_name_that_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["journal", "ls", "/" + "x" * 5000]) == 1
    words = capsys.readouterr().err
    assert words.startswith("efficientad-stream: '/xxx")
    assert words.endswith("...': File name too long; give another file or folder\n")
    assert len(words) < 400


def test_a_failure_of_the_system_without_a_file_is_a_defect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_dispatch", lambda _argv: (_ for _ in ()).throw(OSError(5, "I/O")))
    assert cli.main(["config"]) == 70
    assert "please report it" in capsys.readouterr().err


def test_a_full_disk_under_standard_output_is_one_line() -> None:
    command = [sys.executable, "-m", "efficientad_stream", "config", "schema"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    words = "standard output cannot be written: No space left on device"
    assert (done.returncode, done.stderr) == (1, f"efficientad-stream: {words}\n")
