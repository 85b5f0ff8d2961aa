"""``report.html``, ``summary.csv`` and ``figures/``: everything that a run has to say, in its own folder."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from results.atomic import write_atomic
from results.cells import Cell, Table, words
from results.compare import (
    COSTS,
    FINAL,
    STATISTICS,
    best_arms,
    comparable,
    comparison,
    paired,
    summary,
)
from results.delivery_tables import (
    accounting_table,
    fidelity_banner,
    staleness_table,
    target_table,
    traffic_table,
    utilisation_table,
)
from results.emulation import emulation_facts, emulation_table
from results.fidelity import NOT_CHECKED, NOT_TRUSTWORTHY
from results.figures import Drawn, draw_all
from results.jobs import Job, count_of
from results.pace import rounds_range
from results.provenance import provenance, setting_rows
from results.read import Run, read_run
from results.style import encode
from results.tables import (
    DASH,
    MINUS,
    basis_of,
    clock_of,
    difference,
    diverged,
    few_seeds,
    present,
    quantities,
    seed_rows,
    time_term,
)

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(folder: Path) -> Path:
    """Write summary.csv, figures/*.png and *.pdf, and a self-contained report.html into a run folder.

    The report needs no network, script or other file. Everything in it comes from the files of the run.

    Returns:
        Path of report.html.

    Raises:
        ConfigError: ``folder`` is no run folder.
        PreflightError: something cannot be written (full disk, read-only folder); names the path.
    """
    folder = Path(folder)
    run = read_run(folder)
    write_atomic(folder / "summary.csv", summary(run).to_csv(index=False).encode())
    figures = draw_all(run)
    for drawn in figures:
        write_atomic(folder / "figures" / f"{drawn.name}.png", encode(drawn.figure, "png"))
        write_atomic(folder / "figures" / f"{drawn.name}.pdf", encode(drawn.figure, "pdf"))
    report = folder / "report.html"
    write_atomic(report, render(run, figures).encode())
    return report


def render(run: Run, figures: Sequence[Drawn]) -> str:
    """The report as one HTML document; whatever comes from the run's files is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    compared = comparison(run)
    differences, pairs_note = paired_table(run)
    differing, common = setting_rows(run)
    reached, origin = target_table(run)
    headings, emulated = emulation_table(run)
    ages = staleness_table(run)
    ageless = ages is not None and any(row[2].text == DASH for row in ages.rows)
    verdicts = [said.verdict for said in run.fidelity]
    return environment.get_template("report.html.j2").render(
        run=run,
        facts=facts(run),
        banner=banner(run),
        comparison=comparison_table(run, compared, STATISTICS),
        costs=comparison_table(run, compared, present(run, compared, COSTS)),
        target=reached,
        target_origin=origin,
        fidelity=fidelity_banner(run),
        doubtful=verdicts.count(NOT_TRUSTWORTHY),
        unchecked=verdicts.count(NOT_CHECKED),
        accounting=accounting_table(run),
        utilisation=utilisation_table(run),
        staleness=ages,
        emulation=words(headings, emulated, len(headings)) if emulated else None,
        best_is_marked=bool(best_arms(run, compared)),
        comparable=comparable(compared) or len(compared) < 2,
        time=time_term(run),
        ageless=ageless,
        intervals=bool((compared["n"] > 1).any()),
        few_seeds=few_seeds(compared),
        differences=differences,
        pairs_note=pairs_note,
        figures=[(drawn, base64.b64encode(encode(drawn.figure, "svg")).decode()) for drawn in figures],
        differing=words(["key", *run.settings], differing, 1 + len(run.settings)) if differing else None,
        common=common,
        seeds=words(*seed_rows(run), 4),
        traffic=traffic_table(run),
        provenance=provenance(run),
    )


def facts(run: Run) -> list[tuple[str, str]]:
    """What to know before any number: arms, seeds, nodes, metric, clock."""
    nodes = sorted({job.nodes for job in run.jobs if job.nodes})
    seeds = sorted({job.seed for job in run.jobs})
    better = {True: "higher is better", False: "lower is better", None: "direction unknown"}
    return [
        ("arms", str(len(run.arms))),
        ("seeds", ", ".join(map(str, seeds)) or DASH),
        ("nodes", ", ".join(map(str, nodes)) or DASH),
        ("score", f"{run.metric.title} ({better[run.metric.higher_is_better]})"),
        ("clock", clock_of(run) or DASH),
        *_lost(run),
        *emulation_facts(run),
    ]


def _lost(run: Run) -> list[tuple[str, str]]:
    """Which nodes the others went on without; scores are then those of the others."""
    texts = [
        f"{job.arm}, seed {job.seed}, scores of {job.scored} of {job.nodes} nodes: "
        f"{'; '.join(job.losses) or count_of(job.lost, job.nodes)}"
        for job in run.jobs
        if job.lost
    ]
    return [("lost nodes", text) for text in texts]


def banner(run: Run) -> dict[str, Any]:
    """State of the run: whether it is complete, its first cause, and how far every unfinished job got."""
    unfinished = [job for job in run.jobs if not job.complete]
    headline = "Complete: every arm reached its end with every seed."
    if not run.complete:
        state = {
            "failed": "failed",
            "interrupted": "was interrupted",
            "running": "is still going on, or its launcher was killed",
            "unknown": "is in an unknown state: manifest.json is missing or damaged",
            "done": "is called done, but its logs are not all there",
        }.get(run.state, f"ended as {run.state!r}")
        done = len(run.jobs) - len(unfinished)
        headline = f"Incomplete: the run {state}. {done} of {len(run.jobs)} runs reached their end."
    cause = run.manifest.get("cause") or next((job.cause for job in run.jobs if job.cause), None)
    return {
        "complete": run.complete,
        "headline": headline,
        "cause": str(cause) if cause else "",
        "jobs": [(job.arm, job.seed, job.state, progress(job), job.cause or "") for job in unfinished],
    }


def progress(job: Job) -> str:
    """How far a job got, in words."""
    if job.folder is None or not job.found:
        return "nothing was measured"
    low, high = job.rounds or (0, 0)
    rounds = f"{low}" if low == high else f"{low} to {high}"
    asked = f" of {job.asked_rounds}" if job.asked_rounds else ""
    return (
        f"round {rounds}{asked}; {job.ended} of {job.nodes} nodes reached their end, {job.found} have a log"
    )


def comparison_table(run: Run, compared: pd.DataFrame, names: Sequence[str]) -> Table:
    """One row per arm: means over seeds of the columns ``names`` with their intervals, best mean marked."""
    shown = quantities(run.metric)
    best = best_arms(run, compared)
    done = rounds_range(run)
    rows = []
    for _, row in compared.iterrows():
        cells = [
            Cell(str(row["arm"])),
            Cell(f"{row['n']} of {row['seeds']}", "warn" if row["n"] < row["seeds"] else ""),
        ]
        for name in names:
            text = shown[name].interval(row[name], row[f"{name}_ci"])
            low, high = done.get(str(row["arm"]), (0, 0))
            if name == "rounds" and row["basis"] == FINAL and low < high:
                text = f"{low}{DASH}{high}"
            look = "best" if best.get(name) == row["arm"] else ""
            cells.append(
                Cell(diverged(row), "warn") if name == "node_avg" and row["nonfinite"] else Cell(text, look)
            )
        cells.append(Cell(basis_of(row), "" if row["basis"] == FINAL else "warn"))
        rows.append(cells)
    return Table(["arm", "seeds", *(shown[name].title for name in names), "measured at"], rows)


def paired_table(run: Run, most: int = 4) -> tuple[Table | None, str]:
    """Differences between arms; of more than ``most`` arms only those from the first, and a note on that."""
    table = paired(run)
    note = ""
    if table.empty:
        return None, note
    if len(run.arms) > most:
        first = str(table["arm_a"].iloc[0])
        table = table[table["arm_a"] == first]
        note = f"Of {len(run.arms)} arms only the differences of {first} from the others are listed."
    names = list(dict.fromkeys(table["statistic"]))
    rows = []
    for (arm_a, arm_b), group in table.groupby(["arm_a", "arm_b"], sort=False):
        cells = [Cell(f"{arm_a} {MINUS} {arm_b}"), Cell(str(group["n"].max()))]
        for _, row in group.iterrows():
            shown = difference(run.metric, row["statistic"])
            text = shown.interval(row["difference"], row["ci"])
            cells.append(
                Cell(text if text.startswith((MINUS, DASH)) else f"+{text}", _look(row["separated"]))
            )
        rows.append(cells)
    headings = ["difference", "shared seeds", *(difference(run.metric, name).title for name in names)]
    return Table(headings, rows), note


def _look(separated: bool | None) -> str:
    return "best" if separated else ""
