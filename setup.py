"""What pyproject.toml cannot say: the embedded model and its pictures, which lie in `models`,
travel in the wheel as `lrp_onnx/embedded`.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["lrp_onnx*"], exclude=["*.__pycache__"]),
        "lrp_onnx.embedded",
        "lrp_onnx.embedded.samples",
    ],
    package_dir={"lrp_onnx.embedded": "models"},
)
