"""Distillation of the teacher: a PDN learns to describe patches as a pretrained backbone does.

Source: arXiv 2303.14535, section 3.1 and its appendix: mean squared error, Adam, weight decay 1e-5,
grey-scale with probability 0.1; the targets are in ``targets``.

Ours are two choices, off by default. The PDN can train unpadded, as it inspects, so that no
position learns from padding. And batch normalisation may stand between the layers while they train,
folded away at the end, because plain default initialisation learns very slowly.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.model.backbone import load_backbone
from efficientad_stream.model.checkpoint import load_checkpoint, save_checkpoint
from efficientad_stream.model.networks import PDN, Size, channels_last
from efficientad_stream.model.settings import Done
from efficientad_stream.model.targets import VIEW, Kind, Target, ViewPool
from efficientad_stream.model.widen import calm, start_from

CALMING_CROPS = 32
"""Crops that show how the layers' outputs spread before batch normalisation is put between."""


@dataclass(frozen=True)
class DistillSettings:
    """One distillation; the defaults are the paper's where it names them.

    Attributes:
        steps: optimiser steps; 0 if ``seconds`` says when to stop.
        seconds: time budget in seconds, continued across resumes; 0 if ``steps`` says.
        batch, crop: crops a step and their side in pixels (multiple of 4, 64 to 256).
        views: how many views of images the pool holds (see ``targets.VIEW_BYTES``); as many are
            measured for the normalisation of the targets.
        crops_per_view: how often a view is used before it is replaced, on average.
        padding: pad as the paper does while distilling; off: train as the PDN inspects.
        batch_norm: normalise between layers while training and fold it away at the end.
        cosine: lower the learning rate along a cosine to zero; off: constant as in the paper.
        begun_from: SHA-256 of the teacher that the weights begin as; "" for random weights.
        targets, target_scale: what the backbone is asked for, see ``targets.Target``.
    """

    size: Size = "S"
    steps: int = 60_000
    seconds: float = 0.0
    batch: int = 16
    crop: int = VIEW
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    grey_probability: float = 0.1
    views: int = 512
    crops_per_view: int = 16
    padding: bool = True
    batch_norm: bool = False
    cosine: bool = False
    bfloat16: bool = False
    seed: int = 0
    begun_from: str = ""
    targets: Kind = "mixed"
    target_scale: int = 2


class NormalisedPDN(nn.Module):
    """A PDN with batch normalisation after every convolution but the last, while it trains."""

    def __init__(self, pdn: PDN, batch_norm: bool) -> None:
        super().__init__()
        self.pdn = pdn
        self.hidden = [name for name, _ in pdn.named_children()][:-1]
        self.norms = nn.ModuleDict(
            {n: nn.BatchNorm2d(getattr(pdn, n).out_channels) for n in self.hidden if batch_norm}
        )

    def forward(self, x: Tensor, padding: bool) -> Tensor:
        """As ``PDN.forward``, normalised on the way."""
        for index, name in enumerate(self.hidden):
            layer = getattr(self.pdn, name)
            x = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding if padding else 0)
            x = F.relu(self.norms[name](x) if self.norms else x)
            if index < 2:
                x = F.avg_pool2d(x, 2, 2, 1 if padding else 0)
        last: nn.Conv2d = list(self.pdn.children())[-1]  # type: ignore[assignment]
        return F.conv2d(x, last.weight, last.bias)

    @torch.no_grad()
    def calm(self, x: Tensor, padding: bool) -> None:
        """Let the normalisations change nothing of what a trained PDN says of ``x``."""
        for index, name in enumerate(self.hidden):
            layer = getattr(self.pdn, name)
            x = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding if padding else 0)
            norm = self.norms[name]
            assert isinstance(norm, nn.BatchNorm2d)
            calm(norm, x)
            x = F.relu(x)
            if index < 2:
                x = F.avg_pool2d(x, 2, 2, 1 if padding else 0)

    @torch.no_grad()
    def folded(self) -> PDN:
        """The plain PDN that computes the same as this one in evaluation mode."""
        size = self.pdn.size
        plain = PDN(size, list(self.pdn.children())[-1].out_channels)  # type: ignore[arg-type]
        plain.load_state_dict(self.pdn.state_dict())
        for name, norm in self.norms.items():
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            layer = getattr(plain, name)
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            layer.weight.mul_(scale.view(-1, 1, 1, 1))
            layer.bias.copy_((layer.bias - norm.running_mean) * scale + norm.bias)
        return plain


@dataclass
class Progress:
    """How far a distillation has come."""

    step: int = 0
    elapsed: float = 0.0
    loss: float = math.nan
    """Moving average of the mean squared error; 1 is the variance of the targets."""


class Distillation:
    """A distillation under way: begun anew or taken up from its checkpoint in ``out``."""

    def __init__(
        self,
        images: Sequence[Path],
        settings: DistillSettings,
        out: Path,
        device: torch.device,
        start: PDN | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.out = settings, out
        self.progress = Progress()
        pdn = PDN(settings.size)
        if start is not None:
            start_from(pdn, start)
        self._begins_trained = start is not None
        self.net = channels_last(NormalisedPDN(pdn, settings.batch_norm).to(device))
        self.optimiser = torch.optim.Adam(
            self.net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        backbone = channels_last(load_backbone())
        self.target = Target(backbone, settings.targets, settings.target_scale).to(device)
        self.pool = ViewPool(
            images,
            self.target,
            settings.views,
            bfloat16=settings.bfloat16,
            grey_probability=settings.grey_probability,
            seed=settings.seed,
        )
        self._views = self.pool.views()

    @property
    def checkpoint(self) -> Path:
        """File that an interrupted run is taken up from."""
        return self.out.with_suffix(".checkpoint.safetensors")

    def prepare(self, say: Callable[[str], None]) -> None:
        """Take up the checkpoint, or fit the targets' normalisation; then fill the pool."""
        if self.checkpoint.exists():
            self._resume()
            say(f"resumed at step {self.progress.step} from {self.checkpoint.name}")
        else:
            say("measuring mean and deviation of the backbone's features")
            self.target.fit(self._views, self.settings.views, self.settings.bfloat16)
        say(f"filling the pool with {self.settings.views} views")
        self.pool.renew(self._views, self.settings.views)
        if self._begins_trained and self.settings.batch_norm and not self.progress.step:
            rgb, _ = self.pool.draw(CALMING_CROPS, self.settings.crop, padding=False)
            self.net.calm(rgb, self.settings.padding)

    def fraction(self) -> float:
        """How much of the work is done, 0 to 1."""
        if self.settings.seconds:
            return min(1.0, self.progress.elapsed / self.settings.seconds)
        return min(1.0, self.progress.step / self.settings.steps)

    def step(self) -> None:
        """One optimiser step, and the share of new views that is due."""
        began = time.monotonic()
        if self.settings.cosine:
            warm_up = min(1.0, (self.progress.step + 1) / 200)
            rate = warm_up * (1 + math.cos(math.pi * self.fraction())) / 2
            self.optimiser.param_groups[0]["lr"] = self.settings.learning_rate * rate
        s = self.settings
        rgb, target = self.pool.draw(s.batch, s.crop, padding=s.padding)
        with torch.autocast(rgb.device.type, torch.bfloat16, enabled=self.settings.bfloat16):
            described = self.net(rgb, self.settings.padding)
        loss = F.mse_loss(described.float(), target)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        per_step, due = self.settings.batch / self.settings.crops_per_view, self.progress.step
        self.pool.renew(self._views, int((due + 1) * per_step) - int(due * per_step))
        p, value = self.progress, loss.item()
        p.loss = value if math.isnan(p.loss) else 0.99 * p.loss + 0.01 * value
        p.step += 1
        p.elapsed += time.monotonic() - began

    def save(self) -> None:
        """Write the checkpoint and a line of the loss curve.

        Raises:
            ArtifactError: it cannot be written.
        """
        p = self.progress
        done = Done(p.step, p.elapsed)
        save_checkpoint(self.checkpoint, self._state(), self.optimiser, self._identity(), done)
        curve = self.out.with_suffix(".csv")
        try:
            with curve.open("a", newline="") as file:
                csv.writer(file).writerow([p.step, f"{p.elapsed:.1f}", f"{p.loss:.5f}"])
        except OSError as error:
            raise ArtifactError(f"{curve}: cannot be written: {error.strerror}") from error

    def _resume(self) -> None:
        done = load_checkpoint(self.checkpoint, self._state(), self.optimiser, self._identity())
        self.progress = Progress(done.steps, done.seconds)

    def _state(self) -> nn.Module:
        """Everything learnt: the net and the normalisation of its targets, not the backbone."""
        norms = nn.ParameterDict({"mean": self.target.mean, "std": self.target.std})
        return nn.ModuleDict({"net": self.net, "target": norms})

    def _identity(self) -> dict[str, str]:
        """The settings, so that a checkpoint is only taken up by the run that it belongs to."""
        return {name: json.dumps(value) for name, value in asdict(self.settings).items()}
