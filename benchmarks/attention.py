"""What capturing attention takes at 2,048 tokens beside the plain forward pass, in time and in peak memory."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.integer import seconds_by_round
from inferometer.attention.capture import capture
from inferometer.device import Device, choose_device
from inferometer.heads import heads_of
from inferometer.manifest import Manifest
from inferometer.models import load_model
from inferometer.profiling.generation import random_prompt

TOKENS = 2048
ROUNDS = 5
WANTED_MB, WANTED_RATIO = 32, 2.2
PLAIN, CAPTURE = "plain forward pass", "capture"


def _added_peak_mb(arm: Callable[[], object], device: Device) -> float:
    """How far the peak of a call lies above what is in memory before it."""
    arm()
    device.trim_memory()
    before = device.memory_bytes()
    device.reset_peak_memory()
    arm()
    return (device.peak_memory_bytes() - before) / 1e6


def bench_attention(sources: Path) -> None:
    """Print the time and the peak memory of a capture beside those of the plain pass; the arms take turns.

    Both make the logits of the last token alone, which would otherwise hide what attention takes.
    """
    manifest, device = Manifest.read(sources / "model.json"), choose_device("auto")
    model = load_model(manifest, sources / "checkpoint", device)
    tokens = random_prompt(model, 1, TOKENS)

    @torch.inference_mode()
    def plain() -> None:
        model(tokens, logits_to_keep=1)

    arms: dict[str, Callable[[], object]] = {PLAIN: plain, CAPTURE: lambda: capture(model, tokens)}
    rounds = [{name: _added_peak_mb(arm, device) for name, arm in arms.items()} for _ in range(ROUNDS)]
    peaks = {name: median(peak[name] for peak in rounds) for name in arms}
    seconds = seconds_by_round(arms, device, ROUNDS)
    ratio = median(own / base for base, own in zip(seconds[PLAIN], seconds[CAPTURE], strict=True))
    heads = heads_of(model.config.to_dict(), "the configuration").query_heads
    weights_mb = manifest.layers * heads * TOKENS**2 * model.dtype.itemsize / 1e6
    print(f"\nAttention captured at {TOKENS:,} tokens on {device.name}, medians of {ROUNDS} interleaved rounds")
    print(f"{'':24}{'s':>8}{'ratio':>8}{'peak MB':>9}")
    for name in arms:
        shown = f"{ratio:8.2f}" if name == CAPTURE else f"{'':8}"
        print(f"{name:24}{median(seconds[name]):8.2f}{shown}{peaks[name]:9.1f}")
    print(f"wanted of the capture: at most {WANTED_RATIO} of the time; at most {WANTED_MB} MB more at the peak,")
    print(f"which are {peaks[CAPTURE] - peaks[PLAIN]:.1f} MB here; output_attentions would hold {weights_mb:,.0f} MB")
    print("of weights (computed from their shape, not run)")
