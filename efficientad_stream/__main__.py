"""``python -m efficientad_stream`` is ``efficientad-stream``."""

from __future__ import annotations

import sys

from efficientad_stream.cli import main

if __name__ == "__main__":
    sys.exit(main())
