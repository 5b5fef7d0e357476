"""Write efficientad_stream/backends/native/transforms.inl from the matrices of winograd.py.

python tools/generate_transforms.py
"""

from __future__ import annotations

from pathlib import Path

from efficientad_stream.backends.native import winograd

TARGET = Path(winograd.__file__).with_name("transforms.inl")

if __name__ == "__main__":
    TARGET.write_text(winograd.transforms_source())
    print(TARGET)
