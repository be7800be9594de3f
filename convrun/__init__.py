"""convrun trains ConvNeXt image classifiers from declarative recipes."""

__version__ = "0.1.0"
