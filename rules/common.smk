# Names and settings that several chapters share.

from functools import cache

from snakemake.io import strip_wildcard_constraints
from snakemake.iocontainers import Wildcards

ROOT = Path(workflow.basedir)

MODELS = config["study"]["models"]
SCHEMES = config["study"]["schemes"]
MEASURED = [
    model for model in MODELS if config["models"][model]["source"] != "architecture"
]
SMOOTHED = [scheme for scheme in SCHEMES if "smoothing" in config["schemes"][scheme]]
SEARCHED = [
    scheme
    for scheme in SMOOTHED
    if isinstance(config["schemes"][scheme]["smoothing"]["alpha"], str)
]
ROTATED = [scheme for scheme in SCHEMES if "rotation" in config["schemes"][scheme]]
SEEDS = sorted({config["schemes"][scheme]["rotation"]["seed"] for scheme in ROTATED})
CACHE_POLICIES = list(
    dict.fromkeys(
        policy
        for policies in config["kv_cache"]["schemes"].values()
        for policy in policies
    )
)
CHOOSING_POLICIES = [
    policy
    for policy in CACHE_POLICIES
    if "feature" in config["kv_cache"]["policies"][policy]
]
SAMPLED_PROMPTS = (
    config["generation"]["prompts"] | config["generation"]["sampling"]["prompts"]
)
ATTENTION_INPUTS = [
    *config["attention"]["inputs"]["corpora"],
    *config["attention"]["inputs"]["question_sets"],
    *DUMMIES,
]
ATTENTION_FIGURES = [
    *(f"maps-{text}" for text in ATTENTION_INPUTS),
    *("sinks", "heads", "first_tokens", "residuals", "schemes", "eviction"),
]
REFERENCE = config["evaluation"]["reference"]
ROUNDED = [scheme for scheme in SCHEMES if scheme != REFERENCE]
SENSITIVE = config["evaluation"]["sensitivity"]["schemes"]
# What a job that runs a model takes of the resource `gpu`. Where a call limits it (`--resources gpu=1`), it is a turn, on a
# CPU too; where none does, it is what a scheduler is asked for, and a study on the CPU asks for no GPU.
TURNS = "gpu" in workflow.global_resources
GPUS = int(TURNS or config["device"] != "cpu")


wildcard_constraints:
    model="|".join(map(re.escape, config["models"])),
    corpus="|".join(map(re.escape, config["corpora"])),
    scheme="|".join(map(re.escape, config["schemes"])),
    policy="|".join(map(re.escape, config["kv_cache"]["policies"])),
    seed=r"\d+",
    text="|".join(map(re.escape, ATTENTION_INPUTS)),


def code(script, *data):
    """Digest of a script, of all library code that it imports, and of data files that it reads from the project."""
    files = tuple(path for pattern in data for path in sorted(ROOT.glob(pattern)))
    return code_version(ROOT / "workflow" / "scripts" / script, ROOT, data=files)


def of_chapter(chapter, *files):
    """What the study asks for of a chapter: these files, or none where `study.chapters` leaves it out."""
    return list(files) if chapter in config["study"]["chapters"] else []


def name_in_study(file):
    """A file's name as the rules write it, `results/…`, wherever results are kept."""
    stored = getattr(file, "storage_object", None)
    if stored is None:
        return str(file)
    prefix = workflow.storage_settings.default_storage_prefix.rstrip("/")
    return strip_wildcard_constraints(stored.query).removeprefix(f"{prefix}/")


def every(files, **values):
    """`expand` of another rule's output, which in an object store is more than a name; `expand` would refuse it."""
    return expand([name_in_study(file) for file in files], **values)


def memory_mb(first):
    """A job's memory; a job that failed, perhaps for want of it, gets as much again with each attempt."""
    return lambda wildcards, attempt: first * attempt


def model_setting(key, default=None):
    """An input-independent setting of the wildcard's model."""
    return lambda wildcards: config["models"][wildcards.model].get(key, default)


# What a source is to readers, and how it is loaded, changes nothing about what is fetched.
DESCRIPTIVE = {"licence", "attribution", "caveat", "dtype"}


def what_to_fetch(section):
    """A wildcard's entry without what only the report or the loader reads."""

    def entry(wildcards):
        (name,) = wildcards
        return {
            key: value
            for key, value in config[section][name].items()
            if key not in DESCRIPTIVE
            or (key == "dtype" and config[section][name]["source"] == "architecture")
        }

    return entry


def local_files(section):
    """The files behind a local source, so that a changed file is noticed; nothing for the others.

    Braces would pass for wildcards: a path has none, and files that do are not a model's. All stay where they are when
    results lie in an object store.
    """

    def files(wildcards):
        (name,) = wildcards
        entry = config[section][name]
        if entry["source"] != "local":
            return []
        if section == "image_sets":
            return [local(entry["train"]), local(entry["test"])]
        path = Path(entry["path"])
        held = (
            [path]
            if path.is_file()
            else sorted(
                p for p in path.iterdir() if p.is_file() and not set("{}") & set(p.name)
            )
        )
        return [local(str(p)) for p in held]

    return files


def how_it_rounds(wildcards):
    """A scheme without its smoothing, which reaches those who round as tables."""
    entry = config["schemes"][wildcards.scheme]
    return {key: value for key, value in entry.items() if key != "smoothing"}


def what_smoothing_uses(wildcards):
    """A scheme's smoothing; a search for its strength also uses how the scheme rounds."""
    entry = config["schemes"][wildcards.scheme]
    keys = {"smoothing"}
    if isinstance(entry["smoothing"]["alpha"], str):
        keys |= {"weights", "activations", "keep"}
    return {key: value for key, value in entry.items() if key in keys}


def scheme_tables(wildcards):
    """What a scheme needs beside the model and the texts: smoothing, a rotation, or calibration text."""
    entry, tables = config["schemes"][wildcards.scheme], {}
    if "smoothing" in entry:
        folder = f"results/{wildcards.model}/smoothing/{wildcards.scheme}"
        tables |= {name: f"{folder}/{name}.parquet" for name in ("scales", "sites")}
    if "rotation" in entry:
        seed = entry["rotation"]["seed"]
        tables["paths"] = f"results/{wildcards.model}/rotation/{seed}/paths.parquet"
    if calibrates(entry):
        corpus = config["calibration"]["corpus"]
        tables["calibration_corpus"] = f"results/sources/corpora/{corpus}.parquet"
    return tables


def rounding_settings(wildcards):
    """The calibration text of a scheme whose rounding needs one; nothing for the others."""
    if not calibrates(config["schemes"][wildcards.scheme]):
        return None
    settings = config["calibration"]
    return {
        "corpus": settings["corpus"],
        "window_tokens": settings["window_tokens"],
        "max_windows": settings["rounding_windows"],
    }


def what_is_profiled(wildcards):
    """Schemes and dtypes whose times are taken: of a shape without weights, the float model in its own dtype."""
    entry = config["models"][wildcards.model]
    if entry["source"] == "architecture":
        return {"schemes": {REFERENCE: {}}, "dtypes": [entry.get("dtype", "auto")]}
    settings = config["profiling"]
    return {
        "schemes": {name: config["schemes"][name] for name in settings["schemes"]},
        "dtypes": settings["dtypes"],
    }


def profiling_settings(part):
    """What a profiling job measures; shapes without weights have lengths of their own."""

    def settings(wildcards):
        own = config["profiling"]
        enough = {key: own[key] for key in ("repetitions", "seconds")}
        settings = own[part] | ({} if part == "memory" else enough)
        lengths = {"latency": "prompt_tokens", "memory": "new_tokens"}.get(part)
        if lengths and config["models"][wildcards.model]["source"] == "architecture":
            settings[lengths] = own["architectures"][lengths]
        return settings

    return settings


def without(settings, *keys):
    """Settings but for those that a rule does not use."""
    return {key: value for key, value in settings.items() if key not in keys}


def cache_policies(names):
    """Policies by their names, in the order in which their files are written."""
    return {name: config["kv_cache"]["policies"][name] for name in names}


def of_every_cell(table):
    """A table of every model and policy, in the order of CACHE_CELLS."""
    return [
        f"results/{model}/kv_cache/{policy}/{table}.parquet"
        for model, policy in CACHE_CELLS
    ]


def plain(scheme):
    """The study's scheme with the same grids, not smoothed or rotated and simply rounded, if it has one."""
    entry = dict(config["schemes"][scheme])
    changed = [
        key for key in ("smoothing", "rotation", "engine") if entry.pop(key, None)
    ]
    same = (name for name in SCHEMES if config["schemes"][name] == entry)
    return next(same, None) if changed else None


CACHE_CELLS = [[model, policy] for model in MEASURED for policy in CACHE_POLICIES]
CELLS = [(model, scheme) for model in MEASURED for scheme in SCHEMES]
BASES = {
    scheme: base
    for scheme in SCHEMES
    if (base := plain(scheme)) and scheme in SMOOTHED + ROTATED
}


@cache
def jobs_of_study():
    """Every job behind the rule `all` as its rule, outputs, benchmark and the rules that write its inputs.

    Snakemake's own graph is not there yet when parameters are computed, so its rules are asked one by one.
    """
    found, producers = {}, {}
    waiting = list(workflow.get_rule("all").expand_input(Wildcards())[0])
    while waiting:
        target = waiting.pop()
        if (name := name_in_study(target)) in producers:
            continue
        maker = next(
            (rule for rule in workflow.rules if rule.is_producer(str(target))), None
        )
        producers[name] = maker and maker.name
        if maker is None:  # a file of the user's
            continue
        wildcards = Wildcards(fromdict=maker.get_wildcards(str(target)))
        needed = maker.expand_input(wildcards)[0]
        outputs = tuple(map(name_in_study, maker.expand_output(wildcards)[0]))
        inputs = tuple(map(name_in_study, needed))
        benchmark = name_in_study(maker.expand_benchmark(wildcards))
        producers |= dict.fromkeys(outputs, maker.name)
        found[outputs] = (maker.name, inputs, benchmark)
        waiting += needed
    return [
        {
            "rule": rule,
            "outputs": outputs,
            "benchmark": benchmark,
            "needs": sorted({producers[name] for name in inputs if producers[name]}),
        }
        for outputs, (rule, inputs, benchmark) in sorted(found.items())
    ]


def rule_needs(wildcards):
    """The study's rule graph, in pairs of a rule and one that writes what it reads."""
    return sorted(
        {(job["rule"], need) for job in jobs_of_study() for need in job["needs"]}
    )


def files_of_study(wildcards):
    """What the study makes but for the page: each job's rule, files and record of time, relative to the results."""
    return [
        {
            "rule": job["rule"],
            "outputs": [name.removeprefix("results/") for name in job["outputs"]],
            "benchmark": job["benchmark"].removeprefix("results/"),
        }
        for job in jobs_of_study()
        if job["rule"] != "report"
    ]
