"""Drawn images for the penalty, for whoever has no photographs: ``images.ProceduralImages``.

Everything is drawn from numbers and is free of anybody's licence.
"""
