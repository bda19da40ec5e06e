"""Files that tf2onnx writes of Keras and TFLite models."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers
from keras.src.applications import resnet

from tools.zoo.recipe import BATCH_NORM_EPSILON, BLOCKS, CLASSES, SIZE, Recipe, core_weights

TOOLS = ("tf2onnx", "tensorflow_cpu", "keras", "onnx")


def core(*, same: bool = False) -> keras.Model:
    """The shared network, with torch's explicit padding, or with the framework's own."""
    stored, pool = core_weights(), "same" if same else "valid"
    picture = keras.Input((SIZE, SIZE, 3), name="input")
    x = _conv(stored, picture, "conv1", stride=2, pad="same" if same else 3)
    x = layers.ReLU()(_norm(stored, x, "bn1"))
    x = layers.MaxPooling2D(3, 2, pool)(x if same else layers.ZeroPadding2D(1)(x))
    for block, (into, _, out, stride) in BLOCKS.items():
        y = layers.ReLU()(_norm(stored, _conv(stored, x, f"{block}.conv1"), f"{block}.bn1"))
        y = _conv(stored, y, f"{block}.conv2", stride=stride, pad="same" if same else 1)
        y = layers.ReLU()(_norm(stored, y, f"{block}.bn2"))
        y = _norm(stored, _conv(stored, y, f"{block}.conv3"), f"{block}.bn3")
        if into != out:
            x = _conv(stored, x, f"{block}.downsample.0", stride=stride)
            x = _norm(stored, x, f"{block}.downsample.1")
        x = layers.ReLU()(layers.Add()([y, x]))
    x = layers.GlobalAveragePooling2D()(x)
    dense = layers.Dense(CLASSES)
    model = keras.Model(picture, layers.Softmax()(dense(x)))
    dense.set_weights([stored["fc.weight"].T, stored["fc.bias"]])
    return model


def _conv(stored: Any, x: Any, name: str, *, stride: int = 1, pad: Any = 0) -> Any:
    kernel = stored[f"{name}.weight"].transpose(2, 3, 1, 0)
    same = pad == "same"
    layer = layers.Conv2D(
        kernel.shape[3], kernel.shape[0], stride, "same" if same else "valid", use_bias=False
    )
    y = layer(layers.ZeroPadding2D(pad)(x) if pad and not same else x)
    layer.set_weights([kernel])
    return y


def _norm(stored: Any, x: Any, name: str) -> Any:
    layer = layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON)
    y = layer(x)
    layer.set_weights(
        [stored[f"{name}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")]
    )
    return y


def applications(*, preact: bool) -> keras.Model:
    """`keras.applications`' ResNet or ResNetV2, with two
    thin stages; SAME pads, explicit border before MaxPool.
    """
    keras.utils.set_random_seed(5)
    stack = resnet.stack_residual_blocks_v2 if preact else resnet.stack_residual_blocks_v1

    def stages(x: Any) -> Any:
        if preact:
            x = stack(x, 4, 2, name="conv2")
            return stack(x, 8, 2, stride1=1, name="conv3")
        x = stack(x, 4, 2, stride1=1, name="conv2")
        return stack(x, 8, 2, name="conv3")

    model = resnet.ResNet(
        stages,
        preact,
        True,
        weights=None,
        input_shape=(SIZE, SIZE, 3),
        classes=CLASSES,
        name="resnet",
    )
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            channels = layer.get_weights()[0].size
            gamma, beta = rng.uniform(0.6, 1.4, channels), rng.normal(0.1, 0.15, channels)
            layer.set_weights(
                [gamma, beta, rng.normal(0, 0.2, channels), rng.uniform(0.5, 2, channels)]
            )
    return model


def from_keras(make: Any, path: Path, *, opset: int = 15, nchw: bool = False) -> None:
    model = make()
    signature = (tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="input"),)
    names = {"inputs_as_nchw": ["input"]} if nchw else {}
    tf2onnx.convert.from_keras(model, signature, opset=opset, output_path=str(path), **names)


def keras_export(make: Any, path: Path) -> None:
    """What `model.export(format="onnx")` of Keras 3 writes."""
    model = make()
    model(np.zeros((1, *model.input_shape[1:]), np.float32))
    model.export(str(path), format="onnx", verbose=False)


def from_tflite(make: Any, path: Path, *, opset: int = 13, int8: bool = False) -> None:
    converter = tf.lite.TFLiteConverter.from_keras_model(make())
    if int8:
        pictures = np.random.default_rng(0).normal(size=(16, 1, SIZE, SIZE, 3)).astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture] for picture in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    lite = path.with_suffix(".tflite")
    lite.write_bytes(converter.convert())
    tf2onnx.convert.from_tflite(str(lite), opset=opset, output_path=str(path))
    lite.unlink()


def _recipe(
    family: str, exporter: str, architecture: str, write: Any, layout: str = "NHWC"
) -> Recipe:
    return Recipe(family, exporter, architecture, TOOLS, write, layout=layout)


_CORE = "ResNet v1.5: bottleneck blocks"
_V1, _V2 = (
    "ResNet v1 (Keras applications)",
    "ResNet v2: pre-activation, max-pooled shortcuts (Keras applications)",
)
_v1, _v2 = partial(applications, preact=False), partial(applications, preact=True)
RECIPES = [
    _recipe("core", "tf2onnx-nhwc", _CORE, partial(from_keras, core)),
    _recipe(
        "core", "tf2onnx-nchw-op17", _CORE, partial(from_keras, core, nchw=True, opset=17), "NCHW"
    ),
    _recipe("core", "keras3-export", _CORE, partial(keras_export, core)),
    _recipe("core", "tf2onnx-tflite", _CORE, partial(from_tflite, core)),
    _recipe("core-int8-tflite", "tf2onnx", _CORE + ", int8", partial(from_tflite, core, int8=True)),
    _recipe(
        "same", "tf2onnx-nhwc", _CORE + ", SAME pads", partial(from_keras, partial(core, same=True))
    ),
    _recipe(
        "same",
        "tf2onnx-tflite",
        _CORE + ", SAME pads",
        partial(from_tflite, partial(core, same=True)),
    ),
    _recipe("keras-v1", "tf2onnx-nhwc", _V1, partial(from_keras, _v1)),
    _recipe("keras-v1", "tf2onnx-nchw", _V1, partial(from_keras, _v1, nchw=True), "NCHW"),
    _recipe("keras-v1", "tf2onnx-tflite", _V1, partial(from_tflite, _v1)),
    _recipe("keras-v2", "tf2onnx-nhwc", _V2, partial(from_keras, _v2)),
    _recipe("keras-v2", "tf2onnx-nchw", _V2, partial(from_keras, _v2, nchw=True), "NCHW"),
    _recipe("keras-v2", "tf2onnx-tflite", _V2, partial(from_tflite, _v2)),
]
