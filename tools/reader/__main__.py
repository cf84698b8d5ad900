"""``python -m tools.reader``: draw pages, train in stages, export, evaluate."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ovis_engine.bundled import bundled_model_path
from ovis_engine.checkpoint import OvisModel
from tools.reader.evaluate import evaluate, summary, table
from tools.reader.export import export
from tools.reader.first_weights import begin_tower, begin_words
from tools.reader.pages import held_out_sets, training_set
from tools.reader.reader_stage import ReaderStage
from tools.reader.samples import refresh_samples
from tools.reader.shape import build_model
from tools.reader.tower_stage import TowerStage
from tools.reader.training import Plan, Stage, load_state, packed, restore, save_state, train
from tools.reader.words_stage import WordsStage

STATE = Path(__file__).parent / "state"
TOWER, WORDS, READER = STATE / "tower.pt", STATE / "words.pt", STATE / "reader.pt"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command."""
    options = _parser().parse_args(arguments)
    # More threads gain little on layers this narrow; two stages side by side gain more.
    torch.set_num_threads(1)
    command: Callable[[argparse.Namespace], None] = options.run
    command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.reader", description=__doc__)
    commands = parser.add_subparsers(required=True)
    draw = commands.add_parser("draw", help="write some training pages and their transcripts to a folder")
    draw.add_argument("folder", type=Path)
    draw.add_argument("--count", type=int, default=8)
    draw.set_defaults(run=_draw)
    for name, run, rate in (
        ("train-tower", _train_tower, 7e-4),
        ("train-words", _train_words, 5e-4),
        ("train-reader", _train_reader, 4e-4),
    ):
        stage = commands.add_parser(name, help="train a stage, from its state if there is one")
        stage.add_argument("--minutes", type=float, default=60.0)
        stage.add_argument("--rate", type=float, default=rate)
        stage.add_argument("--anneal-steps", type=int, default=0, help="let the rate fall to zero and end the stage")
        stage.set_defaults(run=run)
    packing = commands.add_parser("pack", help="drop the optimizers from the states, to keep them in the tree")
    packing.set_defaults(run=_pack)
    exporting = commands.add_parser("export", help="write the checkpoint of the last stage")
    exporting.add_argument("folder", type=Path)
    exporting.set_defaults(run=_export)
    sampling = commands.add_parser("samples", help="read a checkpoint's sample pages anew")
    sampling.add_argument("folder", type=Path)
    sampling.set_defaults(run=_samples)
    evaluating = commands.add_parser("evaluate", help="read held-out pages; the last line is JSON")
    evaluating.add_argument("--checkpoint", type=Path, default=bundled_model_path())
    evaluating.add_argument("--pages", type=int, default=200)
    evaluating.add_argument("--sets", nargs="+", help="only these sets")
    evaluating.add_argument("--json", type=Path, help="write all figures to this file, too")
    evaluating.set_defaults(run=_evaluate)
    return parser


def _draw(options: argparse.Namespace) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    pages = training_set()
    for number in range(options.count):
        page, picture = pages.picture(number)
        picture.save(options.folder / f"page{number}.png")
        (options.folder / f"page{number}.txt").write_text(page.text + "\n", encoding="utf-8")


def _train_tower(options: argparse.Namespace) -> None:
    model = build_model()
    begin_tower(model, seed=1)
    _train(TowerStage(model, training_set(), batch=6), TOWER, options)


def _train_words(options: argparse.Namespace) -> None:
    model = build_model()
    begin_words(model, seed=1)
    _train(WordsStage(model, training_set(), batch=10), WORDS, options)


def _train_reader(options: argparse.Namespace) -> None:
    model = build_model()
    _load(model, TOWER, READER if READER.exists() else WORDS)
    _train(ReaderStage(model, training_set(), batch=10), READER, options)


def _train(stage: Stage, file: Path, options: argparse.Namespace) -> None:
    plan = Plan(rate=options.rate, minutes=options.minutes, anneal_steps=options.anneal_steps)
    state = train(stage, file, plan)
    print(f"{file.name}: {state.step} steps")


def _pack(_options: argparse.Namespace) -> None:
    for file in (TOWER, WORDS, READER):
        if file.exists():
            save_state(packed(load_state(file)), file)


def _load(model: OvisModel, *files: Path) -> None:
    """Fills a model from the states of several stages; later ones win."""
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= load_state(file).weights
    restore(dict(model.named_parameters()), weights)


def _export(options: argparse.Namespace) -> None:
    model = build_model()
    _load(model, TOWER, READER if READER.exists() else WORDS)
    export(model, options.folder)


def _samples(options: argparse.Namespace) -> None:
    for name, rate in refresh_samples(options.folder).items():
        print(f"{name:<14} CER {rate * 100:.1f} %")


def _evaluate(options: argparse.Namespace) -> None:
    sets = held_out_sets()
    chosen = {name: sets[name] for name in options.sets or sets}
    scores = evaluate(options.checkpoint, chosen, options.pages)
    if options.json:
        figures = {name: asdict(one) for name, one in scores.items()}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(table(scores))
    print(json.dumps(summary(scores)))


if __name__ == "__main__":
    main()
