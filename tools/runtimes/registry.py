"""The runtimes of the matrix: what is installed for each, and which file it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.runtimes.environments import Environment

OWN = Environment()
"""This project's own environment."""
ORT = Environment(("onnxruntime==1.32.0", "numpy"))
TOOLS = Environment(
    (
        "onnxslim==0.1.98",
        "onnxsim==0.8.1",
        "onnxconverter-common==1.16.0",
        "onnxruntime==1.32.0",
        "onnx==1.23.2",
        "numpy",
    )
)
SLIM = Environment(("onnxslim==0.1.98", "onnx==1.23.2", "numpy"))
NODE = Environment(("onnxruntime-node@1.30.0",), npm=True)
WEB = Environment(("onnxruntime-web@1.30.0",), npm=True)


@dataclass(frozen=True, slots=True)
class Form:
    """How a file is compiled."""

    optimize_for: str
    static: bool = False

    @property
    def flags(self) -> str:
        """The options of `lrp-onnx compile`."""
        return f"--optimize-for {self.optimize_for}" + (" --static" if self.static else "")


PORTABLE, STATIC = Form("portable"), Form("portable", static=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One runtime, or one tool and the runtime that runs what it makes."""

    name: str
    title: str
    environment: Environment
    runner: str
    """Module of `tools.runtimes.runners`, or ``node`` or ``browser``."""
    forms: tuple[Form, ...] = (PORTABLE,)
    """The first is the one to give it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    transform: str | None = None
    """Tool of `runners.transform` that changes the file first."""
    tools: Environment = OWN
    """Where that tool is."""
    package: str = ""
    """Package whose version counts where the runtime did not come to say it."""
    tolerance: float = 1e-3
    """Of the map, relative to its maximum."""
    outputs_tolerance: float = 1e-4
    """Of the original outputs, relative to their maximum."""
    small: bool = False
    """Whether it is too slow for the full-size model."""
    ci: bool = False
    """Whether plain pytest tries it."""
    remark: str = ""


RUNTIMES = (
    Runtime(
        name="onnxruntime",
        title="ONNX Runtime, newest",
        environment=ORT,
        runner="run_onnxruntime",
        forms=(Form("cpu"), PORTABLE),
    ),
    Runtime(
        name="onnxruntime-oldest",
        title="ONNX Runtime, oldest",
        environment=Environment(("onnxruntime==1.15.0", "numpy<2")),
        runner="run_onnxruntime",
        forms=(PORTABLE, Form("cpu")),
        ci=True,
        remark="The cpu form is wrong from a session's second run on, logits too, unless "
        "`enable_mem_pattern` is off.",
    ),
    Runtime(
        name="onnxruntime-1.19",
        title="ONNX Runtime, oldest for the cpu form",
        environment=Environment(("onnxruntime==1.19.2", "numpy<2")),
        runner="run_onnxruntime",
        forms=(Form("cpu"), PORTABLE),
    ),
    Runtime(
        name="openvino",
        title="OpenVINO, newest",
        environment=Environment(("openvino==2026.4.1", "numpy")),
        runner="run_openvino",
        forms=(Form("openvino"), PORTABLE),
        ci=True,
        remark="`INFERENCE_PRECISION_HINT` is f32.",
    ),
    Runtime(
        name="openvino-2024",
        title="OpenVINO, of 2024",
        environment=Environment(("openvino==2024.6.0", "numpy<2.2")),
        runner="run_openvino",
        forms=(Form("openvino"), PORTABLE),
        remark="`INFERENCE_PRECISION_HINT` is f32.",
    ),
    Runtime(
        name="onnxruntime-node",
        title="onnxruntime-node",
        environment=NODE,
        runner="node",
        forms=(PORTABLE, Form("web")),
        options={"package": "onnxruntime-node"},
        ci=True,
    ),
    Runtime(
        name="onnxruntime-web",
        title="onnxruntime-web (wasm), Node",
        environment=WEB,
        runner="node",
        forms=(Form("web"), PORTABLE),
        options={"package": "onnxruntime-web"},
        ci=True,
    ),
    Runtime(
        name="chromium",
        title="onnxruntime-web (wasm), Chromium",
        environment=WEB,
        runner="browser",
        forms=(Form("web"), PORTABLE),
    ),
    Runtime(
        name="tract",
        title="tract",
        environment=Environment(("tract==0.23.9", "numpy")),
        runner="run_tract",
        ci=True,
        remark="The shapes of the inputs are fixed before the model is optimised.",
    ),
    Runtime(
        name="opencv",
        title="OpenCV DNN 5",
        environment=Environment(("opencv-python-headless==5.0.0.93", "numpy")),
        runner="run_opencv",
        forms=(PORTABLE, STATIC),
        ci=True,
    ),
    Runtime(
        name="opencv-4",
        title="OpenCV DNN 4",
        environment=Environment(("opencv-python-headless==4.14.0.94", "numpy")),
        runner="run_opencv",
        forms=(STATIC,),
    ),
    Runtime(
        name="mnn",
        title="MNN",
        environment=Environment(("MNN==3.6.1", "numpy")),
        runner="run_mnn",
        forms=(STATIC,),
        remark="Converted by `mnnconvert`; `set_hint(3, 0)` (small Winograd tiles): "
        "convolutions otherwise round more, and c3-lrp's map of the embedded "
        "model is off by 1e-2.",
    ),
    Runtime(
        name="reference",
        title="ONNX reference evaluator",
        environment=OWN,
        runner="run_reference",
        small=True,
        ci=True,
        remark="Too slow for a full-size model.",
    ),
    Runtime(
        name="onnxslim",
        title="onnxslim, then ONNX Runtime",
        environment=OWN,
        runner="run_onnxruntime",
        transform="onnxslim",
        tools=SLIM,
        ci=True,
    ),
    Runtime(
        name="onnxsim",
        title="onnxsim, then ONNX Runtime",
        environment=OWN,
        runner="run_onnxruntime",
        transform="onnxsim",
        tools=TOOLS,
    ),
    Runtime(
        name="ort-format",
        title="ONNX Runtime's .ort format",
        environment=OWN,
        runner="run_onnxruntime",
        transform="ort",
        tools=TOOLS,
    ),
    Runtime(
        name="float16",
        title="float16 by ONNX Runtime's tool",
        environment=OWN,
        runner="run_onnxruntime",
        transform="float16",
        tools=TOOLS,
        tolerance=2e-2,
        outputs_tolerance=1e-2,
        remark="The tolerance of maps is 2e-2 here, of outputs 1e-2.",
    ),
    Runtime(
        name="float16-common",
        title="float16 by onnxconverter-common",
        environment=OWN,
        runner="run_onnxruntime",
        transform="converter_common",
        tools=TOOLS,
        package="onnxconverter-common",
        tolerance=2e-2,
        outputs_tolerance=1e-2,
        remark="It casts an output of the graph back to float32 but not what nodes "
        "inside read of it, and leaves Casts to float32 as they are.",
    ),
    Runtime(
        name="int8",
        title="static int8 by ONNX Runtime's tool",
        environment=OWN,
        runner="run_onnxruntime",
        transform="int8",
        tools=TOOLS,
        remark="Its maps mean nothing: quotients and masks do not survive 256 steps.",
    ),
    Runtime(
        name="int8-forward",
        title="static int8 of the original's nodes alone",
        environment=OWN,
        runner="run_onnxruntime",
        transform="int8_forward",
        tools=TOOLS,
        remark="`nodes_to_exclude` names the nodes that begin with `lrp/`: relevance stays "
        "float32, and is that of the rounded network.",
    ),
)
