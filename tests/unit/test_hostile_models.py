"""Model folders and GGUF files made to do harm: no foreign code runs and nothing outside is read.

A model's way is walked to its end: fetched, its tokenizer used on a prompt, its weights opened.
"""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from inferometer.config import ConfigError, read_study, validate
from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.models import load_model, load_tokenizer
from inferometer.sources.checkpoints import fetch_checkpoint
from inferometer.writing import encoded
from tests.tiny import tiny_checkpoint, tiny_model
from tests.unit.test_sources_checkpoints import write_gguf

ROOT = Path(__file__).parents[2]
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
PROMPT = "a" * 40
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"

Harm = Callable[[Path], object]


def open_wholly(folder: Path, checkpoint: Path) -> None:
    """Do all that jobs do with a model's files."""
    manifest = fetch_checkpoint("tiny", {"source": "local", "path": str(folder)}, checkpoint)
    encoded(load_tokenizer(manifest, checkpoint), PROMPT)
    load_model(manifest, checkpoint, Device("cpu", "any"))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """The file that every piece of foreign code in these tests writes when it runs."""
    return tmp_path / "canary"


@pytest.fixture
def folder(tmp_path: Path, canary: Path) -> Path:
    """A model's folder with code beside it, outside of which other files lie."""
    source = tiny_checkpoint(tmp_path / "source")
    code = f"open({str(canary)!r}, 'w')\nclass Own: pass\n"
    for name in ("modeling_own.py", "tokenization_own.py", "custom_generate/generate.py"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(code, encoding="utf-8")
    tiny_checkpoint(tmp_path / "outside")
    return source


class Commands:
    """What runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.command = f"touch {path}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def says(file: str, **fields: Any) -> Harm:
    """Change fields of a JSON file of the folder."""

    def change(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(content | fields), encoding="utf-8")

    return change


def holds(file: str, content: bytes) -> Harm:
    """Replace a file of the folder."""
    return lambda folder: (folder / file).write_bytes(content)


def links(file: str, target: str) -> Harm:
    """Make a file of the folder a link."""

    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return change


def indexed(*parts: Any) -> Harm:
    """An index of weights that names these files instead of one file of weights."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        names = {f"tensor{place}": part for place, part in enumerate(parts)}
        (folder / INDEX).write_text(json.dumps({"weight_map": names}), encoding="utf-8")

    return change


def with_header(header: Any, length: int | None = None) -> Harm:
    """Safetensors of 64 bytes of data, with a header that may lie about its own length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return holds(WEIGHTS, struct.pack("<Q", len(text) if length is None else length) + text + bytes(64))


def tensor(shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def chat(template: Any) -> Harm:
    return says("tokenizer_config.json", chat_template=template)


CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
OWN = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
DEEP = b"[" * 100_000 + b"]" * 100_000
UNUSABLE = "the chat template of the model can't be used"

REFUSED: dict[str, tuple[Harm, str]] = {
    "a configuration of its own": (says(CONFIG, model_type="own", auto_map=OWN), "without running foreign code"),
    "a tokenizer of its own": (
        says(TOKENIZER, auto_map={"AutoTokenizer": ["tokenization_own.Own", None]}, tokenizer_class="Own"),
        "without running foreign code",
    ),
    "a kernel from the hub": (says(CONFIG, attn_implementation="evil/kernel"), "is foreign code; take that out"),
    "experts from the hub": (says(CONFIG, _experts_implementation="evil/kernel"), "makes no model"),
    "weights outside, by name": (says(CONFIG, transformers_weights="../outside/model.safetensors"), "inside the model"),
    "weights rounded on the way": (
        says(CONFIG, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "it is rounded already",
    ),
    "an index out of the folder": (indexed("../outside/model.safetensors"), "lacks ../outside/model.safetensors"),
    "an index of pickles": (indexed("pytorch_model.bin"), "lacks pytorch_model.bin"),
    "an index of no names": (indexed(3, None, "x"), "lacks 3, None, x"),
    "an index of thousands": (indexed(*map(str, range(9999))), "…, which model.safetensors.index.json names"),
    "an index that is deep": (lambda f: (indexed()(f), holds(INDEX, DEEP)(f)), f"{INDEX} is damaged"),
    "a header beyond the file": (with_header({}, length=2**60), "damaged or cut short"),
    "a header of all that there is": (with_header({}, length=2**64 - 1), "damaged or cut short"),
    "a header that is deep": (with_header(DEEP), "damaged or cut short"),
    "tensors that overlap": (with_header({"a": tensor([8], 0, 32), "b": tensor([8], 16, 64)}), "damaged or cut short"),
    "a tensor beyond the file": (with_header({"a": tensor([16], 2**50, 2**50 + 64)}), "damaged or cut short"),
    "a shape beyond counting": (with_header({"a": tensor([2**40, 2**40], 0, 64)}), "damaged or cut short"),
    "a configuration that is deep": (holds(CONFIG, DEEP), "maximum recursion depth exceeded"),
    "a vocabulary beyond memory": (says(CONFIG, vocab_size=2**40), "calls for 35,184,372,112,096 parameters"),
    "layers without end": (says(CONFIG, num_hidden_layers=2**31), "more than 1,000 layers"),
    "no heads": (says(CONFIG, num_attention_heads=0), "modulo by zero"),
    "architectures of no text": (says(CONFIG, architectures=[{"a": 1}]), "not a causal language model"),
    "a tokenizer that is deep": (holds("tokenizer.json", DEEP), "no tokenizer that can be read"),
    "a tokenizer's settings as a list": (holds(TOKENIZER, b"[]"), "no tokenizer that can be read"),
    "generation settings as a list": (holds("generation_config.json", b"[1]"), "can't be loaded as transformers loads"),
    "text outside": (links("tokenizer.json", "../outside/tokenizer.json"), "is a link out of the model's folder"),
    "a system's file": (links("notes.json", "/etc/passwd"), "is a link out of the model's folder, to /etc/passwd"),
    "a link to itself": (links(CONFIG, CONFIG), "has no config.json"),
    "a device": (links(WEIGHTS, "/dev/zero"), f"has no {WEIGHTS}"),
    "a template that reads": (chat("{% include '/etc/passwd' %}"), UNUSABLE),
    "a template that looks around": (chat("{{ ''.__class__.__mro__[1].__subclasses__() }}"), "unsafe"),
    "a template that is no template": (chat("{% for %}"), UNUSABLE),
    "several templates": (chat({"a": "b"}), UNUSABLE),
    "a template of a hundred gigabytes": (chat("{{ 'a' * 10**11 }}"), UNUSABLE),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_folder_is_refused_in_a_sentence(what: str, folder: Path, canary: Path, tmp_path: Path) -> None:
    harm, told = REFUSED[what]
    harm(folder)
    with pytest.raises(InferometerError) as caught:
        open_wholly(folder, tmp_path / "checkpoint")
    said = str(caught.value)
    assert told in said
    assert said.isprintable()
    assert said.endswith(".")
    assert len(said) < 1000
    assert not canary.exists()


@pytest.mark.parametrize("file", [WEIGHTS, "pytorch_model.bin", "adapter_model.bin"])
@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_no_pickle_is_opened_whatever_its_name(
    file: str, write: str, folder: Path, canary: Path, tmp_path: Path
) -> None:
    pickled = Commands(canary)
    if write == "torch":
        torch.save({"weight": pickled}, folder / file)
    else:
        (folder / file).write_bytes(pickle.dumps(pickled))
    says("adapter_config.json", base_model_name_or_path="../outside", peft_type="LORA")(folder)
    if file == "pytorch_model.bin":
        (folder / WEIGHTS).unlink()
    if file == "adapter_model.bin":
        open_wholly(folder, tmp_path / "checkpoint")
        assert not (tmp_path / "checkpoint" / file).exists()
    else:
        with pytest.raises(InferometerError, match=r"damaged or cut short|pickled weights are never read"):
            open_wholly(folder, tmp_path / "checkpoint")
    assert not canary.exists()
    pickle.loads(pickle.dumps(pickled))
    assert canary.exists()  # so the canary would have told


@pytest.mark.parametrize(
    "harm",
    [
        says(CONFIG, auto_map=OWN),
        says(TOKENIZER, auto_map={"AutoTokenizer": [None, "tokenization_own.Own"]}),
        says(TOKENIZER, tokenizer_class="os.system"),
        says("processor_config.json", auto_map={"AutoProcessor": "tokenization_own.Own"}),
        says("generation_config.json", custom_generate="."),
        says(CONFIG, _name_or_path="/etc", _commit_hash="../.."),
    ],
    ids=["model", "tokenizer", "class", "processor", "generation", "path"],
)
def test_foreign_code_beside_what_transformers_knows_is_not_run(
    harm: Harm, folder: Path, canary: Path, tmp_path: Path
) -> None:
    harm(folder)
    open_wholly(folder, tmp_path / "checkpoint")
    assert not canary.exists()


def test_files_that_settings_name_outside_are_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    says(TOKENIZER, tokenizer_file=str(tmp_path / "outside" / "tokenizer.json"))(folder)
    with pytest.raises(InferometerError, match="no tokenizer that can be read"):
        open_wholly(folder, tmp_path / "checkpoint")


@pytest.mark.parametrize(
    "template",
    [
        "{{ lipsum.__globals__['os'].popen('touch CANARY') }}",
        "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    ],
)
def test_a_template_reaches_nothing_outside_itself(template: str, folder: Path, canary: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text(template.replace("CANARY", str(canary)), encoding="utf-8")
    with pytest.raises(InferometerError, match="unsafe"):
        open_wholly(folder, tmp_path / "checkpoint")
    assert not canary.exists()


def test_a_template_that_never_ends_is_stopped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferometer.writing.TEMPLATE_SECONDS", 0.5)
    chat(ENDLESS)(folder)
    with pytest.raises(InferometerError, match=r"it took longer than 0\.5 s"):
        open_wholly(folder, tmp_path / "checkpoint")


def test_weights_may_lie_elsewhere_and_so_may_the_files_of_the_hub_s_cache(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(tmp_path / "weights")
    (folder / WEIGHTS).symlink_to(tmp_path / "weights")
    open_wholly(folder, tmp_path / "one")
    snapshot = tmp_path / "models--x--y" / "snapshots" / "0"
    (snapshot.parents[1] / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file():
            path.resolve().rename(snapshot.parents[1] / "blobs" / path.name)
            (snapshot / path.name).symlink_to(Path("../../blobs", path.name))
    open_wholly(snapshot, tmp_path / "two")


def odd_gguf(path: Path, change: Callable[[bytearray], None]) -> Path:
    """A GGUF file with some of its bytes changed: magic, version, count of tensors, count of settings, settings."""
    content = bytearray(write_gguf(path, tiny_model()).read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def number(at: int, value: int) -> Callable[[bytearray], None]:
    """Put an unsigned number of 64 bits at a place."""
    return lambda content: struct.pack_into("<Q", content, at, value)


@pytest.mark.parametrize(
    "change",
    [number(8, 2**63), number(8, 2**40), number(16, 2**63), number(16, 2**40), number(24, 2**63), number(24, 2**40)],
    ids=["tensors", "many tensors", "settings", "many settings", "length", "long name"],
)
def test_a_gguf_file_that_lies_about_its_lengths_is_refused(
    change: Callable[[bytearray], None], tmp_path: Path
) -> None:
    path = odd_gguf(tmp_path / "tiny.gguf", change)
    with pytest.raises(InferometerError, match=r"tiny\.gguf can't be read as GGUF"):
        open_wholly(path, tmp_path / "checkpoint")


def test_a_gguf_file_of_an_architecture_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "../../evil")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InferometerError, match=r"tiny\.gguf can't be read as GGUF"):
        open_wholly(tmp_path / "tiny.gguf", tmp_path / "checkpoint")


def test_a_model_s_configuration_is_never_waited_for(tmp_path: Path) -> None:
    harms: dict[str, Harm] = {"pipe": os.mkfifo, "deep": lambda path: path.write_bytes(DEEP)}
    for name, harm in harms.items():
        (tmp_path / name).mkdir()
        harm(tmp_path / name / "config.json")
        study = read_study(ROOT, None)
        study["models"]["own"] = {"source": "local", "path": name}
        study["study"]["models"] = ["own"]
        with pytest.raises(ConfigError, match=rf"`models\.own\.path`: .*{name}/config\.json can't be read"):
            validate(study, ROOT, tmp_path)
