"""Coverage-guided fuzzing of what enters: model files, and texts.

Needs atheris (``pip install atheris``) in an environment with this package.
"""
