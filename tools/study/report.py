"""The study's page: python -m tools.study.report writes
`models/EVALUATION.md` from what `models/evaluation` holds.

With a folder that `run.py`, `search.py` or `speed.py` wrote to, its
results are copied there first. Pictures are copied of those cases alone
that say that they may be shown: photos of other people never are.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lrp_onnx.evaluation.baselines import BASELINES, Rise
from lrp_onnx.evaluation.metrics.properties import rank_correlation
from lrp_onnx.notation import build, parse, split
from tools.study import comparing, default, families
from tools.study.run import BEST, DECIDING, KNOWING_NOTHING, RANK, RIVALS, SMOOTH

ROOT = Path(__file__).parents[2]
STORED, BENCHMARK = ROOT / "models" / "evaluation", ROOT / "models" / "benchmark"
PAGE, README = ROOT / "models" / "EVALUATION.md", ROOT / "README.md"
GUIDE = ROOT / "lrp_onnx" / "guides" / "judging.md"
BEGIN, END = "<!-- study -->", "<!-- /study -->"
Found = Mapping[str, Any]
CHOSEN = f"{BEST}+{SMOOTH}"
COLUMNS = {
    "exact ID": "exact ID",
    "srg ID": "SRG",
    "rank": "rank",
    "mass": "mass",
    "pointing": "pointing",
    "sparseness": "sparse",
    "keio ID": "keio ID",
}
SANE = {
    "randomisation": "randomisation",
    "random-logit": "random logit",
    "class-sensitivity": "class cosine",
    "max-sensitivity": "max-sensitivity",
    "adcc": "ADCC",
    "good": "good",
    "insufficient": "insufficient",
    "over": "over",
    "wrong": "wrong",
}


def page(
    found: Mapping[str, Found],
    searches: Mapping[str, Found],
    speed: Sequence[Found],
    defaults: Mapping[str, Found] = MappingProxyType({}),
    of_families: Mapping[str, Found] = MappingProxyType({}),
) -> str:
    """The whole page."""
    parts = [
        "# Which explanation is right",
        HEAD,
        *(default_part(defaults) if defaults else ()),
        *(families_part(of_families) if of_families else ()),
        "## In short",
        "\n".join(f"- {line}" for line in in_short(found)),
    ]
    for name in ("tin20", "tin10", "cifar10", "shapes"):
        if name in found:
            parts += case_part(name, found[name])
    if searches:
        parts += [
            "## The search",
            SEARCH,
            *(search_part(name, one) for name, one in searches.items()),
        ]
    if "tin20" in found:
        parts += ["## On the half that the search never saw", held_out_table(found["tin20"])]
        parts += [
            "## What C3, C1C and quantization add",
            C3,
            post_table({n: found[n] for n in found if n[0] != "r"}),
        ]
    if "sanity" in found:
        parts += ["## Sanity", SANITY, said(found["sanity"]), table(found["sanity"], SANE)]
    if "rise" in found:
        parts += [
            "## RISE with more masks",
            RISE,
            said(found["rise"]),
            table(found["rise"], COLUMNS),
        ]
    if speed:
        parts += ["## How fast", SPEED, speed_table(speed)]
    return "\n\n".join(parts) + "\n"


HEAD = """Made by `tools/study/search.py`, `tools/study/run.py` and `tools/study/report.py` from the files in
`models/evaluation`. Every method explains the class that the model predicts. Values are means over photos with 95 %
bootstrap intervals (2,000 resamples, seed 0).

- **exact ID**: insertion minus deletion, exactly n pixels a step, ties broken at random (seeded), black fill,
  probability of the explained class. What is better or worse is for this column and the next to say.
- **SRG**: least relevant first minus most relevant first, mean-colour fill.
- **rank**, **mass**, **pointing**: relevance rank accuracy, relevance mass accuracy and pointing game against the
  object's box (`shapes`: its exact mask). A centred Gaussian is strong here wherever photos are centred on their
  object.
- **keio ID**: the protocol of the released code of the ECCV 2024 paper, where all pixels that tie enter together.
  **It can be gamed**: see the constant map's row.

Grad-CAM, ReciproCAM and CAM read the last feature map. RISE has 150 masks here, not the 8,000 of its paper; more are
in a table below. Integrated Gradients takes 8 steps."""

SEARCH = """`tools/study/search.py` goes through the choices one after the other and keeps the best
of each; judged is by the mean of exact ID, SRG and rank accuracy above Grad-CAM's, on every second
photo. Starting from the probability or from one instead of the logit multiplies a map by a number
and changes no column of these tables, so two starts are tried: the logit, and `contrastive` (every
logit times the gradient of the target's log-odds). What both searches agree on, and z+ where they
do not, was made one composite by hand: `epsilon-gamma-plus`, whose own gain on the same photos
stands with each. *Held out* are the other photos, without those that the other model's search saw."""

C3 = """C3 as published sets what it does not keep to zero; `c3:outside=rank` (ours) lets pixels outside keep their
order, below those inside. Under `keio` the ties of the first kind are worth a great deal; under `exact` they are
worth what they are worth."""

SANITY = """**randomisation**: rank correlation between a map and the maps of the model with the weights of its last
layer, 25 %, 50 % and all of its layers shuffled (`compile --randomize`), averaged; a map that does not depend on
what was learnt has 1. **random logit**: the same against the map of a random other class. **class cosine**: cosine
between the maps of the two most probable classes. Signs do not count in these three. **max-sensitivity**: largest
relative change of the map under 8 pictures with 2 % of noise. **ADCC**: average drop, coherency, complexity. **good
… wrong**: the lab's classes of attention by our reading (pixels of at least half the highest relevance against the
box). For the first four lower is better, for ADCC higher."""

RISE = "Evenly spread photos of the large model; all methods on the same ones."

DEFAULT_TEXT = """`tools/study/default.py`: the default as `explain` shows it, C3 included, the former
default, baselines without and with the default's own post-processing, and what knows nothing. **mosaic**: share of
positive relevance in the target's half of two half pictures side by side, 0.5 being a map that does not follow the
class. **lattice**: mean |relevance| of the columns, strongest over weakest phase of the deepest stride; **border**:
first eighth of the columns against the last, both before post-processing; 1 is none. A random-logit test punishes a
contrastive map for being the mirror image of its rival's; a mosaic does not. Differences are paired, photo by photo,
with p-values by random signs. CIFAR-10's photos have no boxes. **pointing** counts
15 of 224 pixels around the object too (6 of 96). **mass** is of the map as it is shown: rivals with the default's own
post-processing are the like of it, since that lowers what lies outside its region."""

OUTCOME = """What became of them. 1 and 3 held. 2 held for photos that are predicted rightly (mosaic 0.931); of all
that are predicted surely it is missed by 0.0003. 4 held. **5 failed plainly**: on drawn pictures the order of methods
by black and by blurred pixels is nearly reversed, and of six pairs of fills only the mean colour and noise reach 0.7
on every network. Blurring leaves most of the prediction, and then favours maps of single pixels; black takes the
model furthest out of what it was made for, and favours coarse ones. A verdict by insertion and deletion is a verdict
about a fill, this page's included. 6 failed on ResNet-20, where RISE of 1,000 masks is lower in exact ID, and held
elsewhere. 7 held: 0.48 of the default's relevance is on the object that decides, lrp-resnet has 0.41, occlusion 0.34,
Grad-CAM 0.17. 8 failed: the mark is found in 75 of 100 pictures, not 80, by a network that is itself right in 65;
lrp-resnet finds it in 81, Grad-CAM in 18. 9 held. Against methods of hundreds of runs a map on the large network
(added last, without a hypothesis): RISE of 1,000 masks and occlusion are not told apart from the default in exact ID
and SRG on 60 photos; the default is higher in mosaics, where RISE hardly follows the class."""

SPEED = """`tools/study/speed.py`: insertion and deletion of one method, two threads. Ours is all of `evaluate`,
compiling and explaining included; the others get finished maps. *loop*: every masked picture through torch on its
own."""


DEFAULT_COLUMNS = {
    "exact ID": "exact ID",
    "srg ID": "SRG",
    "mosaic": "mosaic",
    "rank": "rank",
    "mass": "mass",
    "pointing": "pointing",
    "lattice phase": "lattice",
    "lattice border": "border",
}
NAMES = {"exact": "exact ID", "srg": "SRG", "mosaic": "mosaic", "mass": "mass"}
"""Metrics that are compared, as the tables call them."""


def default_part(cases: Mapping[str, Found]) -> list[str]:
    """The default on photos and networks that nothing was chosen on."""
    adjusted = comparing.corrected(cases)
    first = len(default.HYPOTHESES) + 1
    parts = [
        "## The default",
        DEFAULT_TEXT,
        f"Written before the run:\n\n{numbered(default.HYPOTHESES)}",
        f"Written later, before the run of what the small networks are judged with beyond the "
        f"others:\n\n{numbered(default.LATER, first)}",
        OUTCOME,
    ]
    for name, found in cases.items():
        right = found["rightly"].get(default.OURS)
        mosaic = f" Mosaic of the default where it is right: {interval(right)}." if right else ""
        parts += [
            f"### {found['title']}",
            f"{said(found)}{mosaic}",
            table(found, DEFAULT_COLUMNS),
            comparison_table(name, found, adjusted),
        ]
    verdicts = [
        verdict(cases[name]["comparisons"][metric][rival], p)
        for (name, metric, rival), p in adjusted.items()
    ]
    count = {word: verdicts.count(word) for word in ("higher", "lower", "not told apart")}
    parts.append(
        f"Of all {len(verdicts)} comparisons, corrected together (Holm), the default is higher in "
        f"{count['higher']}, lower in {count['lower']}, and not told apart in "
        f"{count['not told apart']}."
    )
    filled = {name: found for name, found in cases.items() if fills_of(found)}
    if filled:
        parts += ["### The fill of deleted pixels", FILL_TEXT, fill_table(filled)]
    if {"decoys", "decoys-masked"} <= set(cases):
        plain, masked = cases["decoys"], cases["decoys-masked"]
        exact, srg = (spearman(plain, column, masked, column) for column in ("exact ID", "srg ID"))
        parts.append(
            f"Training with hidden blocks: the order of methods in exact ID correlates with that "
            f"of the network without by {exact:.2f}, in SRG, whose fill is what was hidden in "
            f"training, by {srg:.2f}."
        )
    return parts


def families_part(files: Mapping[str, Found]) -> list[str]:
    """The defaults of other families: the way of every search, then what was judged."""
    cases = {name: found for name, found in files.items() if "comparisons" in found}
    adjusted = comparing.corrected(cases)
    parts = ["## Transformers and modern CNNs", FAMILIES_TEXT, verdicts_line(cases, adjusted)]
    for name, (title, _) in families.NETWORKS.items():
        if name in cases:
            found = cases[name]
            parts += [f"### {title}", f"{found['family'].capitalize()}; {said(found)}"]
            parts.append(table(found, FAMILIES_COLUMNS))
            parts.append(comparison_table(name, found, adjusted, found["default"]))
        if (search := files.get(f"{name}.search")) is not None:
            parts += [
                f"The search, on {search['photos']} other pictures: the best is "
                f"`{search['best']}`.",
                choices_table(search),
            ]
    return parts


def verdicts_line(
    cases: Mapping[str, Found], adjusted: Mapping[tuple[str, str, str], float]
) -> str:
    """How often each network's default is above its rivals and below, in one sentence."""
    said_ = []
    for name, found in cases.items():
        verdicts = [
            verdict(found["comparisons"][metric][rival], p)
            for (network, metric, rival), p in adjusted.items()
            if network == name
        ]
        said_.append(
            f"of {name} in {verdicts.count('higher')} and {verdicts.count('lower')} of "
            f"{len(verdicts)}"
        )
    return (
        f"After Holm's correction for all comparisons the default is higher and lower: "
        f"{', '.join(said_)}."
    )


FAMILIES_COLUMNS = {
    "exact ID": "exact ID",
    "srg ID": "SRG",
    "mosaic": "mosaic",
    "rank": "rank",
    "mass": "mass",
    "pointing": "pointing",
}
FAMILIES_TEXT = """`tools/study/modern.py` trains three small networks in minutes on drawn pictures: the class is
the pattern of an object's surface, on backgrounds with patterns and lines; masks are exact. `tools/study/families.py`
goes through the choices of a family one after the other on pictures of one seed, by the mean of exact ID, SRG and
mosaic, and judges the family's default on pictures of another seed. One object a picture is easy for what knows no
class, as attention rollout and a Gaussian do not: only the mosaic, of two objects, tells them from the others.

What is the default of transformers, `transformer-c3`, follows from both transformers: attention a constant, epsilon on
linear layers, the rule `layer-norm` for layer normalisation (with `pass`, as other composites have it, a third is
lost), joins by their signed values (by positive parts most is lost where there is a class token), and a stop at the
patches: behind the last layer tokens hold nothing of the places that they stand for (before a fraction such as `1/8`
stopped ahead of attention, the same search had −0.21 there, not 0.75). On the transformer without a class token gamma 0.05 is higher by 0.008;
it costs two more products a layer. For the blocks of ConvNeXt the search changes no rule of `residual-c3`, the
default, but stops at a quarter, where the map has 16 × 16 places, not 8 × 8. That is not adopted: it is what one
network of 64 × 64 pixels has, and on photos of 96 × 96 an eighth was no worse. Occlusion, at 200 runs a map, is
higher there in SRG and mosaic, and a Gaussian in the middle, where the objects are, in exact ID and SRG.

These are small networks and drawn pictures: no transformer that was trained on photos was to be had."""


def choices_table(found: Found) -> str:
    """The way of a family's search."""
    lines = ["| choice | tried: mean of exact ID, SRG and mosaic |", "|---|---|"]
    for step in found["way"]:
        tried = sorted(step["tried"].items(), key=lambda item: -item[1])
        shown = "; ".join(f"`{text}` {worth:.3f}" for text, worth in tried)
        lines.append(f"| {step['choice']} | {shown} |")
    return "\n".join(lines)


def numbered(texts: Sequence[str], first: int = 1) -> str:
    return "\n".join(f"{i}. {text}" for i, text in enumerate(texts, first))


FILL_COLUMNS = {
    "exact ID": "black",
    "srg ID": "mean",
    "srg-blur ID": "blur",
    "srg-noise ID": "noise",
}
"""Column of the symmetric gain → the fill."""
FILL_TEXT = """Symmetric gain with four fills. **order**: Spearman's correlation of the methods' order between
two fills, the least of all pairs. **left at random**: mean probability of the class while pixels in random order are
deleted (the curve of `random`): the higher, the less a fill takes the model out of what it was made for. That is our
reading of the idea behind R-OMS (Blücher et al. 2024), not its formula."""


def fills_of(found: Found) -> list[str]:
    """The columns of all fills, where the case has more than two."""
    values = next(iter(found["methods"].values()))
    there = [column for column in FILL_COLUMNS if column in values]
    return there if len(there) > 2 and "random" in found["methods"] else []


def fill_table(cases: Mapping[str, Found]) -> str:
    """How far the order of methods depends on the fill, and what fills leave of the prediction."""
    left = " | ".join(FILL_COLUMNS.values())
    lines = [
        f"| network | order, least | between | left at random: {left} |",
        "|---|---|---|" + "---|" * len(FILL_COLUMNS),
    ]
    for found in cases.values():
        columns = fills_of(found)
        pairs = {
            (one, other): spearman(found, one, found, other)
            for one, other in combinations(columns, 2)
        }
        (one, other), least = min(pairs.items(), key=lambda item: item[1])
        between = f"{FILL_COLUMNS[one]} and {FILL_COLUMNS[other]}"
        kept = [
            f"{found['methods']['random'][column.replace('ID', 'deletion')][0]:.3f}"
            for column in columns
        ]
        lines.append(f"| {found['title']} | {least:.2f} | {between} | {' | '.join(kept)} |")
    return "\n".join(lines)


def spearman(one: Found, column: str, other: Found, other_column: str) -> float:
    """Rank correlation of the methods that know the model, by a column of each of two cases."""
    names = [m for m in one["methods"] if m in other["methods"] and m not in KNOWING_NOTHING]
    pairs = ((one, column), (other, other_column))
    values = [np.array([[found["methods"][m][key][0] for m in names]]) for found, key in pairs]
    return rank_correlation(values[0], values[1])


def comparison_table(
    name: str,
    found: Found,
    adjusted: Mapping[tuple[str, str, str], float],
    ours: str = default.OURS,
) -> str:
    """The default minus every rival, photo by photo."""
    rivals = list(next(iter(found["comparisons"].values())))
    lines = [
        f"| `{ours}` minus | {' | '.join(NAMES[m] for m in found['comparisons'])} |",
        "|---|" + "---|" * len(found["comparisons"]),
    ]
    for rival in rivals:
        cells = []
        for metric, gaps in found["comparisons"].items():
            p = adjusted[name, metric, rival]
            cells.append(f"{interval(gaps[rival])}, p {p:.2g}: {verdict(gaps[rival], p)}")
        lines.append(f"| `{rival}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(gap: Sequence[float], p: float) -> str:
    """What a paired difference says, by its corrected p-value."""
    if p >= 0.05:
        return "not told apart"
    return "higher" if gap[0] > 0 else "lower"


def interval(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


def said(found: Found) -> str:
    """Photos, accuracy, steps and time in one line."""
    pictures = f"{found['photos']} photos, {found['correct']} predicted rightly"
    if 0 < found.get("held_out_photos", 0) < found["photos"]:
        pictures += f", {found['held_out_photos']} held out"
    return (
        f"{pictures}; {found['steps']} steps, seed {found['seed']}; "
        f"{found['minutes']:.0f} minutes on two cores."
    )


def table(found: Found, columns: Mapping[str, str]) -> str:
    """Methods by the first column, highest first; what knows nothing of the model in italics."""
    methods = found["methods"]
    there = [key for key in columns if any(key in values for values in methods.values())]
    lines = [
        f"| method | {' | '.join(columns[key] for key in there)} |",
        "|---|" + "---|" * len(there),
    ]
    for name in sorted(methods, key=lambda name: -methods[name][there[0]][0]):
        shown = f"*{name}*" if name in KNOWING_NOTHING else f"`{name}`"
        cells = [methods[name].get(key, "") for key in there]
        values = [cell if isinstance(cell, str) else interval(cell) for cell in cells]
        lines.append(f"| {shown} | {' | '.join(values)} |")
    return "\n".join(lines)


def with_table(guide: str, found: Found, costly: Found | None = None) -> str:
    """The guide of judging with the large model's table between its marks."""
    columns = {key: DEFAULT_COLUMNS[key] for key in (*SHORT_COLUMNS, "lattice border")}
    text = table({"methods": with_costs(found, costly)}, {**columns, COST: "forward passes"})
    return between_marks(guide, text)


def with_short_table(readme: str, found: Found, costly: Found | None = None) -> str:
    """The README with the table between its marks: no former default, no borders, two digits."""
    rows = {name: row for name, row in with_costs(found, costly).items() if name != default.FORMER}
    heads = [*(DEFAULT_COLUMNS[key] for key in SHORT_COLUMNS), "forward passes"]
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in sorted(rows, key=lambda name: -rows[name]["exact ID"][0]):
        shown = f"*{name}*" if name in KNOWING_NOTHING else f"`{name}`"
        shown = "`residual-c3`, the default" if name == default.OURS else shown
        values = [rows[name][key] for key in SHORT_COLUMNS]
        cells = [
            "{:.2f} [{:.2f}, {:.2f}]".format(*(round(v, 2) + 0.0 for v in one)) for one in values
        ]
        lines.append(f"| {shown} | {' | '.join([*cells, rows[name][COST]])} |")
    return between_marks(readme, "\n".join(lines))


def between_marks(page: str, text: str) -> str:
    """The page with `text` between its marks."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


SHORT_COLUMNS = ("exact ID", "srg ID", "mosaic", "lattice phase")
COST = "cost"
"""Column of both tables: multiples of the forward pass, text."""


def with_costs(found: Found, costly: Found | None) -> dict[str, dict[str, Any]]:
    """Method → its values and its cost, without rivals that have the default's post-processing;
    RISE of 1,000 masks from the case of costly methods, on fewer photos.
    """
    costs, rows = measured_costs(), {}
    for name, values in found["methods"].items():
        if name not in default.SAME_POST:
            base = name.partition("+")[0]
            rows[name] = {**values, COST: costs[base] if base in costs else run_costs(base)}
    if costly is not None:
        name = "rise(masks=1000)"
        photos = f"{name} ({costly['photos']} photos)"
        rows[photos] = {**costly["methods"][name], COST: run_costs(name)}
    return rows


def measured_costs() -> dict[str, str]:
    """Composite → its cost at batch 1 of a ResNet-50, as the benchmark measured it."""
    stored = [
        json.loads((BENCHMARK / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("resnet50", "alone")
    ]
    rows = [row for found in stored for row in found.get("rows", found.get("alone", ()))]
    return {row["method"]: f"{row['multiple']:.1f}" for row in rows if row["batch"] == 1}


def run_costs(base: str) -> str:
    """Forward passes of a baseline, by its definition."""
    baseline = build(base, BASELINES, what="method")
    if isinstance(baseline, Rise):
        return str(baseline.masks)
    return "0" if baseline.blind else "1, and heads"


def case_part(name: str, found: Found) -> list[str]:
    """Heading, table, curves and pictures of a case."""
    parts = [f"## {found['title']}", said(found), table(found, COLUMNS)]
    parts += [
        f"![{protocol} curves](evaluation/{file})" for protocol, file in curves_of(name).items()
    ]
    for picture in pictures_of(found):
        why = picture["why"]
        parts.append(f"*{why[0].upper()}{why[1:]}:*\n\n![{why}](evaluation/{picture['file']})")
    return parts


def curves_of(name: str) -> dict[str, str]:
    """Protocol → file of its curves, of the case that has them on
    the page. They show no picture.
    """
    return {protocol: f"{name}-{protocol}.png" for protocol in ("exact", "keio") if name == "tin20"}


def pictures_of(found: Found) -> Sequence[Mapping[str, str]]:
    """The pictures of a case on the page: none, unless the case says that they may be shown.

    Most photos belong to other people and may not be given
    on. Results that say nothing count as no.
    """
    return found.get("pictures", []) if found.get("may_be_shown") is True else []


def files_of(cases: Mapping[str, Found]) -> set[str]:
    """Names of all files beside the results that the page may show."""
    curves = {file for name in cases for file in curves_of(name).values()}
    return curves | {picture["file"] for found in cases.values() for picture in pictures_of(found)}


def in_short(found: Mapping[str, Found]) -> list[str]:
    """What the numbers say, as sentences made from them."""
    lines = []
    for name in ("tin20", "tin10"):
        if name in found:
            lines += [best_line(name, found[name], column) for column in DECIDING]
    lines += [highest_line(name, found[name]) for name in ("cifar10", "shapes") if name in found]
    if "tin20" in found:
        lines += [trap_line(found["tin20"]), c3_line(found["tin20"])]
    if "rise" in found:
        lines.append(rise_line(found["rise"]))
    if "sanity" in found:
        lines.append(sanity_line(found["sanity"]))
    return lines


def rise_line(found: Found) -> str:
    """Where RISE with enough masks stands."""
    means, parts = found["methods"], []
    for column in (column for column in DECIDING if column in means[CHOSEN]):
        values = ", ".join(
            f"`{m}` {means[m][column][0]:.3f}" for m in means if m == CHOSEN or m.startswith("rise")
        )
        parts.append(f"{COLUMNS[column]}: {values}")
    return (
        f"RISE gains by more masks ({found['photos']} "
        f"held-out photos of tin20). {'; '.join(parts)}."
    )


def highest_line(name: str, found: Found) -> str:
    """What is best in every deciding column, where no choice
    was made for the case, and where the chosen one stands.
    """
    means, parts = found["methods"], []
    for column in (
        column for column in DECIDING if column in next(iter(found["methods"].values()))
    ):
        best = max(means, key=lambda method: means[method][column][0])
        parts.append(
            f"{COLUMNS[column]} `{best}` with {means[best][column][0]:.3f} "
            f"(`{CHOSEN}` {means[CHOSEN][column][0]:.3f})"
        )
    return f"{name}, whose photos no search saw: the highest is in {', in '.join(parts)}."


def c3_line(found: Found) -> str:
    """What C3 does to the paper's own maps."""
    means, parts = found["methods"], []
    for column in ("keio ID", "exact ID", "srg ID"):
        values = [means[method][column][0] for method in ("c3-lrp", "c3-lrp+c3", f"c3-lrp+{RANK}")]
        parts.append(
            "{}: {:.3f}, with C3 {:.3f}, with C3 without ties {:.3f}".format(
                COLUMNS[column], *values
            )
        )
    return f"What C3 adds to `c3-lrp`. {'; '.join(parts)}."


def sanity_line(found: Found) -> str:
    """How much of a map is left when the weights are shuffled."""
    means = found["methods"]
    order = sorted(
        (m for m in means if m not in KNOWING_NOTHING), key=lambda m: means[m]["randomisation"][0]
    )
    kept = ", ".join(f"`{method}` {means[method]['randomisation'][0]:.2f}" for method in order)
    return f"Rank correlation that is left when weights are shuffled (lower is better): {kept}."


def best_line(name: str, found: Found, column: str) -> str:
    """How the chosen composite stands in one column, on the half that the search never saw."""
    means = found["held_out"]
    told = {
        rival: gap
        for rival, gap in found["gaps"]["held_out"][CHOSEN][column].items()
        if rival in RIVALS
    }
    verdicts = ", ".join(
        f"{'above' if gap[1] > 0 else 'below' if gap[2] < 0 else 'not told apart from'} "
        f"`{rival}` ({interval(gap)})"
        for rival, gap in told.items()
    )
    highest = max(means, key=lambda method: means[method][column][0])
    rest = (
        ""
        if highest == CHOSEN
        else f" The highest of all is `{highest}` with {means[highest][column][0]:.3f}."
    )
    return (
        f"{name}, {COLUMNS[column]}, held-out half: `{CHOSEN}` "
        f"has {means[CHOSEN][column][0]:.3f}, {verdicts}.{rest}"
    )


def trap_line(found: Found) -> str:
    """What a constant map makes of the two protocols."""
    means = found["methods"]
    keio, exact = means["constant"]["keio ID"][0], means["constant"]["exact ID"][0]
    above = [name for name in means if means[name]["keio ID"][0] > keio]
    more = (
        f"only {', '.join(f'`{name}`' for name in above)} have more"
        if above
        else "no method has more"
    )
    return (
        f"A constant map scores {keio:.3f} under `keio` and {exact:.3f} under `exact`: of "
        f"{len(means) - 1} others {more} under `keio`."
    )


def held_out_table(found: Found) -> str:
    """Paired differences to the rivals, with intervals."""
    heads = [f"{COLUMNS[column]} − {rival}" for column in DECIDING for rival in RIVALS]
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    gaps = found["gaps"]["held_out"]
    for name in sorted(gaps, key=lambda name: -gaps[name][DECIDING[0]].get(RIVALS[0], [0])[0]):
        values = [
            interval(gaps[name][column][rival]) if rival in gaps[name][column] else ""
            for column in DECIDING
            for rival in RIVALS
        ]
        lines.append(f"| `{name}` | {' | '.join(values)} |")
    return "\n".join(lines)


def post_table(cases: Mapping[str, Found]) -> str:
    """The same maps with and without post-processing."""
    shown = ("exact ID", "srg ID", "rank", "keio ID")
    lines = [
        f"| model | maps | post-processing | {' | '.join(COLUMNS[key] for key in shown)} |",
        "|---|---|---|" + "---|" * len(shown),
    ]
    for name, found in cases.items():
        for method, values in found["methods"].items():
            base, _, post = method.partition("+")
            if base in ("lrp-resnet", "c3-lrp", BEST) and "keio ID" in values:
                said_ = " | ".join(interval(values[key]) if key in values else "" for key in shown)
                lines.append(f"| {name} | {base} | {post or 'none'} | {said_} |")
    return "\n".join(lines)


def search_part(name: str, found: Found) -> str:
    """The way of one search."""
    own = ", ".join(f"`{method}` {gain:+.3f}" for method, gain in found["by_hand"].items())
    lines = [
        f"{name}, {found['photos']} photos: the best is `{found['best']}`. The composite made of both: {own}.\n",
        "| round | choice | tried (above Grad-CAM) |",
        "|---|---|---|",
    ]
    for step in found["way"]:
        tried = sorted(step["tried"].items(), key=lambda item: -item[1])
        shown = "; ".join(f"{value(method, step['choice'])} {gain:+.3f}" for method, gain in tried)
        lines.append(f"| {step['round']} | {step['choice']} | {shown} |")
    return "\n".join(lines)


def value(method: str, choice: str) -> str:
    """What a method's name says of a choice."""
    first, *steps = split(method, "+")
    given = dict(parse(first, what="method").arguments)
    if choice == "post":
        return f"`{'+'.join(steps)}`" if steps else "none"
    return f"`{given[choice]}`" if choice in given else "the composite's"


def speed_table(results: Sequence[Found]) -> str:
    lines = [
        "| network | pixels | photos | steps | lrp-onnx s | Quantus | loop |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in results:
        ours = found["seconds"]["lrp-onnx"]
        others = " | ".join(f"{found['seconds'][key] / ours:.1f}×" for key in ("Quantus", "loop"))
        what = " | ".join(str(found[key]) for key in ("network", "size", "photos", "steps"))
        lines.append(f"| {what} | {ours:.1f} | {others} |")
    return "\n".join(lines)


def stored_defaults(folder: Path) -> dict[str, Found]:
    """The cases of the default in the folder, in the order of the study."""
    paths = {name: folder / "default" / f"{name}.json" for name in default.CASES}
    return {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if path.exists()
    }


def stored_families(folder: Path) -> dict[str, Found]:
    """``vit`` and ``vit.search``, and so on: what the families' folder holds."""
    return {
        path.name.removesuffix(".json"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "families").glob("*.json"))
    }


def stored(folder: Path) -> tuple[dict[str, Found], dict[str, Found], list[Found]]:
    """(cases, searches, speeds) in the folder."""
    read = {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }
    found = {name.removesuffix(".json"): one for name, one in read.items() if name.count(".") == 1}
    searches = {
        name.removesuffix(".search.json"): one
        for name, one in read.items()
        if name.endswith(".search.json")
    }
    speed = [one for name, one in read.items() if name.endswith(".speed.json")]
    return found, searches, speed


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    STORED.mkdir(exist_ok=True)
    for folder in map(Path, given):
        for path in folder.glob("*.json"):
            shutil.copy(path, STORED / path.name)
    cases, searches, speed = stored(STORED)
    for folder in map(Path, given):
        for name in files_of(cases):
            if (folder / name).exists():
                shutil.copy(folder / name, STORED / name)
    defaults = stored_defaults(STORED)
    whole = page(cases, searches, speed, defaults, stored_families(STORED))
    PAGE.write_text(whole, encoding="utf-8")
    if "tin20" in defaults:
        cases_of_table = defaults["tin20"], defaults.get("tin20-costly")
        for path, made in ((GUIDE, with_table), (README, with_short_table)):
            path.write_text(made(path.read_text(encoding="utf-8"), *cases_of_table), "utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
