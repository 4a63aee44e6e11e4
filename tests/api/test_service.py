"""The served model: replacement, validation, and the companion model."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from tests.api.conftest import FakeArtifact, FakeMetadata, fake_artifact

from volspike.api.app import create_app
from volspike.api.schema import BackgroundFault, Health
from volspike.api.service import LoadResult, ModelFolder, Service, validate
from volspike.background import BackgroundTask
from volspike.config import ServingSettings
from volspike.errors import ArtifactCorrupt, SchemaMismatch
from volspike.lifecycle.promotion import promote, rollback
from volspike.models import (
    DEFAULT_MODEL,
    METADATA_FILE,
    ONNX_FILE,
    SIMULATED_MODEL,
    TEN_FEATURES,
    TEN_MODEL,
    Artifact,
    Metadata,
    SplitFacts,
)
from volspike.models.evidence import Limitations, all_limitations, live_markets

OTHER = fake_artifact(threshold=0.25, metadata=FakeMetadata(onnx_sha256="cd" * 32))
FEATURES = {"spread_mean_60s": 0.3, "log_return_60s": -1.0, "trade_intensity_60s": 7}
ROW = json.dumps({"features": FEATURES}).encode()


def service(adopt: Callable[[Artifact], None] | None = None) -> Service:
    """A service that serves the fake model."""
    made = Service(ServingSettings(model=Path("nowhere")), lambda _: fake_artifact(), adopt=adopt)
    made.start()
    return made


def swaps(made: Service) -> tuple[float, ...]:
    """The numbers of swapped and refused models."""
    value = made.metrics.registry.get_sample_value
    return tuple(value("model_swaps_total", {"outcome": outcome}) or 0.0 for outcome in ("swapped", "refused"))


def test_a_new_model_serves_from_the_next_request_on() -> None:
    """A request in flight is answered by the previous model and its threshold."""
    made = service()
    before = made.predictor
    assert before is not None
    with capture_logs() as logged:
        made.replace(LoadResult(OTHER, None))
    after = made.predictor
    assert after is not None
    old, new = (json.loads(made.reply(each, ROW)[1]) for each in (before, after))
    assert (old["threshold"], old["prediction"]) == (0.5, 0)
    assert (new["threshold"], new["prediction"]) == (0.25, 1)
    assert made.version().model_digest == "cdcdcdcdcdcd"
    assert swaps(made) == (1.0, 0.0)
    assert [(event["event"], event["features_changed"]) for event in logged] == [("model_swapped", False)]


def test_an_invalid_model_does_not_replace_the_served_one() -> None:
    """Log, health and version have the reason until a valid model arrives; requests are answered meanwhile."""
    made = service()
    with capture_logs() as logged:
        made.replace(LoadResult(None, "sha256 is wrong"))
    health = made.health()
    assert (health.status, health.model_loaded, health.model_refused) == ("degraded", True, "sha256 is wrong")
    assert "sha256 is wrong" in (health.reason or "")
    assert made.version().model_refused == "sha256 is wrong"
    assert [(event["event"], event["reason"]) for event in logged] == [("model_refused", "sha256 is wrong")]
    assert swaps(made) == (0.0, 1.0)
    made.replace(LoadResult(OTHER, None))
    assert (made.health().status, made.health().model_refused) == ("healthy", None)


def test_the_same_model_written_again_is_not_a_swap() -> None:
    """Restoring the served model after an invalid one clears the error and changes nothing else."""
    made = service()
    made.replace(LoadResult(None, "half a file"))
    before = made.predictor
    made.replace(LoadResult(fake_artifact(), None))
    assert made.predictor is before
    assert made.health().status == "healthy"
    assert swaps(made) == (0.0, 1.0)


def test_a_model_that_the_live_pipeline_refuses_is_not_served() -> None:
    """The API and the pipeline always use the same model."""

    def refuse(artifact: Artifact) -> None:
        raise SchemaMismatch("model x expects feature digest 7c1e, was 9a40")

    made = service(refuse)
    before = made.predictor
    made.replace(LoadResult(OTHER, None))
    assert made.predictor is before
    assert "7c1e" in (made.health().model_refused or "")


@pytest.mark.parametrize(
    "row",
    [lambda row: 1.5, lambda row: float("nan"), lambda row: 0.1 * len(row) + row[0] / 1e3, lambda row: 1 / 0],
    ids=["not a probability", "NaN", "differs from the batch", "exception"],
)
def test_validation_finds_models_that_do_not_score(row: Callable[[Any], float]) -> None:
    """A model that returns no probabilities, scores a row differently in a batch, or fails is not served."""

    class Invalid(FakeArtifact):
        def probability_of(self, values: Any, _: float | None = None) -> float:
            return row(values)

    with pytest.raises(ArtifactCorrupt, match="trial"):
        validate(cast("Artifact", Invalid()))
    validate(fake_artifact())


@pytest.mark.parametrize("model", [DEFAULT_MODEL, TEN_MODEL])
def test_included_models_are_valid(model: Path) -> None:
    """The models in the package pass the validation."""
    validate(Artifact.load(model))


def test_a_folder_is_read_when_it_changes(tmp_path: Path) -> None:
    """Missing, written, replaced, damaged, repaired: each change is returned once, and None means no change."""
    folder = ModelFolder(tmp_path / "production", Artifact.load)
    assert folder.load_changed() is None
    shutil.copytree(TEN_MODEL, tmp_path / "ten")
    promote(tmp_path / "ten")
    first = folder.load_changed()
    assert first is not None
    assert first.artifact is not None
    assert first.artifact.name == "logistic"
    assert folder.load_changed() is None
    shutil.copytree(DEFAULT_MODEL, tmp_path / "trees")
    promote(tmp_path / "trees")
    second = folder.load_changed()
    assert second is not None
    assert second.artifact is not None
    assert second.artifact.name == "relative_trees"
    assert folder.load_changed() is None
    (tmp_path / "production" / ONNX_FILE).write_bytes(b"half")
    damaged = folder.load_changed()
    assert damaged is not None
    assert damaged.artifact is None
    assert "sha256" in (damaged.reason or "")
    assert folder.load_changed() is None
    shutil.copy(DEFAULT_MODEL / ONNX_FILE, tmp_path / "production" / ONNX_FILE)
    repaired = folder.load_changed()
    assert repaired is not None
    assert repaired.artifact is not None


def test_an_unexpected_error_does_not_end_the_watching_of_the_folder() -> None:
    """Health names the task and its error until a check succeeds; then the next model is served."""
    answers: list[LoadResult | Exception] = [RuntimeError("drive gone"), LoadResult(OTHER, None)]
    healths: list[Health] = []

    async def followed() -> None:
        made = Service(ServingSettings(model=Path("nowhere"), reload_s=1e-6), lambda _: fake_artifact())
        made.start()
        made._following._first_pause_s = made._following._pause_s = 0.0

        def load_changed() -> LoadResult | None:
            healths.append(made.health())
            answer = answers.pop(0) if answers else None
            if isinstance(answer, Exception):
                raise answer
            return answer

        made._folder.load_changed = load_changed  # type: ignore[method-assign]
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            following = group.create_task(made.follow())
            while len(healths) < 3:
                await asyncio.sleep(0)
            following.cancel()
        assert made.version().threshold == 0.25
        assert made.metrics.registry.get_sample_value("background_faults_total", {"task": "model folder"}) == 1.0

    asyncio.run(followed())
    assert [health.status for health in healths[:3]] == ["healthy", "degraded", "healthy"]
    assert healths[1].background_faults == [
        BackgroundFault(task="model folder", error="RuntimeError: drive gone", faults=1)
    ]
    assert healths[1].reason == "background task 'model folder' failed: RuntimeError: drive gone"


def test_faults_of_other_background_tasks_are_in_health_and_metrics() -> None:
    """A task of the live pipeline degrades the health of the service that shows it."""
    task = BackgroundTask("performance")
    made = Service(ServingSettings(model=Path("nowhere")), lambda _: fake_artifact(), background=lambda: [task])
    made.start()
    task.fail("database is locked")
    assert (made.health().status, made.health().reason) == (
        "degraded",
        "background task 'performance' failed: database is locked",
    )
    task.succeed()
    assert (made.health().status, made.health().background_faults) == ("healthy", [])
    assert made.metrics.registry.get_sample_value("background_faults_total", {"task": "performance"}) == 1.0


def test_a_folder_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """A model that cannot be loaded because it is being replaced is not reported as invalid."""
    shutil.copytree(TEN_MODEL, tmp_path / "production")

    def replace_while_loading(path: Path) -> Artifact:
        loads.pop()
        (path / METADATA_FILE).write_bytes((path / METADATA_FILE).read_bytes() + b"\n")
        raise ArtifactCorrupt("one old and one new file")

    loads = [Artifact.load, replace_while_loading]

    def load(path: Path) -> Artifact:
        return loads[-1](path)

    folder = ModelFolder(tmp_path / "production", load)
    assert folder.load_changed() is None
    found = folder.load_changed()
    assert found is not None
    assert found.artifact is not None


def test_a_server_without_a_model_serves_the_first_one_that_arrives() -> None:
    """A model that is missing at the start is served as soon as it exists."""

    def load(path: Path) -> Artifact:
        raise ArtifactCorrupt("nothing yet")

    made = Service(ServingSettings(model=Path("nowhere")), load)
    made.start()
    assert made.health().model_loaded is False
    made.replace(LoadResult(OTHER, None))
    assert (made.health().status, made.version().threshold) == ("healthy", 0.25)


def test_the_shipped_model_is_served_until_one_is_promoted(tmp_path: Path) -> None:
    """Without a named and a promoted model the shipped one is served, as by ``up``, and the log says so once."""
    made = Service(ServingSettings(artifacts=tmp_path), Artifact.load)
    with capture_logs() as logged:
        made.start()
    shipped = Artifact.load(DEFAULT_MODEL).metadata
    assert (made.health().status, made.version().model_digest) == ("healthy", shipped.onnx_sha256[:12])
    assert made.version().venues == list(shipped.venues)
    assert [event["event"] for event in logged] == ["shipped_model_served", "model_loaded"]
    made.replace(LoadResult(OTHER, None))
    assert made.version().threshold == 0.25


def follow_once(made: Service) -> None:
    """One check of the model folder, as ``follow`` does each second."""
    asyncio.run(made._check_folder())


def test_a_promoted_model_of_a_simulated_market_does_not_take_over_a_real_one(tmp_path: Path) -> None:
    """It is refused once, as at the start; a model of a real market that is promoted later is served."""
    shipped = Artifact.load(DEFAULT_MODEL)
    made = Service(ServingSettings(artifacts=tmp_path), Artifact.load, served=shipped, simulated=False)
    made.start()
    shutil.copytree(SIMULATED_MODEL, tmp_path / "made_up")
    promote(tmp_path / "made_up")
    with capture_logs() as logged:
        follow_once(made)
        follow_once(made)
    assert made.artifact is shipped
    assert "was trained on a simulated market" in (made.health().model_refused or "")
    assert [event["event"] for event in logged] == ["model_refused"]
    shutil.copytree(TEN_MODEL, tmp_path / "ten")
    promote(tmp_path / "ten")
    follow_once(made)
    assert (made.version().model, made.health().model_refused) == ("logistic", None)


@pytest.mark.parametrize("simulated", [True, None])
def test_other_markets_use_every_promoted_model(tmp_path: Path, simulated: bool | None) -> None:
    """A simulated market, and a server without a market, follow a promotion of a model of either kind."""
    made = Service(ServingSettings(artifacts=tmp_path), Artifact.load, simulated=simulated)
    made.start()
    for model in (SIMULATED_MODEL, TEN_MODEL):
        shutil.copytree(model, tmp_path / model.name)
        promote(tmp_path / model.name)
        follow_once(made)
        served = made.artifact
        assert served is not None
        assert served.metadata.onnx_sha256 == Artifact.load(model).metadata.onnx_sha256


def test_a_named_model_of_a_simulated_market_is_used_on_a_real_one(tmp_path: Path) -> None:
    """Who names a model decides; a new version of it is served as well."""
    shutil.copytree(TEN_MODEL, tmp_path / "mine")
    made = Service(ServingSettings(model=tmp_path / "mine"), Artifact.load, simulated=False)
    made.start()
    shutil.rmtree(tmp_path / "mine")
    shutil.copytree(SIMULATED_MODEL, tmp_path / "mine")
    follow_once(made)
    assert (made.version().simulated, made.health().model_refused) == (True, None)


@pytest.mark.parametrize(
    ("simulated", "shipped"), [(None, DEFAULT_MODEL), (False, DEFAULT_MODEL), (True, SIMULATED_MODEL)]
)
def test_rollback_of_the_first_promotion_serves_the_shipped_model(
    tmp_path: Path, simulated: bool | None, shipped: Path
) -> None:
    """The server returns to the model of its kind of market, once, and follows the next promotion."""
    made = Service(ServingSettings(artifacts=tmp_path), Artifact.load, simulated=simulated)
    made.start()
    shutil.copytree(TEN_MODEL, tmp_path / "ten")
    promote(tmp_path / "ten")
    follow_once(made)
    rollback(tmp_path)
    follow_once(made)
    served = made.artifact
    assert served is not None
    assert served.directory == shipped
    follow_once(made)
    assert made.artifact is served
    promote(tmp_path / "ten")
    follow_once(made)
    assert made.version().model == "logistic"


def test_rollback_of_a_refused_model_clears_the_refusal(tmp_path: Path) -> None:
    """With the refused model gone the service is healthy again."""
    made = Service(ServingSettings(artifacts=tmp_path), Artifact.load, simulated=False)
    made.start()
    shutil.copytree(SIMULATED_MODEL, tmp_path / "made_up")
    promote(tmp_path / "made_up")
    follow_once(made)
    assert made.health().status == "degraded"
    rollback(tmp_path)
    follow_once(made)
    assert (made.health().status, made.health().model_refused) == ("healthy", None)


def test_a_model_that_is_being_replaced_or_whose_drive_is_gone_was_not_rolled_back(tmp_path: Path) -> None:
    """The served model stays while its folder has another name, or the folder around it is empty or missing."""
    folder = ModelFolder(tmp_path / "artifacts" / "production", Artifact.load)
    assert not folder.was_cleared()
    (tmp_path / "artifacts").mkdir()
    assert not folder.was_cleared()
    (tmp_path / "artifacts" / "retired").mkdir()
    (tmp_path / "artifacts" / ".production.0123abcd.old").mkdir()
    assert not folder.was_cleared()
    (tmp_path / "artifacts" / ".production.0123abcd.old").rmdir()
    assert [folder.was_cleared(), folder.was_cleared()] == [True, False]


def test_a_damaged_promoted_model_is_not_replaced_by_the_shipped_one(tmp_path: Path) -> None:
    """What was promoted is served or reported, never silently exchanged."""
    (tmp_path / "production").mkdir()
    (tmp_path / "production" / "metadata.json").write_text("{}")
    made = Service(ServingSettings(artifacts=tmp_path), Artifact.load)
    made.start()
    assert made.health().model_loaded is False


def test_limitations_are_logged_and_part_of_the_version() -> None:
    """The log and ``/version`` state what limits the model; a live pipeline adds what its market differs in."""
    split = SplitFacts(method="stratified", folds=1, fractions=(), note="")
    served = fake_artifact(metadata=FakeMetadata(split=split))
    made = Service(ServingSettings(model=Path("m")), lambda _: served)
    with capture_logs() as logged:
        made.start()
    (limitation,) = made.version().limitations
    assert limitation.startswith("NO EVIDENCE: stratified split")
    assert [event["limitations"] for event in logged if event["event"] == "model_limitations"] == [[limitation]]

    def on_gemini(metadata: Metadata) -> Limitations:
        return all_limitations(metadata, live_markets(["gemini:BTC-USD"], simulated=False), simulated=False)

    made = Service(ServingSettings(model=Path("m")), lambda _: served, limitations=on_gemini)
    made.start()
    assert [text.partition(":")[0] for text in made.version().limitations] == ["NO EVIDENCE", "another venue"]


def _load(path: Path) -> Artifact:
    return Artifact.load(path) if path == TEN_MODEL else fake_artifact()


@pytest.fixture
def with_companion(new_client: Any) -> Iterator[Any]:
    """A client of an application that serves a fake model and the companion with ten features."""
    with new_client(create_app(ServingSettings(companion=TEN_MODEL), _load)) as client:
        yield client


def test_each_model_answers_its_own_features(with_companion: Any) -> None:
    """The served model answers its features, and the companion, which is named, those of the earlier system."""
    assert with_companion.predict({"features": FEATURES}).json()["model_version"] == "random_forest (ml)"
    answer = with_companion.predict({"features": dict.fromkeys(TEN_FEATURES, 0.1)})
    assert (answer.status_code, answer.json()["model_version"]) == (200, "logistic (ml)")


def test_a_refusal_refers_to_the_nearest_features(with_companion: Any) -> None:
    """Nine of the ten features are one missing name, not those of the served model."""
    nine = dict.fromkeys(TEN_FEATURES[:-1], 0.1)
    refused = with_companion.predict({"features": nine})
    assert refused.status_code == 422
    answer = refused.json()
    assert (answer["missing"], answer["unknown"]) == ([TEN_FEATURES[-1]], [])
    assert answer["model_version"] == "logistic (ml)"
    assert answer["detail"].startswith(f"compared with the features of logistic (ml): missing: {TEN_FEATURES[-1]}; ")
    assert "the server also accepts the 3 features of random_forest (ml): spread_mean_60s, " in answer["detail"]
    misspelled = with_companion.predict({"features": nine | {TEN_FEATURES[-1].upper(): 0.1}}).json()
    assert misspelled["suggestions"] == {TEN_FEATURES[-1].upper(): TEN_FEATURES[-1]}
    extra = with_companion.predict({"features": dict.fromkeys(TEN_FEATURES, 0.1) | {"x": 1}}).json()
    assert (extra["missing"], extra["unknown"]) == ([], ["x"])
    rows = with_companion.predict({"rows": [nine, dict.fromkeys(TEN_FEATURES, "a"), nine | {"x": 1}]}).json()
    assert [row["row"] for row in rows["rows"]] == [0, 1, 2]
    assert rows["rows"][1]["not_finite"] == list(TEN_FEATURES)
    assert rows["missing"] == [TEN_FEATURES[-1]]


def test_values_of_the_ten_features_are_refused_as_theirs(with_companion: Any) -> None:
    """A null among the ten features is the only error."""
    refused = with_companion.predict({"features": dict.fromkeys(TEN_FEATURES, 0.1) | {TEN_FEATURES[0]: None}}).json()
    assert (refused["missing"], refused["unknown"], refused["not_finite"]) == ([], [], [TEN_FEATURES[0]])


@pytest.mark.parametrize("body", [{}, {"volume": 1.0}, dict.fromkeys(FEATURES, 0.1) | {"x": 1.0}])
def test_without_a_near_feature_the_served_model_refuses(with_companion: Any, body: dict[str, float]) -> None:
    """Where no feature was sent, or those of the served model, the refusal is its own and names the other features."""
    refused = with_companion.predict({"features": body})
    assert refused.status_code == 422
    assert refused.json()["model_version"] == "random_forest (ml)"
    assert "the server also accepts the 10 features of logistic (ml): " in refused.json()["detail"]


def test_the_companion_is_part_of_the_version(with_companion: Any) -> None:
    """Clients find both feature sets in ``/version``."""
    version = with_companion.get("/version").json()
    assert version["companion_version"] == "logistic (ml)"
    assert version["companion_features"] == list(TEN_FEATURES)
    assert [text.partition(":")[0] for text in version["companion_limitations"]] == ["few events"]


def test_without_a_companion_ten_features_are_refused(client: Any) -> None:
    """A model without a companion answers its own features only."""
    assert client.predict({"features": dict.fromkeys(TEN_FEATURES, 0.1)}).status_code == 422
