"""Checks a whole directory of parity fixtures against the engine: ``python -m ovis_engine verify DIR``.

The layout is that of ``tests/parity`` (see its README). Greedy tokens of all cases come from one engine that decodes
them together, batch rows are submitted together again; logits and embeddings come from the same loaded model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovis_engine.attention import set_attention
from ovis_engine.chat import CHAT_FORMATS
from ovis_engine.checkpoint import OvisModel, load_model
from ovis_engine.config import OvisConfig, read_config
from ovis_engine.engine import Engine
from ovis_engine.families import Family
from ovis_engine.prompt import Prompter
from ovis_engine.request import Completion, EngineConfig, Request
from ovis_engine.verify_case import Case, CaseFiles, check_front, check_logits, check_output, greedy_alone, read_case
from ovis_engine.verify_tables import check_facts, check_grid_table

#: Sizes that let all cases of a fixture set be in the engine together.
CONFIG = EngineConfig(
    dtype="float32", max_running_requests=16, kv_cache_tokens=49152, max_batch_tokens=4096, visual_pool_rows=65536
)

#: Branch of the reference code that each family's edges in ``facts.json`` come from.
BRANCHES: dict[Family, str] = {"ovis2": "v2.0", "ovis1.6": "v1.6"}


class Tally:
    """Counts what passed and prints one line per failure."""

    def __init__(self) -> None:
        self.passed = 0
        self.total = 0

    def count(self, name: str, failures: list[str]) -> None:
        """Takes in one checked item."""
        self.total += 1
        self.passed += not failures
        for failure in failures:
            print(f"FAILED {name}: {failure}")

    def need(self, name: str, *, found: bool) -> bool:
        """Counts a failure if something that must be there isn't; returns whether it is."""
        if not found:
            self.count(name, ["is missing or empty"])
        return found

    @property
    def clean(self) -> bool:
        """Whether everything passed and there was something to check."""
        return 0 < self.total == self.passed


def verify(directory: Path, family: Family | None = None) -> bool:
    """Checks every case, extreme and batch of the models, and the tables that need no weights.

    Fixtures that are not there count as failures: a model's own, any of its lists, either table.

    Args:
        directory: Fixtures in the layout of ``tests/parity``.
        family: Which models to check, None for all.

    Returns:
        Whether all passed. Prints one line per failure, then the counts.
    """
    parity, tables = Tally(), Tally()
    checkpoints = list(_checkpoints(directory, family))
    facts = _table(directory, "facts.json", tables).get("facts", {}) if checkpoints else {}
    for checkpoint, config in checkpoints:
        if parity.need(f"{checkpoint.name}.json", found=(directory / f"{checkpoint.name}.json").exists()):
            known = facts.get(f"{checkpoint.name}@{BRANCHES[config.family]}", {})
            _verify_model(directory, checkpoint, config, parity, tables, known)
    if checkpoints:
        for name, failures in check_grid_table({"sides": {}} | _table(directory, "grid_table.json", tables)):
            tables.count(name, failures)
    print(f"tables: {tables.passed} of {tables.total}")
    print(f"parity: {parity.passed} of {parity.total}")
    return parity.clean and tables.clean


def _checkpoints(directory: Path, family: Family | None) -> Iterator[tuple[Path, OvisConfig]]:
    for file in sorted(directory.glob("models/*/config.json")):
        config = read_config(file.parent)
        if family in (None, config.family):
            yield file.parent, config


def _table(directory: Path, name: str, tables: Tally) -> dict[str, Any]:
    """A table's content; one that is missing, or holds nothing, is a failure."""
    content = _read_json(directory / name) if (directory / name).exists() else {}
    tables.need(name, found=any(content.get(held) for held in ("facts", "sides")))
    return content


def _verify_model(
    directory: Path, checkpoint: Path, config: OvisConfig, parity: Tally, tables: Tally, facts: dict[str, Any]
) -> None:
    name, side = checkpoint.name, config.vision.image_size
    fixture = _read_json(directory / f"{name}.json")
    for held in ("cases", "extremes", "batches"):
        parity.need(f"{name}/{held}", found=bool(fixture.setdefault(held, [])))
    prompter = Prompter.from_checkpoint(checkpoint, CHAT_FORMATS[config.language_model])
    model = load_model(checkpoint, device=torch.device("cpu"), dtype=torch.float32)
    set_attention(model.language_model)
    cases = [read_case(raw, directory / "images", prompter, config) for raw in fixture["cases"] + fixture["extremes"]]
    files = _case_files(directory, name, side)
    with Engine(model, prompter, CONFIG) as engine:
        alone = _submit_all(engine, cases)
        for case in cases:
            failures = _check_case(case, model, prompter, files, alone.get(case.name))
            parity.count(f"{name}/{case.name}", failures)
        by_name = {case.name: case for case in cases}
        for batch in fixture["batches"]:
            failures = _check_batch(batch, by_name, engine, prompter)
            parity.count(f"{name}/{batch['id']}", failures)
    for fact, failures in check_facts(facts | fixture.get("facts", {}), prompter, side=side):
        tables.count(f"{name}/{fact}", failures)


def _submit_all(engine: Engine, cases: list[Case]) -> dict[str, Future[Completion]]:
    """Submits every case that fits a request; a truncated prompt does not, by design."""
    return {case.name: engine.submit(_request(case)) for case in cases if case.kept is None}


def _request(case: Case) -> Request:
    return Request(turns=case.turns, max_new_tokens=len(case.expected["greedy_ids"]), ignore_eos=True)


def _check_case(
    case: Case,
    model: OvisModel,
    prompter: Prompter,
    files: CaseFiles,
    submitted: Future[Completion] | None,
) -> list[str]:
    if case.decoder_differs:
        # The README's rule: a JPEG decoder that gives other bytes voids the pixel tolerances and all after them.
        print(f"note {case.name}: this JPEG decoder differs from the fixtures', pixels and later are not compared")
    failures, embeds = check_front(case, model, files)
    if embeds is not None and not case.decoder_differs:
        failures += check_logits(case, model, embeds, files)
        token_ids = greedy_alone(case, model, embeds) if submitted is None else submitted.result().token_ids
        failures += check_output(case.expected, token_ids, prompter)
    return failures


def _check_batch(batch: dict[str, Any], cases: dict[str, Case], engine: Engine, prompter: Prompter) -> list[str]:
    rows = [(row, cases[row["row"]]) for row in batch["rows"]]
    futures = [engine.submit(_request(case)) for _, case in rows]
    failures: list[str] = []
    for (row, case), future in zip(rows, futures, strict=True):
        if not case.decoder_differs:
            found = check_output(row, future.result().token_ids, prompter)
            failures += [f"row {case.name}: {failure}" for failure in found]
    return failures


def _case_files(directory: Path, name: str, side: int) -> CaseFiles:
    arrays: CaseFiles = {}
    for file in (directory / f"{name}.npz", *directory.glob(f"pixels_*{side}.npz")):
        with np.load(file, allow_pickle=False) as stored:
            arrays |= {key: stored[key] for key in stored.files}
    return arrays


def _read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
