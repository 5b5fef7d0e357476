"""Layouts of labelled data sets, a module each: ``fits(root)`` and ``read(root)``.

Nothing here needs torch.
"""
