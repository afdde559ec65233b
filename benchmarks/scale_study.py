"""A study of as many models and schemes as asked for, to plan: its models have pins that no hub knows."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
WEIGHT_BITS = (8, 7, 6, 5, 4, 3, 2)
GROUPS = (128, 64, 32, 16)


def wide_study(models: int, schemes: int) -> dict[str, Any]:
    """The overlay of a study of all chapters: so many models of the hub, and the default's schemes and more.

    Only a plan can be made of it. Smoothed, searched and rotated schemes are among the first, as in the default study.
    """
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    own = {
        f"w{bits}a16-g{size}": {
            "weights": {"bits": bits, "granularity": "per_group", "group_size": size, "symmetric": False}
        }
        for size in GROUPS
        for bits in WEIGHT_BITS
    }
    named = [*default["study"]["schemes"], *(name for name in own if name not in default["schemes"])]
    names = [f"model-{number:02}" for number in range(models)]
    return {
        "models": {
            name: {"source": "hub", "id": f"nobody/{name}", "revision": f"{number:040x}"}
            for number, name in enumerate(names)
        },
        "schemes": {name: entry for name, entry in own.items() if name not in default["schemes"]},
        "study": {"models": names, "schemes": named[:schemes]},
    }
