"""The rule of continuous integration: a skipped test is a failed one, unless it needs a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = """
    import pytest

    @pytest.mark.skip(reason="no data")
    def test_skipped():
        pass

    @pytest.mark.gpu
    @pytest.mark.skip(reason="no NVIDIA GPU")
    def test_gpu():
        pass

    @pytest.mark.xfail
    def test_known():
        assert False
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    here = Path(__file__).with_name("conftest.py").read_text().replace('["pytester"]', "[]")
    pytester.makeconftest(here)
    pytester.makeini("[pytest]\nmarkers = gpu: needs one")
    return pytester


def test_in_ci_a_skip_fails_and_is_named(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    project.makepyfile(TESTS)
    result = project.runpytest_subprocess()
    result.assert_outcomes(errors=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*test_skipped: skipped, which continuous integration*no data*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_in_ci_a_skipped_module_fails(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    project.makepyfile("import pytest\npytest.importorskip('no_such_module')")
    result = project.runpytest_subprocess()
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*skipped, which continuous integration*no_such_module*"])


def test_elsewhere_a_skip_is_a_skip(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    project.makepyfile(TESTS)
    project.runpytest_subprocess().assert_outcomes(skipped=2, xfailed=1)
