from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from efficientad_stream.cli import main
from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.model.artifact import load_teacher, save_teacher
from efficientad_stream.model.networks import IMAGENET_MEAN, IMAGENET_STD, PDN
from efficientad_stream.model.teacher_import import read_published


def sequential_s() -> nn.Sequential:
    """A teacher of size S as a plain sequence of layers, the way one project writes it."""
    return nn.Sequential(
        nn.Conv2d(3, 128, 4),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(128, 256, 4),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(256, 256, 3),
        nn.ReLU(),
        nn.Conv2d(256, 384, 4),
    )


def sequential_m() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 256, 4),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(256, 512, 4),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(512, 512, 1),
        nn.ReLU(),
        nn.Conv2d(512, 512, 3),
        nn.ReLU(),
        nn.Conv2d(512, 384, 4),
        nn.ReLU(),
        nn.Conv2d(384, 384, 1),
    )


@pytest.mark.parametrize(("published", "size"), [(sequential_s, "S"), (sequential_m, "M")])
def test_a_sequential_teacher_describes_as_before(
    published: type[nn.Sequential], size: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = published()
    path, out = tmp_path / "teacher.pth", tmp_path / "teacher.safetensors"
    torch.save(net.state_dict(), path)
    assert main(["teacher", "import", str(path), "--out", str(out)]) == 0
    loaded = load_teacher(out)
    assert loaded.size == size
    assert loaded.info["imported_from"] == "teacher.pth"
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    x = (torch.rand(1, 3, 64, 64) - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        was, now = net(x), loaded.pdn(x, padding=False)
    assert (was - now).abs().max() < 1e-2 * was.std()


@pytest.mark.parametrize("size", ["S", "M"])
def test_a_named_teacher_is_taken_as_it_is(size: str, tmp_path: Path) -> None:
    pdn = PDN("S" if size == "S" else "M")
    path = tmp_path / "teacher.pt"
    torch.save(OrderedDict(pdn.state_dict()), path)
    found, notes = read_published(path, None)
    assert found.size == size
    assert notes["layout"] == "named"
    assert all(
        torch.equal(a, b)
        for a, b in zip(found.state_dict().values(), pdn.state_dict().values(), strict=True)
    )
    with pytest.raises(ArtifactError, match=f"of size {size}, not"):
        read_published(path, "M" if size == "S" else "S")


class Evil:
    """Runs code when it is unpickled, unless the loader refuses to."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (Path("unpickled"),))


def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    for write in (
        lambda: torch.save({"0.weight": Evil()}, path),
        lambda: path.write_bytes(pickle.dumps(Evil())),
    ):
        write()
        with pytest.raises(ArtifactError, match="can be loaded safely"):
            read_published(path, None)
    assert not Path("unpickled").exists()


def broken(state: dict[str, torch.Tensor]) -> dict[str, object]:
    """Things that are not quite a teacher."""
    return {
        "a list": list(state.values()),
        "one more": {**state, "9.weight": torch.zeros(1)},
        "one less": dict(list(state.items())[:-1]),
        "shape": {**state, "0.weight": torch.zeros(128, 3, 3, 3)},
        "nan": {**state, "0.bias": torch.full((128,), float("nan"))},
        "integers": {**state, "0.bias": torch.zeros(128, dtype=torch.int64)},
        "text": {**state, "0.bias": "text"},
    }


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("a list", "holds a list, not a state dict"),
        ("one more", "are of no published teacher"),
        ("one less", "are of no published teacher"),
        ("shape", "0.weight is (128, 3, 3, 3), not (128, 3, 4, 4)"),
        ("nan", "0.bias holds values that are not finite"),
        ("integers", "0.bias holds values that are not finite"),
        ("text", "0.bias is str, not (128,)"),
    ],
)
def test_anything_else_is_refused_in_one_line(
    how: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "x.pth", tmp_path / "x.safetensors"
    torch.save(broken(dict(sequential_s().state_dict()))[how], path)
    assert main(["teacher", "import", str(path), "--out", str(out)]) == 3
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 broken zip"])
def test_files_of_another_kind(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="is not a PyTorch state dict"):
        read_published(path, None)
    with pytest.raises(ArtifactError, match="No such file"):
        read_published(tmp_path / "none", None)


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.safetensors"
    save_teacher(path, PDN("S"), {"steps": "60000"})
    assert main(["teacher", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert str(path) in shown
    assert "60000" in shown
    assert load_teacher(path).sha256 in shown
    assert main(["teacher", "import", str(path), "--out", str(path)]) == 3
    assert "exists already" in capsys.readouterr().err
    assert main(["teacher", "import", str(path), "--out", str(tmp_path / "t.pth")]) == 2
    assert "ends with .safetensors" in capsys.readouterr().err
