"""The rendered line: pictures of a machined part on a belt, with defects and their truth.

Everything is drawn from numbers and is free of anybody's licence.
"""
