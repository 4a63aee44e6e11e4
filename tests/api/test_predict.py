"""``POST /predict``: predictions, and errors that name each fault."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api.conftest import FakeMetadata, fake_artifact

QUIET = {"spread_mean_60s": 0.2, "log_return_60s": -1.0, "trade_intensity_60s": 7}
SPIKE = QUIET | {"spread_mean_60s": 0.5}


def test_the_response_to_one_row_has_every_field(client: Any) -> None:
    """A row of features has every field of the response, and no ``simulated`` for a real market."""
    answer = client.predict({"features": QUIET}).json()
    assert answer.pop("inference_time_ms") >= 0
    assert answer == {
        "prediction": 0,
        "probability": 0.2,
        "alert": False,
        "model_version": "random_forest (ml)",
        "threshold": 0.5,
        "spike": "percentile:90",
        "tau": 1e-4,
        "horizon_s": 60,
        "expected_volatility_bp": None,
        "volatility_low_bp": None,
        "volatility_high_bp": None,
    }


def test_the_expected_volatility_comes_with_its_inputs(served: Any) -> None:
    """A row with past volatilities has the expected one and its band over the horizon, in basis points."""
    names = ("realized_volatility_60s", "realized_volatility_300s")
    answer = served(fake_artifact(features=names)).predict({"rows": [dict.fromkeys(names, 1e-4)]}).json()
    low, expected, high = (
        answer[name][0] for name in ("volatility_low_bp", "expected_volatility_bp", "volatility_high_bp")
    )
    assert low < expected < high
    assert expected == pytest.approx(1e-4 * 60**0.5 * 1e4, rel=0.2)


def test_threshold_itself_is_a_spike(client: Any) -> None:
    """A probability that equals the threshold is an alert."""
    answer = client.predict({"features": SPIKE}).json()
    assert (answer["prediction"], answer["alert"]) == (1, True)


def test_the_response_to_rows_has_lists(client: Any) -> None:
    """Several rows return lists in their order, with the probabilities under both names."""
    answer = client.predict({"rows": [QUIET, SPIKE, QUIET]}).json()
    assert answer.pop("inference_time_ms") >= 0
    assert answer == {
        "prediction": [0, 1, 0],
        "probability": [0.2, 0.5, 0.2],
        "scores": [0.2, 0.5, 0.2],
        "alert": [False, True, False],
        "threshold": [0.5, 0.5, 0.5],
        "model_version": "random_forest (ml)",
        "spike": "percentile:90",
        "horizon_s": 60,
        "tau": [1e-4] * 3,
        "expected_volatility_bp": [None] * 3,
        "volatility_low_bp": [None] * 3,
        "volatility_high_bp": [None] * 3,
    }


def test_the_order_of_names_does_not_matter(client: Any) -> None:
    """The model receives values in its own order, whatever the order in the body."""
    backwards = dict(reversed(SPIKE.items()))
    assert client.predict({"features": backwards}).json()["probability"] == 0.5
    assert client.predict({"rows": [backwards]}).json()["probability"] == [0.5]


def test_large_bodies_are_scored_like_small_ones(client: Any) -> None:
    """A body that is scored in a thread has the same probabilities as its rows one by one."""
    rows = [QUIET | {"spread_mean_60s": k / 1000} for k in range(1000)]
    answer = client.predict({"rows": rows}).json()
    assert answer["probability"] == [row["spread_mean_60s"] for row in rows]
    assert sum(answer["alert"]) == 500


def test_baseline_and_simulation_are_named(served: Any, fake: Any) -> None:
    """The version names the z-score baseline, and every response of a simulated model is marked."""
    scorer = replace(fake, name="baseline", metadata=replace(fake.metadata, simulated=True))
    client = served(scorer)
    for body in ({"features": QUIET}, {"rows": [QUIET]}):
        answer = client.predict(body).json()
        assert answer["model_version"] == "baseline (baseline)"
        assert answer["simulated"] is True


FAULTS: dict[str, Any] = {
    "nan": nan,
    "infinite": inf,
    "minus infinite": -inf,
    "null": None,
    "text": "0.5",
    "boolean": True,
    "list": [0.5],
    "object": {},
    "huge integer": 10**400,
    "integer of 5000 digits": b"9" * 5000,
    "beyond single precision": -3.5e38,
    "overflowing literal": b"1e400",
}


@pytest.mark.parametrize("value", FAULTS.values(), ids=FAULTS.keys())
def test_values_that_are_not_finite_numbers_are_named(client: Any, value: object) -> None:
    """A value that is not a finite number is refused by the name of its feature, in one row and in several."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    row = json.dumps(QUIET | {"spread_mean_60s": "HERE"}).encode().replace(b'"HERE"', text)
    one = client.predict(b'{"features": ' + row + b"}")
    many = client.predict(b'{"rows": [' + json.dumps(QUIET).encode() + b", " + row + b"]}")
    assert one.status_code == many.status_code == 422
    assert one.json()["not_finite"] == many.json()["not_finite"] == ["spread_mean_60s"]
    assert "not a finite number: spread_mean_60s" in one.json()["detail"]
    assert many.json()["rows"] == [{"row": 1, "missing": [], "unknown": [], "not_finite": ["spread_mean_60s"]}]


def test_an_unknown_value_is_null_where_the_model_accepts_that(served: Any) -> None:
    """It is scored as missing, in one row and in several; NaN, which is no JSON, stays refused."""
    client = served(fake_artifact(accepts_missing=True))
    row = QUIET | {"log_return_60s": None}
    assert client.predict({"features": row}).json()["probability"] == QUIET["spread_mean_60s"]
    assert client.predict({"rows": [QUIET, row]}).json()["probability"] == [QUIET["spread_mean_60s"]] * 2
    refused = client.predict(json.dumps({"features": QUIET | {"log_return_60s": nan}}).encode())
    assert refused.status_code == 422
    assert refused.json()["not_finite"] == ["log_return_60s"]
    assert "each a finite number, or null where it is unknown" in refused.json()["detail"]


def test_every_fault_of_a_row_is_named_at_once(client: Any) -> None:
    """One response names missing, unknown and non-finite features, and what the model needs."""
    refused = client.predict({"features": {"log_return_60s": None, "spread_mean_300s": 1.0, "é": 2.0}})
    assert refused.status_code == 422
    assert refused.json() == {
        "detail": "missing: spread_mean_60s, trade_intensity_60s; unknown: spread_mean_300s, é; "
        "not a finite number: log_return_60s (null); "
        "the model needs spread_mean_60s, log_return_60s, trade_intensity_60s, each a finite number",
        "missing": ["spread_mean_60s", "trade_intensity_60s"],
        "unknown": ["spread_mean_300s", "é"],
        "not_finite": ["log_return_60s"],
    }


def test_faults_of_rows_carry_their_index(client: Any) -> None:
    """Invalid rows have their index, and the top-level lists have the names of all of them."""
    refused = client.predict({"rows": [QUIET, {}, QUIET | {"x": 1}]}).json()
    assert refused["detail"].startswith("2 of the rows cannot be scored, the first is row 1; ")
    assert [row["row"] for row in refused["rows"]] == [1, 2]
    assert refused["missing"] == list(QUIET)
    assert refused["unknown"] == ["x"]
    assert f"; row 1: missing: {', '.join(QUIET)}; row 2: unknown: x; the model needs" in refused["detail"]


def test_rows_with_the_same_faults_share_a_description(client: Any) -> None:
    """Different faults are described for the first three rows, equal ones once."""
    same = client.predict({"rows": [QUIET | {"x": 1}] * 5}).json()["detail"]
    assert same.startswith("5 of the rows cannot be scored, the first is row 0; unknown: x; the model needs")
    different = client.predict({"rows": [QUIET | {f"x{row}": 1} for row in range(5)]}).json()["detail"]
    assert "row 2: unknown: x2; 2 more in `rows`; the model needs" in different


@pytest.mark.parametrize(
    ("value", "kind"),
    [("0.5", "a string"), (True, "a boolean"), (nan, "NaN"), (-inf, "infinite"), (1e39, "beyond single precision")],
)
def test_what_a_value_is_instead_of_a_number_is_named(client: Any, value: object, kind: str) -> None:
    """The kind of the value follows the name of its feature."""
    refused = client.predict({"features": QUIET | {"log_return_60s": value}}).json()
    assert f"not a finite number: log_return_60s ({kind})" in refused["detail"]


@pytest.mark.parametrize("name", ["spread_mean_60", "Spread_Mean_60s", "spreadmean_60s", "spread_mean_60s "])
def test_a_misspelled_name_is_corrected(client: Any, name: str) -> None:
    """The missing feature that an unknown name resembles is suggested."""
    row = {name: 0.1} | {feature: value for feature, value in QUIET.items() if feature != "spread_mean_60s"}
    refused = client.predict({"features": row}).json()
    assert refused["suggestions"] == {name: "spread_mean_60s"}
    assert f"unknown: {name} (did you mean spread_mean_60s?)" in refused["detail"]


def test_names_of_other_features_are_not_misspelled(client: Any) -> None:
    """A feature of another window is no spelling of the missing one, and neither is a name of excessive length."""
    row = {feature: value for feature, value in QUIET.items() if feature != "spread_mean_60s"}
    for name in ("spread_mean_300s", "spread_mean_60s" * 5, "price"):
        assert "suggestions" not in client.predict({"features": row | {name: 0.1}}).json()


def test_many_faults_have_a_short_response(client: Any) -> None:
    """At most a hundred invalid rows are listed, and the detail has at most twelve names."""
    rows = client.predict({"rows": [{}] * 5000}).json()
    assert len(rows["rows"]) == 100
    assert rows["detail"].startswith("at least 100 of the rows cannot be scored")
    names = client.predict({"features": {f"x{k}": 1 for k in range(40)}}).json()
    assert len(names["unknown"]) == 40
    assert "x11 and 28 more" in names["detail"]


SHAPES = {
    "empty": (b"", "the body is empty; send"),
    "blank": (b" ", "the body is empty; send"),
    "cut off": (b'{"features": {', "not JSON"),
    "two documents": (b"{} {}", "not JSON"),
    "not UTF-8": (b'{"features": {"\xff": 1}}', "not UTF-8"),
    "UTF-16": ('{"features": {}}'.encode("utf-16"), "not UTF-8"),
    "nested deeply": (b"[" * 200_000, "nested too deeply"),
    "list": (b"[1, 2]", "the body is a list"),
    "null": (b"null", "the body is null"),
    "number": (b"NaN", "the body is a number"),
    "text": (b'"features"', "the body is a string"),
    "boolean": (b"true", "the body is a boolean"),
    "neither": (b"{}", "neither features nor rows"),
    "both": (b'{"features": {}, "rows": []}', "both features and rows"),
    "both, one null": (b'{"features": {}, "rows": null}', "both features and rows"),
    "unknown field": (b'{"features": {}, "model": 1}', "unknown fields: model"),
    "half a surrogate": (b'{"\\ud800": 1}', "unknown fields: \\ud800"),
    "features null": (b'{"features": null}', "features is null"),
    "features a list": (b'{"features": [1]}', "features is a list"),
    "rows null": (b'{"rows": null}', "rows is null"),
    "rows an object": (b'{"rows": {}}', "rows is an object"),
    "rows empty": (b'{"rows": []}', "rows has 0 rows, must have 1 to 10000"),
    "a row that is a number": (b'{"rows": [{}, 3]}', "rows[1] is a number"),
}


@pytest.mark.parametrize(("body", "told"), SHAPES.values(), ids=SHAPES.keys())
def test_bodies_of_another_shape_are_refused(client: Any, body: bytes, told: str) -> None:
    """A body of another shape is a 422 with a description of what it is, and empty lists."""
    refused = client.predict(body)
    assert refused.status_code == 422
    answer = refused.json()
    assert told in answer.pop("detail")
    assert answer == {"missing": [], "unknown": [], "not_finite": []}


def test_more_rows_than_allowed_are_refused(served: Any) -> None:
    """One row more than the limit is refused, the limit itself is accepted."""
    client = served(max_rows=3)
    assert client.predict({"rows": [QUIET] * 3}).status_code == 200
    refused = client.predict({"rows": [QUIET] * 4})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "rows has 4 rows, must have 1 to 3"


def test_values_that_overflow_inside_the_model_are_refused(served: Any, fake: Any) -> None:
    """If a model returns NaN for finite values, the response is a 422 and no prediction is counted."""

    class Overflowing(type(fake)):  # type: ignore[misc]
        def probability(self, x: Any, _: Any = None) -> Any:
            return np.where(x[:, 0] == QUIET["spread_mean_60s"], nan, super().probability(x))

        def probability_of(self, row: Any, _: Any = None) -> float:
            return nan if row[0] == QUIET["spread_mean_60s"] else float(super().probability_of(row))

    client = served(Overflowing())
    for body in ({"features": QUIET}, {"rows": [QUIET]}):
        refused = client.predict(body)
        assert refused.status_code == 422
        assert "no probability" in refused.json()["detail"]
    assert client.metric('predictions_total{model_version="random_forest (ml)",prediction="0"}') == 0


names = st.sampled_from(list(QUIET)) | st.text(max_size=8)
values: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
)
rows = st.dictionaries(names, values, max_size=5) | st.just(QUIET) | values
bodies = st.fixed_dictionaries(
    {}, optional={"features": rows, "rows": st.lists(rows, max_size=4) | values, "x": values}
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=64) | bodies | bodies.map(lambda body: json.dumps(body).encode()[:-2]))
def test_no_body_breaks_a_server_with_a_model(client: Any, body: object) -> None:
    """Any body is a 200 or a 422 in JSON, and every 422 has a detail."""
    answer = client.predict(body)
    assert answer.status_code in {200, 422}
    assert answer.status_code == 200 or answer.json()["detail"]


def test_other_horizons_are_part_of_the_response(served: Any, fake: Any) -> None:
    """A model with heads answers for each of its horizons; one without has no such field."""
    head = fake_artifact(features=("spread_mean_60s",), metadata=FakeMetadata(horizon_s=300))
    client = served(fake_artifact(heads={300: head}, horizons=(60, 300)))
    (other,) = client.predict({"features": SPIKE}).json()["horizons"]
    assert (other["horizon_s"], other["probability"], other["tau"]) == (300, 0.5, 1e-4)
    several = client.predict({"rows": [QUIET, SPIKE]}).json()["horizons"]
    assert [[each["probability"] for each in row] for row in several] == [[0.2], [0.5]]
    assert client.get("/version").json()["horizons"] == [60, 300]
    assert "horizons" not in served(fake).predict({"features": SPIKE}).json()
