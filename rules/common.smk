# Names and settings that several chapters share.

ROOT = Path(workflow.basedir)

MODELS = config["study"]["models"]
SCHEMES = config["study"]["schemes"]
MEASURED = [
    model for model in MODELS if config["models"][model]["source"] != "architecture"
]
CORPORA = sorted(
    {config[chapter]["corpus"] for chapter in ("calibration", "evaluation")}
)
SMOOTHED = [scheme for scheme in SCHEMES if "smoothing" in config["schemes"][scheme]]


wildcard_constraints:
    model="|".join(map(re.escape, config["models"])),
    corpus="|".join(map(re.escape, config["corpora"])),
    scheme="|".join(map(re.escape, config["schemes"])),


def code(script, *data):
    """Digest of a script, of all library code that it imports, and of data files that it reads from the project."""
    files = tuple(path for pattern in data for path in sorted(ROOT.glob(pattern)))
    return code_version(ROOT / "workflow" / "scripts" / script, ROOT, data=files)


def model_setting(key, default=None):
    """An input-independent setting of the wildcard's model."""
    return lambda wildcards: config["models"][wildcards.model].get(key, default)


def scheme_setting(*keys):
    """The parts of the wildcard's scheme that are named."""
    return lambda wildcards: {
        key: value
        for key, value in config["schemes"][wildcards.scheme].items()
        if key in keys
    }


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
    """The files behind a local source, so that a changed file is noticed; nothing for the others."""

    def files(wildcards):
        (name,) = wildcards
        entry = config[section][name]
        if entry["source"] != "local":
            return []
        path = Path(entry["path"])
        return (
            [path]
            if path.is_file()
            else sorted(p for p in path.iterdir() if p.is_file())
        )

    return files


def smoothing_tables(wildcards):
    """A scheme that smooths needs its factors and sites; the others need nothing."""
    if wildcards.scheme not in SMOOTHED:
        return {}
    folder = f"results/{wildcards.model}/smoothing/{wildcards.scheme}"
    return {"scales": f"{folder}/scales.parquet", "sites": f"{folder}/sites.parquet"}


def without_smoothing(scheme):
    """The study's scheme with the same grids and no smoothing, if it has one."""
    entry = config["schemes"][scheme]
    same = {key: value for key, value in entry.items() if key != "smoothing"}
    return next((name for name in SCHEMES if config["schemes"][name] == same), None)


CELLS = [(model, scheme) for model in MEASURED for scheme in SCHEMES]
BASES = {scheme: base for scheme in SMOOTHED if (base := without_smoothing(scheme))}
