# Names and settings that several chapters share.

ROOT = Path(workflow.basedir)

MODELS = config["study"]["models"]
SCHEMES = config["study"]["schemes"]
MEASURED = [
    model for model in MODELS if config["models"][model]["source"] != "architecture"
]
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
