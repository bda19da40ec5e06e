"""Programs for those who work on the package; each is run as a
module: `python -m tools.zoo.make`.
"""
