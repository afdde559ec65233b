"""Studies of tiny models in folders of their own, and real snakemake processes that run them.

The project is copied before anything runs, so that a test may change its code, and so that a file which the
project needs but does not name is missed. Home and temporary files of the processes lie beside the copy.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tokenizers import pre_tokenizers

from tests.tiny import CONFIGS, WORDS, tiny_checkpoint, tiny_texts, tiny_tokenizer

ROOT = Path(__file__).parents[2]
PROJECT_PARTS = ("Snakefile", "rules", "workflow", "inferometer", "config", "report", "profiles")
WINDOW_TOKENS = 32
WINDOWS = 6
ROTATED = "w4a4-rotated-g16"  # the widths of the tiny model are no multiples of the default's groups
SEARCHED = "w8a8-smooth-all"
SMOOTHED = ("w8a8-smooth", SEARCHED)
SCHEMES = ("fp", "w8a8", "w8a8-integer", *SMOOTHED, "w4a4", ROTATED, "nf4-bnb")
ITEMS = 4
SENSITIVE = "w4a4"
CACHE_POLICIES = ("float", "static-4", "entropy")
CHOOSING = ("entropy",)
SENSITIVITY_TOKENS = 16
TIMEOUT_S = 1200
CONNECTIONS = "INFEROMETER_TEST_CONNECTIONS"

# Found by Python when it starts: no process of a test reaches beyond this machine, and each attempt is noted.
NO_NETWORK = f'''
import os
import socket


def _refusing(function):
    def checked(*arguments, **options):
        address = arguments[1] if isinstance(arguments[0], socket.socket) else arguments[0]
        host = address[0] if isinstance(address, tuple) else address
        local = not isinstance(host, str) or host in ("", "localhost", "::1") or host.startswith(("127.", "/", "\\0"))
        if local:
            return function(*arguments, **options)
        with open(os.environ["{CONNECTIONS}"], "a") as notes:
            notes.write(f"{{host}}\\n")
        raise OSError(f"the test refuses a connection to {{host}}")

    return checked


socket.socket.connect = _refusing(socket.socket.connect)
socket.socket.connect_ex = _refusing(socket.socket.connect_ex)
socket.getaddrinfo = _refusing(socket.getaddrinfo)
'''

_JOB = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):")
_WILDCARDS = re.compile(r" {4}wildcards: (.+)")


@dataclass(frozen=True)
class Outcome:
    """How a snakemake process ended, and all that it wrote to standard output and standard error."""

    status: int
    output: str

    @property
    def jobs(self) -> set[str]:
        """The jobs that ran or would run, such as `report` or `evaluate tiny/fp`: a rule and its wildcards' values.

        The target `all` is left out. What is read from the listing must agree with snakemake's own count, and a
        run without jobs must have said so.
        """
        assert self.status == 0, self.output
        found = jobs_of(self.output)
        assert found or "Nothing to be done" in self.output, self.output
        return found

    @property
    def sentence(self) -> str:
        """The output on one line, so that a sentence can be looked for."""
        return " ".join(self.output.split())


def jobs_of(output: str) -> set[str]:
    """The jobs that snakemake's output announces, held against its table of job counts."""
    jobs: list[str] = []
    for line in output.splitlines():
        if job := _JOB.fullmatch(line):
            jobs.append(job.group(1))
        elif wildcards := _WILDCARDS.fullmatch(line):
            values = (pair.split("=", 1)[1] for pair in wildcards.group(1).split(", "))
            jobs[-1] += " " + "/".join(values)
    _, _, table = output.partition("Job stats:\n")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", table.split("\n\n")[0], flags=re.MULTILINE))
    announced = {rule: int(count) for rule, count in counts.items() if rule != "total"}
    assert Counter(job.split()[0] for job in jobs) == announced, output
    assert len(set(jobs)) == len(jobs), output
    return {job for job in jobs if job != "all"}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of modification of every file below a folder, Python's own caches left out."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


@dataclass(frozen=True)
class Place:
    """A copy of the project, and where its processes find a home, a temporary folder and no network."""

    project: Path
    outside: Path

    @staticmethod
    def make(folder: Path) -> "Place":
        """Copy the project into a folder, and make a home and so on beside it."""
        place = Place(folder / "project", folder / "outside")
        copy_project(ROOT, place.project)
        for path in (place.home, place.temporary, place.overlays, place.hook.parent):
            path.mkdir(parents=True)
        place.hook.write_text(NO_NETWORK, encoding="utf-8")
        return place

    @property
    def home(self) -> Path:
        """The home of whoever runs snakemake."""
        return self.outside / "home"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files."""
        return self.outside / "tmp"

    @property
    def overlays(self) -> Path:
        """The folder for configuration overlays."""
        return self.outside / "overlays"

    @property
    def hook(self) -> Path:
        """The module that Python imports when it starts, and that refuses connections."""
        return self.outside / "hook" / "sitecustomize.py"

    @property
    def connections(self) -> Path:
        """The file that notes each attempt to reach another machine."""
        return self.outside / "connections.txt"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user with an empty home, who has set nothing up."""
        own = ("HF_", "TRANSFORMERS_", "SNAKEMAKE_", "XDG_", "PYTHON", "MPL", "COLUMNS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        return {
            **kept,
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join([str(self.hook.parent), str(self.project)]),
            CONNECTIONS: str(self.connections),
        }


def copy_project(source: Path, target: Path) -> None:
    """Copy what a checkout of the project holds; every file is as new as the copy."""
    for part in PROJECT_PARTS:
        if (source / part).is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / part, target / part)
        else:
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source / part, target / part, copy_function=shutil.copyfile, ignore=unwanted)


def dry_runs(studies: Iterable["Study"]) -> list[Outcome]:
    """Dry runs of several studies, as many at once as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda study: study.snakemake("--dry-run"), studies))


Change = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Study:
    """A folder with models and texts in which snakemake runs, and the configuration overlay that it is given."""

    folder: Path
    place: Place
    config: Mapping[str, Any]

    def changed(self, change: Change) -> "Study":
        """The same folder with another configuration: `change` alters a copy of this one in place."""
        config = json.loads(json.dumps(self.config))
        change(config)
        return dataclasses.replace(self, config=config)

    def with_project(self, project: Path) -> "Study":
        """The same folder, run by another copy of the project."""
        return dataclasses.replace(self, place=dataclasses.replace(self.place, project=project))

    def copy(self, folder: Path) -> "Study":
        """A copy of the folder, results and snakemake's own records included, times of modification kept."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return dataclasses.replace(self, folder=folder)

    def command(self, *arguments: str, targets: Sequence[str] = ()) -> list[str]:
        """The command line that runs the study; its overlay is written as a file."""
        content = yaml.safe_dump(dict(self.config), sort_keys=False)
        overlay = self.place.overlays / f"{hashlib.sha256(content.encode()).hexdigest()}.yaml"
        overlay.write_text(content, encoding="utf-8")
        snakefile = self.place.project / "Snakefile"
        options = ["--snakefile", str(snakefile), "--directory", str(self.folder), "--configfile", str(overlay)]
        faster = ["--cores", "2", "--resources", "gpu=2"]
        return [sys.executable, "-m", "snakemake", *options, *faster, *arguments, "--", *targets]

    def snakemake(self, *arguments: str, targets: Sequence[str] = (), wrapper: Sequence[str] = ()) -> Outcome:
        """Run snakemake to its end, with its output in a pipe; `wrapper` is a command that takes its command line."""
        done = subprocess.run(
            [*wrapper, *self.command(*arguments, targets=targets)],
            env=self.place.environment,
            cwd=self.place.outside,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Outcome(done.returncode, done.stdout)

    def start(self, output: Path, *, targets: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start snakemake as the leader of a process group of its own, with its output in a file."""
        with output.open("wb") as sink:
            return subprocess.Popen(
                self.command(targets=targets),
                env=self.place.environment,
                cwd=self.place.outside,
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
            )

    def would_run(self, *targets: str) -> set[str]:
        """The jobs that a dry run announces."""
        return self.snakemake("--dry-run", targets=targets).jobs

    @property
    def results(self) -> Path:
        """Where results lie."""
        return self.folder / "results"


def setting(value: object, *keys: str) -> Change:
    """A change of one configuration key."""

    def change(config: dict[str, Any]) -> None:
        *sections, last = keys
        for section in sections:
            config = config.setdefault(section, {})
        config[last] = value

    return change


def new_study(folder: Path, place: Place) -> Study:
    """A folder with a tiny model, two texts and questions, and a study of them beside a model that is a shape only."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")]
    )  # so that it matters how texts are joined
    tokenizer.save_pretrained(tiny_checkpoint(folder / "models" / "tiny"))
    texts = folder / "texts"
    texts.mkdir()
    (texts / "calibration.txt").write_text("\n".join(tiny_texts(seed=1)), encoding="utf-8")
    lines = [json.dumps({"passage": text}) for text in tiny_texts(seed=2)]
    (texts / "evaluation.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = [text.split() for text in tiny_texts(count=6, words=10, seed=3)]
    questions = [
        {"activity_label": text[0], "ctx_a": text[1], "ctx_b": text[2], "endings": text[3:6], "label": place % 3}
        for place, text in enumerate(words)
    ]
    lines = [json.dumps(question) for question in questions]
    (texts / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shape = {**CONFIGS["llama"], "vocab_size": len(WORDS), "max_position_embeddings": 128}
    config = {
        "models": {
            "tiny": {"source": "local", "path": "models/tiny", "licence": "CC0-1.0"},
            "shape": {"source": "architecture", "config": shape, "seed": 7},
        },
        "corpora": {
            "calibration-text": {"source": "local", "path": "texts/calibration.txt", "format": "txt"},
            "evaluation-text": {
                "source": "local",
                "path": "texts/evaluation.jsonl",
                "format": "jsonl",
                "text_key": "passage",
            },
        },
        "question_sets": {"quiz": {"source": "local", "path": "texts/questions.jsonl", "format": "hellaswag"}},
        "schemes": {
            ROTATED: {
                "weights": {
                    "bits": 4,
                    "granularity": "per_group",
                    "group_size": 16,
                    "symmetric": False,
                    "rounding": "gptq",
                },
                "activations": {"bits": 4, "granularity": "per_token", "symmetric": False},
                "rotation": {"seed": 0},
            }
        },
        "study": {"title": "A tiny study", "models": ["tiny", "shape"], "schemes": list(SCHEMES)},
        "calibration": {
            "corpus": "calibration-text",
            "window_tokens": WINDOW_TOKENS,
            "max_windows": 4,
            "rounding_windows": 3,
            "layers": ["first", "last"],
        },
        "evaluation": {
            "corpus": "evaluation-text",
            "window_tokens": WINDOW_TOKENS,
            "max_windows": WINDOWS,
            "choices": {"question_sets": ["quiz"], "max_items": ITEMS},
            "sensitivity": {"schemes": [SENSITIVE], "window_tokens": SENSITIVITY_TOKENS},
        },
        "capacity": {
            "models": ["smollm2-135m"],
            "gpus": ["t4"],
            "context_tokens": [1024],
            "gpu_counts": [1, 3],
            "intensity": {"context_tokens": [256], "batches": [1, 10]},
        },
        "profiling": {
            "dtypes": ["float32"],
            "repetitions": 2,
            "seconds": 0,
            "latency": {"prompt_tokens": [2, 4, 8, 16], "new_tokens": 3},
            "memory": {"prompt_tokens": 4, "new_tokens": [2, 4, 6]},
            "cache": {"prompt_tokens": [2, 8], "new_tokens": 2},
            "kernels": {"tokens": [8]},
            "baseline": {"batches": [1, 2], "new_tokens": 2},
            "architectures": {"prompt_tokens": [2, 4], "new_tokens": [2, 4, 6]},
        },
        "kv_cache": {
            "policies": {
                "static-4": {"bits": 4, "group_size": 8},
                "entropy": {"feature": "entropy", "widths": [2, 4, 8], "average_bits": 4, "group_size": 8},
            },
            "schemes": {"fp": list(CACHE_POLICIES), "nf4-bnb": ["float", "entropy"]},
            "corpus": "evaluation-text",
            "window_tokens": WINDOW_TOKENS,
            "max_windows": 2,
            "context_tokens": 8,
            "step_tokens": 8,
            "choices": {"question_sets": ["quiz"], "max_items": 2, "shots": 1},
            "prompt_tokens": [8, 24],
            "repetitions": 2,
            "seconds": 0,
            "trace": {"prompt": "word1 word2", "new_tokens": 6},
        },
        "generation": {
            "new_tokens": 12,
            "insertions": {"corpus": "evaluation-text", "context_tokens": 32, "contexts": 3},
            "sampling": {"temperatures": [0, 1], "seeds": [0, 1], "new_tokens": 6},
        },
        "attention": {
            "inputs": {
                "corpora": ["evaluation-text"],
                "question_sets": [],
                "lengths": {
                    "short": {"tokens": 8, "texts": 2},
                    "medium": {"tokens": 16, "texts": 2},
                    "long": {"tokens": 48, "texts": 2},
                },
            },
            "first_token": {"input": "evaluation-text"},
            "rounding": {
                "corpus": "evaluation-text",
                "window_tokens": WINDOW_TOKENS,
                "max_windows": 2,
                "context_tokens": 16,
                "step_tokens": 8,
            },
            "eviction": {"corpus": "evaluation-text", "window_tokens": 8, "sink_tokens": [2], "max_windows": 2},
        },
        "fundamentals": {
            "digits": {"epochs": 1, "seeds": [0], "bits": [8, 2]},
            "decoder": {"tokens": [2, 5], "repetitions": 2},
        },
        "device": "cpu",
    }
    return Study(folder, place, config)
