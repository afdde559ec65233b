"""What a 4-bit KV cache takes and costs at 2,048 tokens, beside a float one and that of optimum-quanto."""

from pathlib import Path
from statistics import median
from typing import Any

from inferometer.device import choose_device
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.speed import measure
from inferometer.manifest import Manifest
from inferometer.profiling.generation import load_to_profile, random_prompt
from inferometer.timing import Enough

TOKENS = 2048
REPETITIONS = 7
FLOAT, PACKED, LIBRARY = "float", "4 bits, groups of 64", "optimum-quanto, 4 bits"
POLICIES: dict[str, dict[str, Any]] = {
    FLOAT: {},
    PACKED: {"bits": 4, "group_size": 64},
    LIBRARY: {"library": "quanto", "bits": 4},
}


def bench_caches(sources: Path) -> None:
    """Print bytes, milliseconds a token and peaks of each cache over those of the float one, in two dtypes."""
    manifest, device = Manifest.read(sources / "model.json"), choose_device("auto")
    policies = [Policy.of(name, entry) for name, entry in POLICIES.items()]
    for dtype, share in (("float32", 0.16), ("bfloat16", 0.30)):
        model = load_to_profile(manifest, sources / "checkpoint", device, dtype)
        prompt = random_prompt(model, 1, TOKENS)
        found = measure(model, policies, prompt, Enough(REPETITIONS, 1.0), device)
        decode_ms = {name: median(float(row["wall_ms"]) for row in latency) for name, (latency, _) in found.items()}
        weighed = {name: memory[0] for name, (_, memory) in found.items()}
        print(
            f"\nKV caches of {TOKENS:,} tokens in {dtype} (wanted of 4 bits: at most {share} of the bytes, 1.25 of the"
        )
        print("time, less than the library's, and a lower peak)")
        print(f"{'':24}{'MB':>8}{'share':>8}{'ms/token':>10}{'ratio':>8}{'peak MB':>9}{'ratio':>8}")
        for name, row in weighed.items():
            print(
                f"{name:24}{row['cache_bytes'] / 1e6:8.1f}{row['cache_bytes'] / weighed[FLOAT]['cache_bytes']:8.3f}"
                f"{decode_ms[name]:10.1f}{decode_ms[name] / decode_ms[FLOAT]:8.2f}"
                f"{row['peak_bytes'] / 1e6:9.0f}{row['peak_bytes'] / weighed[FLOAT]['peak_bytes']:8.2f}"
            )
