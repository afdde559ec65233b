"""Figures: drawn from tables alone, labelled, and the same bytes from the same tables."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from inferometer.calibration.calibrate import Calibration, calibrate
from inferometer.calibration.figures import plot_distributions, plot_surfaces
from inferometer.evaluation.figures import ZOOM_RATIO, plot_pareto, plot_perplexity, plot_sensitivity
from inferometer.evaluation.schemes_summary import summarize_schemes
from inferometer.evaluation.summary import summarize_perplexity
from inferometer.plotting import save
from inferometer.schemes import Scheme
from inferometer.smoothing.chapter import Smoothing, smooth
from inferometer.smoothing.figures import plot_alphas, plot_smoothing
from tests.synthetic import COSTS, EVERY, MEASURED, SKIPPED, alphas, cells, scores, sensitivity
from tests.synthetic import LAYERS as BLOCKS
from tests.tiny import OUTLIER_CHANNELS, tiny_model

LAYERS = [0, 2]
SCHEMES = list(COSTS)
DPI = 40
GRID = {"bits": 8, "granularity": "per_tensor"}


@dataclasses.dataclass(frozen=True)
class Tables:
    """Tables of all chapters, of a tiny llama and made-up scores."""

    calibration: Calibration
    smoothing: Smoothing
    perplexity: pd.DataFrame
    schemes: pd.DataFrame


@pytest.fixture(scope="module")
def tables() -> Tables:
    model = tiny_model("llama")
    generator = torch.Generator().manual_seed(0)
    windows = [torch.randint(64, (1, 40), generator=generator) for _ in range(3)]
    calibration = calibrate(model, windows, LAYERS)
    entry = {"weights": GRID, "activations": GRID, "smoothing": {"alpha": 0.5, "sites": "all"}}
    scheme = Scheme.of("smooth", entry)
    smoothing = smooth(model, calibration.activations, scheme, entry["smoothing"], windows[:1])
    perplexity = summarize_perplexity(scores(EVERY), "fp")
    return Tables(calibration, smoothing, perplexity, summarize_schemes(cells(EVERY), perplexity, "fp"))


PLOTS: dict[str, Callable[[Tables], Figure]] = {
    "distributions.svg": lambda tables: plot_distributions(tables.calibration.histograms),
    "surfaces-activation.png": lambda tables: plot_surfaces(tables.calibration.surfaces, "activation"),
    "surfaces-weight.png": lambda tables: plot_surfaces(tables.calibration.surfaces, "weight"),
    "channels.svg": lambda tables: plot_smoothing(
        tables.calibration.activations, tables.calibration.weights, tables.smoothing.scales, tables.smoothing.sites
    ),
    "alphas.svg": lambda _: plot_alphas(alphas()),
    "perplexity.svg": lambda tables: plot_perplexity(tables.perplexity, SCHEMES),
    "pareto.svg": lambda tables: plot_pareto(tables.schemes, [MEASURED], list(EVERY)),
    "sensitivity.svg": lambda _: plot_sensitivity(sensitivity()),
}


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> None:
    plt.close("all")


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_tables_give_the_same_bytes(name: str, tables: Tables, tmp_path: Path) -> None:
    for copy in ("one", "two"):
        save(PLOTS[name](tables), tmp_path / copy / name, DPI)
    content = (tmp_path / "one" / name).read_bytes()
    assert content == (tmp_path / "two" / name).read_bytes()
    assert content.startswith(b"<?xml" if name.endswith("svg") else b"\x89PNG")
    assert not plt.get_fignums(), "a saved figure is closed"


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_figure_can_be_saved_either_way_without_a_date_or_a_version(
    ending: str, tables: Tables, tmp_path: Path
) -> None:
    path = tmp_path / f"figure.{ending}"
    save(PLOTS["perplexity.svg"](tables), path, DPI)
    content = path.read_bytes()
    assert b"dc:date" not in content
    assert b"tEXt" not in content
    assert not list(tmp_path.glob(".*partial"))


def test_resolution_follows_the_setting(tables: Tables, tmp_path: Path) -> None:
    for dpi in (40, 80):
        save(PLOTS["perplexity.svg"](tables), tmp_path / f"{dpi}.png", dpi)
    small, large = (plt.imread(tmp_path / f"{dpi}.png").shape for dpi in (40, 80))
    assert large[:2] == (2 * small[0], 2 * small[1])


@pytest.mark.parametrize("name", PLOTS)
def test_drawing_leaves_the_settings_of_matplotlib_alone(name: str, tables: Tables, tmp_path: Path) -> None:
    before = dict(plt.rcParams)
    save(PLOTS[name](tables), tmp_path / name, DPI)
    assert dict(plt.rcParams) == before


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def _error_bars(axes: Axes) -> list[ErrorbarContainer]:
    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def test_distributions_have_a_row_for_each_layer_and_a_column_for_each_kind(tables: Tables) -> None:
    figure = PLOTS["distributions.svg"](tables)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"Decoder layer {layer}: {kind}" for layer in LAYERS for kind in ("weights", "activations")
    ]
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert len({axes.get_xlim() for axes in figure.axes}) == 1, "both kinds are on one axis"
    assert figure.axes[0].get_ylabel() == "share of values per octave"
    assert figure.axes[-1].get_xlabel().startswith("value")
    assert sorted(_legend(figure.axes[1])) == [
        "input of down_proj",
        "input of gate_proj, up_proj",
        "input of o_proj",
        "input of q_proj, k_proj, v_proj",
    ]


def test_distributions_reach_as_far_as_the_largest_value(tables: Tables) -> None:
    figure = PLOTS["distributions.svg"](tables)
    activations = tables.calibration.activations
    of_layers = activations["layer"].str.contains(r"layers\.[02]\.", regex=True)
    assert figure.axes[0].get_xlim()[1] > activations[of_layers]["absmax"].max()
    assert all(len(axes.lines) == 2 * 4 for axes in figure.axes), "four inputs, left and right of zero"


@pytest.mark.parametrize(("tensor", "rows"), [("activation", "token"), ("weight", "output channel")])
def test_surfaces_have_a_plot_for_each_layer_and_distinct_input(tensor: str, rows: str, tables: Tables) -> None:
    figure = PLOTS[f"surfaces-{tensor}.png"](tables)
    assert len(figure.axes) == len(LAYERS) * 4
    assert {axes.get_xlabel() for axes in figure.axes} == {"input channel"}
    assert {axes.get_ylabel() for axes in figure.axes} == {rows}
    titles = [axes.get_title() for axes in figure.axes]
    assert len(set(titles)) == len(titles)
    assert all(title.startswith(("layer 0: ", "layer 2: ")) for title in titles)


def test_smoothing_shows_the_sites_of_the_middle_layer_before_and_after(tables: Tables) -> None:
    figure = PLOTS["channels.svg"](tables)
    norms = ("input_layernorm", "post_attention_layernorm")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"model.layers.1.{norm}: {kind}" for norm in norms for kind in ("input", "weights")
    ]
    factors = (
        tables.smoothing.scales.set_index(["site", "channel"])["factor"]
        .loc["model.layers.1.input_layernorm"]
        .to_numpy()
    )
    activations = tables.calibration.activations
    counted = activations[(activations["layer"] == "model.layers.1.self_attn.q_proj") & activations["first_token"]]
    absmax = counted.set_index("channel")["absmax"].sort_index().to_numpy()
    before, after = (np.asarray(line.get_ydata()) for line in figure.axes[0].lines)
    np.testing.assert_array_equal(before, np.sort(absmax))
    np.testing.assert_allclose(np.sort(after), np.sort(absmax / factors))
    assert set(np.argsort(absmax)[-2:]) == set(OUTLIER_CHANNELS), "the planted outliers stand at the right"
    weight_before, weight_after = (np.asarray(line.get_ydata()) for line in figure.axes[1].lines)
    np.testing.assert_allclose(after, weight_after, rtol=1e-4)  # at half strength both become equally large
    assert weight_after[-1] > 3 * weight_before[-1]
    assert _legend(figure.axes[0])[0] == f"before: {absmax.max() / np.median(absmax):.0f} x"


def test_perplexity_shows_all_schemes_and_enlarges_the_mild_ones(tables: Tables) -> None:
    figure = PLOTS["perplexity.svg"](tables)
    whole, zoom = figure.axes
    assert [label.get_text() for label in whole.get_yticklabels()] == SCHEMES
    assert [label.get_text() for label in zoom.get_yticklabels()] == [
        scheme for scheme in SCHEMES if COSTS[scheme] < 0.1
    ]
    assert whole.get_xscale() == "log"
    assert zoom.get_title(loc="left") == f"Schemes below {ZOOM_RATIO:g}x"
    assert all("perplexity over that of the float model" in axes.get_xlabel() for axes in (whole, zoom))
    assert whole.get_ylim()[0] > whole.get_ylim()[1], "the first scheme is on top"
    rows = tables.perplexity.set_index("scheme").loc[SCHEMES]
    [dots] = [bars.lines[0] for bars in _error_bars(whole)]
    np.testing.assert_allclose(np.asarray(dots.get_xdata(), dtype=float), rows["ratio"])
    np.testing.assert_allclose(np.asarray(dots.get_ydata(), dtype=float), range(len(SCHEMES)))
    [(spread,)] = [bars.lines[2] for bars in _error_bars(whole)]
    ends = np.array(spread.get_segments(), dtype=float)[:, :, 0]
    np.testing.assert_allclose(ends, rows[["ratio_low", "ratio_high"]])


def test_perplexity_of_several_models_stands_side_by_side_with_a_legend(tables: Tables) -> None:
    other = tables.perplexity.assign(model="another")
    both = pd.concat([tables.perplexity, other[other["scheme"] != "w4a4"]])
    whole, _ = plot_perplexity(both, SCHEMES).axes
    assert _legend(whole) == ["another", MEASURED]
    heights = [np.asarray(bars.lines[0].get_ydata(), dtype=float) for bars in _error_bars(whole)]
    assert [len(height) for height in heights] == [len(SCHEMES) - 1, len(SCHEMES)]
    assert not set(heights[0]) & set(heights[1]), "they don't hide each other"


@pytest.mark.parametrize("schemes", [["fp"], ["fp", "w4a4"]])
def test_perplexity_of_a_study_with_nothing_mild_is_drawn(schemes: list[str], tables: Tables, tmp_path: Path) -> None:
    perplexity = tables.perplexity[tables.perplexity["scheme"].isin(schemes)]
    save(plot_perplexity(perplexity, schemes), tmp_path / "perplexity.svg", DPI)
    assert (tmp_path / "perplexity.svg").stat().st_size > 1000


def test_a_skipped_scheme_has_no_place_among_perplexities(tables: Tables) -> None:
    assert set(tables.perplexity["scheme"]) == set(COSTS)
    assert set(EVERY) - set(COSTS) == set(SKIPPED)


# --- bytes and perplexity ----------------------------------------------------------------------------------------


def _dots(axes: Axes) -> tuple[list[float], list[float]]:
    [bars] = _error_bars(axes)
    dots = bars.lines[0]
    return np.asarray(dots.get_xdata(), dtype=float).tolist(), np.asarray(dots.get_ydata(), dtype=float).tolist()


def _line(axes: Axes, label: str) -> np.ndarray:
    [line] = [line for line in axes.lines if line.get_label() == label]
    return np.array([line.get_xdata(), line.get_ydata()], dtype=float).T


def test_every_scheme_that_ran_is_a_dot_at_its_bytes_and_its_ratio(tables: Tables) -> None:
    [axes] = PLOTS["pareto.svg"](tables).axes
    rows = tables.schemes.set_index("scheme").loc[SCHEMES]
    found = _dots(axes)
    np.testing.assert_allclose(found[0], rows["weights_bytes"] / 1e6)
    np.testing.assert_allclose(found[1], np.maximum(rows["ratio"] - 1, 1e-3))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert {text.get_text() for text in axes.texts} == set(COSTS)
    assert axes.get_title(loc="left") == MEASURED


def test_labels_of_schemes_with_the_same_bytes_do_not_lie_on_each_other(tables: Tables) -> None:
    same = tables.schemes.assign(weights_bytes=2_000_000, ratio=1.02, ratio_low=1.01, ratio_high=1.03)
    [axes] = plot_pareto(same, [MEASURED], list(EVERY)).axes
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert len(heights) == len(same)
    assert min(np.diff(heights)) >= 8


def test_schemes_on_the_front_are_joined_and_stand_out(tables: Tables) -> None:
    [axes] = PLOTS["pareto.svg"](tables).axes
    bold = {text.get_text() for text in axes.texts if text.get_fontweight() == "bold"}
    assert bold == {"w4a4-rotated", "w8a8-search", "fp"}
    line = _line(axes, "Pareto front")
    assert line[:, 0].tolist() == [1.5, 2.0, 5.0]
    assert line[:, 1].tolist() == sorted(line[:, 1].tolist(), reverse=True)


def test_every_model_has_a_panel_with_its_own_schemes(tables: Tables) -> None:
    other = tables.schemes[tables.schemes["scheme"] != "w4a4"].assign(model="another")
    figure = plot_pareto(pd.concat([tables.schemes, other]), [MEASURED, "another"], list(EVERY))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [MEASURED, "another"]
    assert [len(axes.texts) for axes in figure.axes] == [len(COSTS), len(COSTS) - 1]


def test_a_study_of_the_float_model_alone_has_a_front_of_one(tables: Tables, tmp_path: Path) -> None:
    alone = tables.schemes[tables.schemes["scheme"] == "fp"]
    save(plot_pareto(alone, [MEASURED], ["fp"]), tmp_path / "pareto.svg", DPI)
    assert (tmp_path / "pareto.svg").stat().st_size > 1000


# --- sensitivity -------------------------------------------------------------------------------------------------


def test_sensitivity_is_a_grid_of_decoder_layers_and_kinds(tables: Tables) -> None:
    axes, bar = PLOTS["sensitivity.svg"](tables).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["other", *map(str, range(BLOCKS))]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["q_proj", "down_proj", "project_out"]
    assert axes.get_xlabel() == "decoder layer"
    assert bar.get_ylabel() == "KL divergence in nats"
    [image] = axes.get_images()
    shown = image.get_array()
    assert shown is not None
    values = np.ma.filled(np.ma.masked_invalid(shown), np.nan)
    expected = np.full((3, 1 + BLOCKS), np.nan)
    expected[0, 1:] = [0.01 / (layer + 1) for layer in range(BLOCKS)]
    expected[1, 1:] = [0.5 / (layer + 1) for layer in range(BLOCKS)]
    expected[2, 0] = 1e-5
    np.testing.assert_allclose(values, expected)


@pytest.mark.parametrize("value", [0.0, -1e-9, 0.25])
def test_a_layer_without_any_effect_is_drawn_too(value: float, tmp_path: Path) -> None:
    table = sensitivity()
    table.loc[0, "kl_divergence"] = value
    save(plot_sensitivity(table), tmp_path / "sensitivity.svg", DPI)
    assert (tmp_path / "sensitivity.svg").stat().st_size > 1000


def test_layers_without_any_effect_at_all_are_drawn_too(tmp_path: Path) -> None:
    save(plot_sensitivity(sensitivity().assign(kl_divergence=0.0)), tmp_path / "sensitivity.svg", DPI)
    assert (tmp_path / "sensitivity.svg").stat().st_size > 1000


# --- strengths of smoothing --------------------------------------------------------------------------------------


def test_a_search_shows_the_error_of_each_kind_of_site_and_what_was_chosen() -> None:
    left, right = plot_alphas(alphas()).axes
    assert _legend(left) == [f"input_norm ({BLOCKS} sites)", f"up_proj ({BLOCKS} sites)"]
    line = _line(left, f"input_norm ({BLOCKS} sites)")
    np.testing.assert_allclose(line[:, 0], [step / 10 for step in range(11)])
    np.testing.assert_allclose(line[:, 1], 0.001 + 0.01 * (line[:, 0] - 0.4) ** 2)
    assert left.get_yscale() == "log"
    boxes = [bar.get_path().transformed(bar.get_patch_transform()).get_extents() for bar in right.patches]
    bars = [((box.x0 + box.x1) / 2, box.y1) for box in boxes]
    np.testing.assert_allclose(bars, [(0.4, BLOCKS), (0.7, BLOCKS)])
    assert (right.get_xlabel(), right.get_ylabel()) == ("alpha", "sites")


def test_sites_of_a_kind_are_told_by_their_median_and_quartiles() -> None:
    errors = [1.0, 2.0, 3.0, 10.0]
    rows = [(f"model.layers.{place}.norm", alpha, error) for place, error in enumerate(errors) for alpha in (0.0, 0.5)]
    table = pd.DataFrame(rows, columns=["site", "alpha", "error"]).assign(chosen=lambda own: own["alpha"] == 0.5)
    left, _ = plot_alphas(table).axes
    assert _line(left, "norm (4 sites)")[:, 1].tolist() == [2.5, 2.5]
    [band] = left.collections
    heights = {float(height) for path in band.get_paths() for height in np.asarray(path.vertices)[:, 1]}
    assert heights == {1.75, 4.75}
