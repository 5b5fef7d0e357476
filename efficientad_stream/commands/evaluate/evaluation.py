"""The way of an evaluation: data sets and recipes in, figures and reports out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from efficientad_stream.commands.evaluate.document import Document, as_markdown, as_text
from efficientad_stream.commands.evaluate.figures import (
    AREAS,
    Report,
    figures,
    image_of,
    mean,
)
from efficientad_stream.commands.evaluate.gallery import Gallery
from efficientad_stream.commands.evaluate.page import Product, as_html
from efficientad_stream.commands.evaluate.scoring import score_all
from efficientad_stream.commands.evaluate.sections import many_products, one_product
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.types import Policy
from efficientad_stream.model.artifact import load_recipe, read_recipe_file
from efficientad_stream.model.corruptions import CORRUPTIONS
from efficientad_stream.model.data import read_image, spread
from efficientad_stream.model.dataset import Dataset, find_datasets
from efficientad_stream.model.layouts.labelled import Labelled
from efficientad_stream.model.memory import keep_freed_memory

SATURATING = "MVTec LOCO"


@dataclass(frozen=True)
class Task:
    """One recipe and the data set that it is measured on."""

    dataset: Dataset
    recipe: Path


def evaluate(args: argparse.Namespace) -> int:
    """Score, print, write; the arguments are those of the command, checked."""
    keep_freed_memory()
    tasks = _tasks(args.dataset, args.recipe)
    products = []
    for task in tasks:
        products.append(_measure(task, args))
        print(as_text(one_product(products[-1].report)), end="\n\n" if len(tasks) > 1 else "\n")
    if tasks[0].dataset.root == args.dataset:
        _write(args, products, products[0].report, None)
        return 0
    report = _combined(args.dataset, products)
    overview = many_products(report)
    print(as_text(overview))
    _write(args, products, report, overview)
    return 0


def _tasks(root: Path, recipe: Path) -> list[Task]:
    """What is to be measured; every recipe is there before anything is scored.

    Raises:
        ArtifactError: no data set, or no recipe of a category's name.
    """
    datasets = find_datasets(root)
    if datasets[0].root == root:
        return [Task(datasets[0], recipe)]
    tasks = [Task(dataset, recipe / dataset.name) for dataset in datasets]
    for task in tasks:
        read_recipe_file(task.recipe)
    return tasks


def _check_masks(items: Sequence[Labelled]) -> None:
    """Raise ArtifactError for a mask that cannot be read, before hours are spent on scoring."""
    for item in items:
        for path in item.masks:
            read_image(path, 1)


def _measure(task: Task, args: argparse.Namespace) -> Product:
    loaded = load_recipe(task.recipe)
    items = task.dataset.items
    items = [items[index] for index in spread(len(items), args.limit)]
    _check_masks(items)
    threshold = loaded.recipe.threshold.value if args.threshold is None else args.threshold
    gallery = Gallery(threshold, loaded.recipe.geometry.channels)
    corruptions = CORRUPTIONS if args.corruptions else ()
    policy = Policy(threshold)
    scoring = score_all(
        loaded, items, policy, args.threads, corruptions,
        backend_kind=args.backend, on_map=gallery.offer,
    )  # fmt: skip
    report: Report = {
        "dataset": str(task.dataset.root),
        "layout": task.dataset.layout,
        "recipe": asdict(loaded.recipe.id),
        **figures(scoring, threshold, saturating=task.dataset.layout == SATURATING),
        "seconds": round(scoring.seconds, 1),
    }
    escapes = gallery.escapes() if args.html else []
    rejects = gallery.false_rejects() if args.html else []
    return Product(task.dataset.name, report, scoring.clean, escapes, rejects)


def _combined(root: Path, products: Sequence[Product]) -> Report:
    """The reports of all categories, and the mean of their figures."""
    reports = [product.report for product in products]
    means: dict[str, Any] = mean(reports, AREAS)
    kinds = [report["mean_of_kinds"] for report in reports if "mean_of_kinds" in report]
    if len(kinds) == len(reports):
        means["mean_of_kinds"] = mean(kinds, AREAS)
    tables = [report["corruptions"] for report in reports if "corruptions" in report]
    if tables:
        means["corruptions"] = {
            name: mean([table[name] for table in tables], ("image_auroc", "points_lost"))
            for name in tables[0]
        }
    categories = {product.name: product.report for product in products}
    return {"dataset": str(root), "categories": categories, "mean": means}


def _write(
    args: argparse.Namespace,
    products: Sequence[Product],
    report: Report,
    overview: Document | None,
) -> None:
    """Whatever files were asked for."""
    documents = [one_product(product.report) for product in products]
    if args.json is not None:
        images = {product.name: [image_of(one) for one in product.scored] for product in products}
        listed = images if overview else images[products[0].name]
        _write_text("json", args.json, json.dumps({**report, "images": listed}, indent=1) + "\n")
    if args.markdown is not None:
        _write_text("markdown", args.markdown, as_markdown([*filter(None, [overview]), *documents]))
    if args.html is not None:
        _write_text("html", args.html, as_html(products, overview))


def _write_text(name: str, path: Path, text: str) -> None:
    try:
        # a file name may hold bytes that are no UTF-8
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"--{name} {path}: cannot be written: {error.strerror}") from error
