"""`Options` checks its values where it is made, and tells all faults at once."""

from __future__ import annotations

from typing import Any

import pytest

from lrp_onnx import Options
from lrp_onnx.contract import Preprocessing
from lrp_onnx.errors import RuleError
from lrp_onnx.relevance.graph.emission import Emission


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"composite": "c3-lpr"}, "did you mean c3-lrp"),
        ({"composite": "nope"}, "no composite 'nope'"),
        ({"start": "logits"}, "start='logits' is not known; did you mean logit?"),
        ({"bias": "dropped"}, "bias='dropped' is not known; did you mean drop?"),
        ({"inputs": "targets"}, "inputs='targets' is not known; did you mean target"),
        (
            {"optimize_for": "opnvino"},
            "optimize_for='opnvino' is not known; did you mean openvino?",
        ),
        ({"post": "c4"}, "post='c4': "),
        ({"post": "c3:size=-1"}, "post='c3:size=-1': "),
        ({"rules": {"conv*": "flatt"}}, r"rules\['conv\*'\]: .*did you mean flat\?"),
        ({"rules": {"@frist": "flat"}}, "no kind of step '@frist'; did you mean @first"),
        ({"outputs": "heatmap"}, "outputs is 'heatmap'; it is a tuple"),
        ({"outputs": ("heatmap", "heatmap")}, "different names"),
        ({"outputs": ("",)}, "outputs is"),
        ({"explain": ""}, "explain is ''"),
        ({"input_size": 224}, "input_size is 224; it is .height, width."),
        ({"input_size": (224, 0)}, "at least 1"),
        ({"resolution": 28}, "resolution is 28"),
        ({"resolution": ""}, "a fraction such as '1/8'"),
        ({"many_targets": "yes"}, "many_targets is 'yes'; it is True or False"),
        ({"static": 1}, "static is 1"),
        ({"opset": 12}, "opset is 12; it is a whole number from 13 to 20"),
        ({"opset": 17.0}, "opset is 17.0"),
        ({"randomize": -1}, "randomize is -1; it is a whole number, at least 0"),
        ({"randomize": True}, "randomize is True"),
        ({"seed": -1}, "seed is -1"),
        ({"preprocessing": "imagenet"}, r"parse_preprocessing\('imagenet'\)"),
        ({"max_memory": 0}, "max_memory is 0; it is a number of bytes above 0"),
        ({"labels": "cat"}, "labels is 'cat'; it is a tuple of class names"),
        ({"inputs": "none", "many_targets": True}, "needs the input target"),
    ],
)
def test_a_wrong_value(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(RuleError, match=words):
        Options(**choices)


def test_all_faults_at_once() -> None:
    with pytest.raises(RuleError) as caught:
        Options(
            composite="nope", start="nope", post="nope", opset=3, rules={"a": "nope", "b": "nada"}
        )
    message = str(caught.value)
    assert message.count("; ") >= 5 and "\n" not in message
    for words in ("no composite", "start='nope'", "post='nope'", "opset is 3", "'a'", "'b'"):
        assert words in message


def test_right_values_stay() -> None:
    given = Options(
        composite="lrp-resnet",
        outputs=["heatmap", "an/inner tensor"],  # type: ignore[arg-type]
        start="one",
        bias="drop",
        post="average+c3:component=peak",
        rules={"@first": "z-box", "fc": "epsilon(epsilon=0.5)"},
        explain="logits",
        input_size=(32, 48),
        resolution="1/8",
        inputs="target",
        opset=17,
        optimize_for=Emission(),
        randomize=2,
        preprocessing=Preprocessing(),
        labels=("cat", ""),
    )
    assert given.outputs == ("heatmap", "an/inner tensor") and given.runtime == "custom"
    assert Options(resolution="layer3/out").resolution == "layer3/out"
    assert Options(outputs=()).given == ()
