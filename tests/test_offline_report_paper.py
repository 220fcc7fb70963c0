"""The paper's tables in the report: what was measured beside what the paper reports, and which claims hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from offline.report.report_paper import paper_section, trained_rows

MEASURES = ("HR@10", "HR@100", "HR@500", "MRR", "MRR_scaled100")


def row(value: float, spread: float = 0.01, **more: Any) -> dict[str, Any]:
    """A row whose measures are all one number, as a table's file holds it."""
    gaps = {key: {"mean": value - 0.5, "low": value - 0.55, "high": value - 0.45} for key in MEASURES}
    intervals = {key: [value - spread, value + spread] for key in MEASURES}
    return {"n": 40, **dict.fromkeys(MEASURES, value), "intervals": intervals, "differences": gaps, **more}


def section(number: int, rows: dict[str, dict[str, Any]], contrasts: dict[str, Any] | None = None, **more: Any) -> str:
    table = {"format": 1, "table": number, "sample": None, "minutes": 10.0, "rows": rows,
             "contrasts": contrasts or {}, "skipped": {"visual": "no pin has a <picture>"}, **more}  # fmt: skip
    return paper_section(number, table, Path("my run"), row(0.5)).html


def cells(page: str, name: str) -> list[str]:
    """The cells of a row, without their intervals."""
    found = re.search(rf'<th scope="row">{name}(?:<small>.*?</small>)?</th>(.*?)</tr>', page)
    assert found, name
    without = re.sub("<small>.*?</small>", "", found[1])
    return [re.sub("<.*?>", "", cell) for cell in re.findall("<td.*?</td>", without)]


def test_table_1_stands_beside_the_paper() -> None:
    page = section(1, {"combined": row(0.2, seconds=75.0), "mlp": row(0.3, seconds=0), "default": row(0.5)})
    measured = ["0.2000▼"] * 5
    assert cells(page, "combined") == ["40", *measured, "1 min 15 s", "0.27", "0.37"]
    assert cells(page, "mlp")[-3:] == ["–", "–", "–"]
    assert '<tr class="ours"><th scope="row">default' in page
    assert "no pin has a &lt;picture&gt;" in page


def test_a_claim_holds_only_where_the_paired_difference_says_so() -> None:
    def gap(low: float, high: float) -> dict[str, Any]:
        return {"HR@100": {"mean": (low + high) / 2, "low": low, "high": high}}

    contrasts = {
        "pinsage": {"mean-pooling-hard": gap(0.01, 0.03), "combined": {}},
        "mean-pooling-hard": {"mean-pooling": gap(-0.01, 0.03)},
        "mean-pooling": {"mean-pooling-xent": gap(-0.2, -0.1)},
    }
    cut = row(0.57, converged=False, epochs=7)
    rows = {"pinsage": row(0.6), "combined": row(0.3), "mean-pooling-hard": row(0.58, best_epoch=1),
            "mean-pooling": cut, "mean-pooling-xent": row(0.72)}  # fmt: skip
    page = section(1, rows, contrasts=contrasts)
    assert cells(page, "Importance pooling beats mean pooling") == [
        "0.67 against 0.46", "0.6000 against 0.5800", "+0.0200", "yes",
    ]  # fmt: skip
    assert cells(page, "Hard negatives help")[2:] == ["+0.0100", "not to be told from chance"]
    why = "validation liked the first epoch best, which has no hard negatives yet"
    assert f"<li>Hard negatives help: {why}; mean-pooling was cut off after 7 epochs.</li>" in page
    assert cells(page, "Max-margin beats cross-entropy")[2:] == ["-0.1500", "no, the other way round"]
    assert cells(page, "The graph helps content")[2:] == ["–", "too few queries to tell"]
    assert "max pooling" not in page  # that row is not there


def test_nearly_equal_weights_are_a_reason_against_importance() -> None:
    contrasts = {"pinsage": {"mean-pooling-hard": {"HR@100": {"mean": 0.0, "low": -0.1, "high": 0.1}}}}
    rows = {"pinsage": row(0.6), "mean-pooling-hard": row(0.6)}
    page = section(1, rows, contrasts=contrasts, neighbors={"num": 48.2, "equal": 41.6})
    why = "of 48 neighbours the weights are spread as over 42 equal ones"
    assert f"<li>Importance pooling beats mean pooling: {why}.</li>" in page


def test_table_3_shows_the_cost_of_an_iteration() -> None:
    more = {"ms_per_iteration": 120.4, "iterations": 3000, "minutes": 6.02}
    page = section(3, {"512": row(0.4, **more), "1024": row(0.45, **more), "default": row(0.5, batch_size=1024)})
    assert cells(page, "512")[1:] == ["0.4000▼", "0.4000▼", "120", "3,000", "6.0", "590", "390,000", "63.9"]
    assert cells(page, "default")[3:] == ["–"] * 6
    assert "default<small>1,024</small>" in page
    assert re.findall("<h3>(.*?)</h3>", page) == [
        "HR@100 by batch size", "MRR/100 by batch size", "Minutes until best by batch size",
    ]  # fmt: skip


def test_table_4_shows_how_many_neighbours_pay() -> None:
    page = section(4, {"10": row(0.4, seconds=30.0), "50": row(0.45, seconds=90.0), "default": row(0.5)})
    assert cells(page, "50")[-4:] == ["1 min 30 s", "0.67", "0.59", "78"]
    assert "HR@100 by T. 10: 0.4, 50: 0.45." in page
    assert "Seconds of training by T. 10: 30, 50: 90." in page


def test_what_was_cut_short_is_said() -> None:
    page = section(4, {"10": row(0.4, converged=False), "50": row(0.4, converged=True)})
    assert "so their rows are likely too low: 10." in page


@pytest.mark.parametrize(("value", "is_stale"), [(0.5, False), (0.501, True)])
def test_a_table_of_another_state_of_the_run_is_marked(value: float, is_stale: bool) -> None:
    page = section(1, {"default": row(value)})
    assert ("another state of the run" in page) is is_stale
    assert ("pinsage evaluate &#x27;my run&#x27; --table 1" in page) is is_stale


def test_trained_rows_are_compared_with_the_run() -> None:
    """In the table "pinsage" is the paper's row; here it is the run."""
    rows = {"visual": row(0.1), "pinsage": row(0.3, epochs=2), "mlp": row(0.4, epochs=3), "default": row(0.5, epochs=4)}
    table = {"rows": rows}
    found = trained_rows(table, row(0.5))
    assert {name: found[name]["HR@100"] for name in found} == {"pinsage": 0.5, "pinsage of the paper": 0.3, "mlp": 0.4}
    assert trained_rows(table, row(0.6)) == {}
    assert trained_rows(None, row(0.5)) == {}


def test_no_table_no_numbers() -> None:
    page = paper_section(3, None, Path("run"), row(0.5)).html
    assert "<code>pinsage evaluate run --table 3 &amp;&amp; pinsage evaluate run</code>" in page
    assert "<table" not in page
