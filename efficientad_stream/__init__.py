"""Camera-line inspection with EfficientAD: every trigger gets exactly one verdict."""

__version__ = "0.1.0"
