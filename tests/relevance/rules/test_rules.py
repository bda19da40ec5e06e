"""Every rule against a twin: the same rule written a second
time, slowly, on the explicit matrix, in float64.

A layer's matrix is found by feeding unit vectors to its forward. The graph is evaluated in float64
(is it the right formula?) and by ONNX Runtime in float32 (does it survive rounding?).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import single_layer
from numpy.typing import NDArray

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.relevance.rules.table import RULES

Array = NDArray[np.float64]
SHAPE = (2, 4, 7, 6)
FLOAT64 = 1e-6
"""Constants (ε, folded scales) are stored in float32: 6e-8
relative, amplified a little by quotients.
"""
FLOAT32 = 1e-4

LAYERS: dict[str, dict[str, Any]] = {
    "conv": {"layer": "conv", "pads": [1, 1, 1, 1]},
    "conv-strided": {"layer": "conv", "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "conv-grouped-dilated": {
        "layer": "conv",
        "group": 2,
        "dilations": [2, 2],
        "pads": [2, 2, 2, 2],
    },
    "conv-asymmetric": {"layer": "conv", "pads": [0, 1, 2, 0], "strides": [2, 1]},
    "dense": {"layer": "dense"},
    "dense-scaled": {"layer": "dense", "form": "gemm-scaled"},
    "dense-matmul": {"layer": "dense", "form": "matmul"},
    "linear": {"layer": "linear"},
    "deconv": {"layer": "deconv", "strides": [2, 1], "pads": [1, 0, 0, 1]},
    "deconv-grouped": {
        "layer": "deconv",
        "group": 2,
        "strides": [2, 2],
        "dilations": [1, 2],
        "output_padding": [1, 0],
    },
    "average": {
        "layer": "average",
        "kernel_shape": [3, 3],
        "strides": [2, 2],
        "pads": [1, 1, 1, 1],
    },
    "average-with-pads": {
        "layer": "average",
        "kernel_shape": [3, 3],
        "strides": [2, 2],
        "pads": [1, 1, 1, 1],
        "count_include_pad": 1,
    },
    "global": {"layer": "global"},
    "batch-norm": {"layer": "batch_norm"},
}


def stabilized(z: Array, epsilon: float, signed: bool = True) -> Array:
    return z + epsilon * np.where(z < 0, -1.0, 1.0) if signed else z + epsilon


def shared(
    contributions: Array, bias: Array, r: Array, epsilon: float, signed: bool = True
) -> Array:
    """Σ_j contribution_ji / stabilize(Σ_i contribution_ji +
    bias_j) · R_j for every sample; contributions (N, out, in).
    """
    z = contributions.sum(2) + bias
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.where(stabilized(z, epsilon, signed) == 0, 0.0, r / stabilized(z, epsilon, signed))
    return np.einsum("nji,nj->ni", contributions, s)


def plus(a: Array) -> Array:
    return np.maximum(a, 0)


def minus(a: Array) -> Array:
    return np.minimum(a, 0)


def twin_epsilon(
    x: Array, w: Array, b: Array, r: Array, *, epsilon: float = 1e-6, signed: bool = True
) -> Array:
    return shared(x[:, None] * w, b, r, epsilon, signed)


def twin_alpha_beta(x: Array, w: Array, b: Array, r: Array, *, alpha: float, beta: float) -> Array:
    xw = x[:, None] * w
    return alpha * shared(plus(xw), plus(b), r, 1e-6) - beta * shared(minus(xw), minus(b), r, 1e-6)


def twin_gamma(x: Array, w: Array, b: Array, r: Array, *, gamma: float) -> Array:
    z = np.einsum("ni,ji->nj", x, w) + b
    xw = x[:, None] * w
    up = xw + gamma * plus(xw), b + gamma * plus(b)
    down = xw + gamma * minus(xw), b + gamma * minus(b)
    return shared(*up, np.where(z > 0, r, 0), 1e-6) + shared(*down, np.where(z < 0, r, 0), 1e-6)


def twin_box(x: Array, w: Array, b: Array, r: Array, *, low: float, high: float) -> Array:
    contributions = x[:, None] * w - low * plus(w) - high * minus(w)
    return shared(contributions, np.zeros_like(b), r, 1e-6)


TWINS: dict[str, Callable[..., Array]] = {
    "epsilon": twin_epsilon,
    "epsilon(epsilon=0)": lambda x, w, b, r: twin_epsilon(x, w, b, r, epsilon=0.0),
    "epsilon(epsilon=0.25)": lambda x, w, b, r: twin_epsilon(x, w, b, r, epsilon=0.25),
    # Large, so that no z lies near the pole at z = -ε.
    "epsilon(epsilon=50, signed=false, bias=drop)": lambda x, w, b, r: twin_epsilon(
        x, w, 0 * b, r, epsilon=50.0, signed=False
    ),
    "norm": twin_epsilon,
    "gamma": lambda x, w, b, r: twin_gamma(x, w, b, r, gamma=0.25),
    "gamma(gamma=3, bias=drop)": lambda x, w, b, r: twin_gamma_dropped(x, w, b, r, gamma=3.0),
    "z-plus": lambda x, w, b, r: twin_alpha_beta(x, w, b, r, alpha=1.0, beta=0.0),
    "z-plus(bias=drop)": lambda x, w, b, r: twin_alpha_beta(x, w, 0 * b, r, alpha=1.0, beta=0.0),
    "z-plus(ones=true)": lambda x, w, b, r: twin_alpha_beta(
        np.ones_like(x), w, b, r, alpha=1.0, beta=0.0
    ),
    "alpha-beta": lambda x, w, b, r: twin_alpha_beta(x, w, b, r, alpha=2.0, beta=1.0),
    "alpha-beta(alpha=3.5, beta=2.5)": lambda x, w, b, r: twin_alpha_beta(
        x, w, b, r, alpha=3.5, beta=2.5
    ),
    # Without a stabilizer: a pool's fixed weights may be scaled freely.
    "w-square(epsilon=0)": lambda x, w, b, r: shared(
        np.ones_like(x)[:, None] * w**2, 0 * b, r, 0.0
    ),
    "flat(epsilon=0)": lambda x, w, b, r: shared(
        np.ones_like(x)[:, None] * (w != 0), 0 * b, r, 0.0
    ),
    "z-box(low=-4, high=5)": lambda x, w, b, r: twin_box(x, w, b, r, low=-4.0, high=5.0),
    "gradient": lambda x, w, b, r: np.einsum("ji,nj->ni", w, r),
}
ELSEWHERE = {
    "pass",
    "winner-take-all",
    "average",
    "guided-relu",
    "deconv-relu",
    "block",
    "route",
    "spread",
    "softmax",
    "layer-norm",
}
"""Rules of layers without a matrix, and of strided 1×1 convolutions; test_joins.py,
test_routing.py, test_spread.py and test_attention.py have their twins.
"""


def twin_gamma_dropped(x: Array, w: Array, b: Array, r: Array, *, gamma: float) -> Array:
    """The bias still decides the sign of z; it is gone from the denominators."""
    z = np.einsum("ni,ji->nj", x, w) + b
    xw, none = x[:, None] * w, np.zeros_like(b)
    up, down = xw + gamma * plus(xw), xw + gamma * minus(xw)
    return shared(up, none, np.where(z > 0, r, 0), 1e-6) + shared(
        down, none, np.where(z < 0, r, 0), 1e-6
    )


def matrix_of(model: onnx.ModelProto, x: Array) -> tuple[Array, Array]:
    """(W (out, in), b (out,)) of a single-layer model, from its forward alone."""
    entry = "relu.out" if any(n.op_type == "Relu" for n in model.graph.node) else "x"
    tail = onnx.ModelProto()
    tail.CopyFrom(model)
    nodes = [n for n in model.graph.node if n.op_type != "Relu"]
    del tail.graph.node[:]
    tail.graph.node.extend(nodes)
    size = int(np.prod(x.shape[1:]))
    units = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(-1, *x.shape[1:])
    y = run_float64(tail, {entry: units})["last.out"]
    return (y[1:] - y[0]).T, y[0]


@pytest.mark.parametrize("rectified", [False, True], ids=["signed", "rectified"])
@pytest.mark.parametrize("rule", TWINS)
@pytest.mark.parametrize("layer", LAYERS)
def test_rule_equals_its_matrix_twin(
    layer: str, rule: str, rectified: bool, saved: Callable[[onnx.ModelProto], Any]
) -> None:
    model = single_layer(shape=SHAPE, rectified=rectified, **LAYERS[layer])
    rng = np.random.default_rng(1)
    x = rng.normal(size=SHAPE).astype(np.float32)
    entry = "relu.out" if rectified else "x"
    inside = np.maximum(x, 0) if rectified else x
    w, b = matrix_of(model, x.astype(np.float64))
    r = rng.normal(size=(2, len(b))).astype(np.float32)
    name = next(n.name for n in model.graph.node if n.op_type not in ("Relu", "Flatten"))
    options = Options(
        composite="lrp-z", rules={name: rule}, outputs=("relevance" if entry == "x" else entry,)
    )
    compiled = compile_model(saved(model), options).model
    expected = TWINS[rule](
        inside.reshape(2, -1).astype(np.float64), w, b, r.astype(np.float64)
    ).reshape(SHAPE)
    output = "relevance" if entry == "x" else f"relevance/{entry}"
    feeds = {"x": x, "start": r}
    assert relative(run_float64(compiled, feeds)[output], expected) < FLOAT64
    assert relative(run_onnx(compiled, feeds)[output], expected) < FLOAT32


def test_every_layer_rule_has_a_twin() -> None:
    tested = {text.partition("(")[0] for text in TWINS} | ELSEWHERE
    assert tested == {name for name, rule in RULES.items() if not rule.serves}
