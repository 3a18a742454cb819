"""Super-resolution of human head scans that keeps what was measured."""

__version__ = "0.1.0"
