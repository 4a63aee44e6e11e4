"""An artifact loads completely or raises an error that says what is wrong."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.models.samples import market_sample
from volspike.errors import ArtifactCorrupt, ArtifactMissing, ModelError, SchemaMismatch, UsageError
from volspike.features.schema import FeatureSet
from volspike.market import Profile
from volspike.models import METADATA_FILE, ONNX_FILE, Artifact, Metadata
from volspike.models.artifact import head_files
from volspike.models.metadata import encode_metadata


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / METADATA_FILE).read_text()
    assert old in text
    (folder / METADATA_FILE).write_text(text.replace(old, new, 1))


def test_what_is_saved_is_what_loads(artifact_folder: Path, metadata: Metadata) -> None:
    """Saving and loading gives the same metadata, and the plots are in the same folder."""
    artifact = Artifact.load(artifact_folder)
    limitations = ("not stated: the venues of its training data (an artifact of an earlier version)",)
    saved = msgspec.structs.replace(metadata, limitations=limitations)
    assert msgspec.structs.replace(artifact.metadata, onnx_sha256="") == saved
    assert (artifact.name, artifact.threshold, artifact.accepts_missing) == ("logistic", 0.4, False)
    assert artifact.features == metadata.features
    assert (artifact_folder / "pr_curve.png").read_bytes() == b"a picture"


@pytest.mark.parametrize("file", [ONNX_FILE, METADATA_FILE, "pr_curve.png", "model.pkl"])
def test_a_file_in_the_folder_means_the_folder(artifact_folder: Path, file: str) -> None:
    """The path of any file in the folder, even of one that an earlier system kept there, loads the artifact."""
    assert Artifact.load(artifact_folder / file).directory == artifact_folder


def test_probability_of_rows_and_of_one(artifact_folder: Path) -> None:
    """A batch gives float64 per row, one row gives the same number, and a missing value gives NaN."""
    artifact = Artifact.load(artifact_folder)
    x = market_sample(100, 2).x
    x[3, 4] = np.nan
    probability = artifact.probability(x)
    assert probability.dtype == np.float64
    assert probability.shape == (100,)
    alone = np.array([artifact.probability_of(row) for row in x.tolist()])
    np.testing.assert_allclose(alone, probability, atol=1e-7)
    assert np.flatnonzero(np.isnan(probability)).tolist() == [3]


def test_rows_of_another_width_are_refused(artifact_folder: Path) -> None:
    """Nine values for ten features are an error that says so, in a batch and alone."""
    artifact = Artifact.load(artifact_folder)
    with pytest.raises(SchemaMismatch, match="expects rows of 10 features, got 9"):
        artifact.probability(np.zeros((2, 9)))
    with pytest.raises(SchemaMismatch, match="expects rows of 10 features, got 9"):
        artifact.probability_of([0.0] * 9)


def test_no_rows_give_no_probabilities(artifact_folder: Path) -> None:
    """An empty batch is answered with an empty array."""
    assert Artifact.load(artifact_folder).probability(np.empty((0, 10))).shape == (0,)


@pytest.mark.parametrize("file", [ONNX_FILE, METADATA_FILE])
def test_missing_file_is_named(artifact_folder: Path, file: str) -> None:
    """An absent file is named, with what to do."""
    (artifact_folder / file).unlink()
    with pytest.raises(ArtifactMissing, match=rf"no {file}; train one with `volspike train`"):
        Artifact.load(artifact_folder)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    """Where there is no folder at all, both files are missing."""
    with pytest.raises(ArtifactMissing, match=r"nowhere: no metadata.json and no model.onnx"):
        Artifact.load(tmp_path / "nowhere")


def test_one_flipped_byte_is_noticed(artifact_folder: Path) -> None:
    """A graph that differs in one bit is not loaded."""
    onnx = bytearray((artifact_folder / ONNX_FILE).read_bytes())
    onnx[len(onnx) // 2] ^= 1
    (artifact_folder / ONNX_FILE).write_bytes(bytes(onnx))
    with pytest.raises(ArtifactCorrupt, match=r"model.onnx: sha256 is"):
        Artifact.load(artifact_folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"tau": 0.00015', '"tau": "high"', r"\$.tau"),
        ('"tau": 0.00015', '"tau": 0', "tau must be a number above 0, was 0"),
        ('"tau": 0.00015', '"tau": -1e-4', "tau must be a number above 0, was -0.0001"),
        ('"best_f1": 0.4', '"best_f1": null', r"\$.thresholds"),
        ('"best_f1": 0.4', '"best_f1": 1e999', "metadata.json"),
        ('"horizon_s": 60', '"horizon": 60', "horizon"),
        ('"format": 1', '"format": 2', r"\$.format"),
        ('"served_threshold": "best_f1"', '"served_threshold": "other"', "served_threshold"),
        ('"start": "2025-12-06Z"', '"start": 7', r"\$.data.start"),
        ('"log_return_300s",', '"spread_mean_300s",', "features"),
        ("    30,\n", "    3000,\n", r"\$.windows"),
        ('"format": 1,', '"format": 1', "JSON is malformed"),
    ],
)
def test_edited_metadata_is_located(artifact_folder: Path, old: str, new: str, said: str) -> None:
    """Metadata that is not what was written is refused with the place of the fault."""
    edit(artifact_folder, old, new)
    with pytest.raises(ArtifactCorrupt, match=said):
        Artifact.load(artifact_folder)


@pytest.mark.parametrize("text", [b"", b"null", b"\xff\xfe", b'{"format": 1, "model": "\xff"}'])
def test_metadata_that_is_no_json_is_corrupt(artifact_folder: Path, text: bytes) -> None:
    """Whatever bytes replace the metadata, the error names the file."""
    (artifact_folder / METADATA_FILE).write_bytes(text)
    with pytest.raises(ArtifactCorrupt, match=r"metadata\.json: .*train it again"):
        Artifact.load(artifact_folder)


def test_other_digest_is_refused(artifact_folder: Path) -> None:
    """A model of features that are defined otherwise here does not load."""
    edit(artifact_folder, '"feature_definition": 1', '"feature_definition": 2')
    with pytest.raises(SchemaMismatch, match=r"of definition 2.*of definition 1 here.*volspike train"):
        Artifact.load(artifact_folder)


def test_unknown_feature_is_named(artifact_folder: Path) -> None:
    """A column that the feature set does not have is a field of the error."""
    edit(artifact_folder, '"log_return_300s"', '"log_return_301s"')
    with pytest.raises(SchemaMismatch) as caught:
        Artifact.load(artifact_folder)
    assert caught.value.missing == ("log_return_301s",)


def test_graph_of_another_width_is_refused(tmp_path: Path, metadata: Metadata, logistic_onnx: bytes) -> None:
    """A graph that takes ten features does not pass for one of nine, and nothing stays behind."""
    nine = msgspec.structs.replace(metadata, features=metadata.features[:9])
    with pytest.raises(ArtifactCorrupt, match="inputs and outputs"):
        Artifact.save(tmp_path / "artifact", logistic_onnx, nine, {})
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_graph_are_refused(tmp_path: Path, metadata: Metadata) -> None:
    """Rubbish whose hash is right is still not a model."""
    with pytest.raises(ArtifactCorrupt, match="not a usable ONNX model"):
        Artifact.save(tmp_path / "artifact", b"rubbish", metadata, {})


def test_failed_save_leaves_the_old_artifact(artifact_folder: Path, metadata: Metadata) -> None:
    """What does not load does not replace what does."""
    before = contents(artifact_folder.parent)
    with pytest.raises(ModelError):
        Artifact.save(artifact_folder, b"rubbish", metadata, {"new.png": b""})
    assert contents(artifact_folder.parent) == before


def test_save_replaces_all_of_it(artifact_folder: Path, metadata: Metadata, logistic_onnx: bytes) -> None:
    """A new artifact replaces the old one completely, including its plots."""
    Artifact.save(artifact_folder, logistic_onnx, msgspec.structs.replace(metadata, tau=2.0), {"roc_curve.png": b"new"})
    assert sorted(file.name for file in artifact_folder.parent.rglob("*.*")) == [
        METADATA_FILE,
        ONNX_FILE,
        "roc_curve.png",
    ]
    assert Artifact.load(artifact_folder).metadata.tau == 2.0


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, metadata: Metadata, logistic_onnx: bytes) -> None:
    """A folder that holds no artifact is not replaced by one."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="contains something other than an artifact"):
        Artifact.save(tmp_path, logistic_onnx, metadata, {})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_where_nothing_can_be_written_is_told(tmp_path: Path, metadata: Metadata, logistic_onnx: bytes) -> None:
    """A file where a folder is wanted is one clear line."""
    (tmp_path / "artifacts").write_text("a file")
    with pytest.raises(UsageError, match="cannot be written"):
        Artifact.save(tmp_path / "artifacts" / "logistic", logistic_onnx, metadata, {})


@pytest.mark.parametrize(
    ("digest", "every", "profile", "said"),
    [
        (
            "9a40",
            "tick",
            "ticker",
            "expects feature digest {digest}, was 9a40; retrain with `volspike train`, or serve",
        ),
        ("{digest}", "1s", "ticker", "expects rows every tick, was 1s; retrain"),
        ("{digest}", "tick", "trade", "needs quotes, which a source of profile trade does not send; missing: "),
    ],
)
def test_rows_of_another_kind_are_refused(
    artifact_folder: Path, digest: str, every: str, profile: str, said: str
) -> None:
    """Another digest or spacing than in training, or a missing input, is named in one line."""
    known = FeatureSet().digest
    with pytest.raises(SchemaMismatch, match=said.format(digest=known)):
        Artifact.load(artifact_folder).check_inputs(digest.format(digest=known), every, Profile(profile))


def test_rows_of_the_same_kind_are_welcome(artifact_folder: Path) -> None:
    """What fits raises nothing."""
    Artifact.load(artifact_folder).check_inputs(FeatureSet().digest, "tick", Profile.TICKER)


def test_rows_of_another_leader_are_refused(artifact_folder: Path, metadata: Metadata, logistic_onnx: bytes) -> None:
    """Rows of a set with more features of the same leader are accepted, those of another leader are not."""
    Artifact.save(artifact_folder, logistic_onnx, msgspec.structs.replace(metadata, scope="full", leader="A-USD"), {})
    artifact = Artifact.load(artifact_folder)
    artifact.check_inputs("9a40", "tick", Profile.TICKER, artifact.features, "A-USD")
    for leader in ("B-USD", None):
        with pytest.raises(SchemaMismatch, match="expects feature digest"):
            artifact.check_inputs("9a40", "tick", Profile.TICKER, artifact.features, leader)


@pytest.mark.parametrize("tau", [0.0, -1e-4, math.nan, math.inf])
def test_tau_is_a_number_above_zero(metadata: Metadata, tau: float) -> None:
    """A volatility that every row or none reaches predicts no spikes, and no metadata claims it."""
    with pytest.raises(ValueError, match="tau must be a number above 0"):
        msgspec.structs.replace(metadata, tau=tau)


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["best_f1", "rate_10"])
def test_thresholds_are_finite(metadata: Metadata, name: str, threshold: float) -> None:
    """A threshold that nothing compares with is refused and named, served or not."""
    with pytest.raises(ValueError, match=f"thresholds must be finite, were {{'{name}'"):
        msgspec.structs.replace(metadata, thresholds=metadata.thresholds | {name: threshold})


def test_a_threshold_above_one_means_never(artifact_folder: Path, metadata: Metadata, logistic_onnx: bytes) -> None:
    """If no probability is high enough for an alert, the threshold is above 1 and is stored."""
    never = msgspec.structs.replace(metadata, thresholds={"best_f1": 1.0000000000000002})
    Artifact.save(artifact_folder, logistic_onnx, never, {})
    assert Artifact.load(artifact_folder).threshold > 1.0


def test_json_has_no_nan(metadata: Metadata) -> None:
    """An undefined figure is written as null, which every JSON reader takes."""
    text = encode_metadata(msgspec.structs.replace(metadata, metrics={"model": {"brier": float("nan")}}))
    assert b"NaN" not in text
    assert b'"brier": null' in text


def test_import_is_light() -> None:
    """Importing the models loads no learning library and no ONNX Runtime."""
    heavy = {
        "sklearn",
        "xgboost",
        "lightgbm",
        "jax",
        "optax",
        "optuna",
        "skl2onnx",
        "onnxmltools",
        "onnx",
        "onnxruntime",
    }
    code = f"import sys, volspike.models; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.split() == []


def add_head(folder: Path, **changes: Any) -> None:
    """Store the model in ``folder`` as its own head for 300 s, with changed metadata."""
    known = Artifact.load(folder)
    facts = msgspec.structs.replace(known.metadata, horizon_s=300, **changes)
    for name, content in head_files(300, (folder / "model.onnx").read_bytes(), facts).items():
        (folder / name).write_bytes(content)


def test_heads_are_models_of_other_horizons(artifact_folder: Path) -> None:
    """A head is loaded with the artifact and has its own metadata."""
    add_head(artifact_folder, tau=0.5)
    artifact = Artifact.load(artifact_folder)
    assert artifact.horizons == (60, 300)
    assert artifact.heads[300].metadata.tau == 0.5
    x = np.ones((3, len(artifact.features)))
    np.testing.assert_array_equal(artifact.heads[300].probability(x), artifact.probability(x))


@pytest.mark.parametrize("damage", ["graph", "missing", "features"])
def test_a_damaged_head_is_refused(artifact_folder: Path, damage: str) -> None:
    """A changed or missing graph, or a feature that the artifact does not have, is named."""
    add_head(artifact_folder)
    if damage == "graph":
        (artifact_folder / "horizon_300.onnx").write_bytes(b"")
    elif damage == "missing":
        (artifact_folder / "horizon_300.onnx").unlink()
    else:
        add_head(artifact_folder, features=("log_return_30s", *Artifact.load(artifact_folder).features[1:]))
    with pytest.raises(ArtifactCorrupt, match="horizon_300"):
        Artifact.load(artifact_folder)


def test_scoring_sends_nothing_about_its_use(artifact_folder: Path, tmp_path: Path) -> None:
    """ONNX Runtime keeps no device number and no queue of events for its maker, as it does by default."""
    code = (
        "import sys; from pathlib import Path; from volspike.models import Artifact\n"
        "artifact = Artifact.load(Path(sys.argv[1])); artifact.probability_of([0.0] * len(artifact.features))"
    )
    own = {"HOME", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"}
    variables = {name: value for name, value in os.environ.items() if name not in own} | {
        "HOME": str(tmp_path / "home")
    }
    (tmp_path / "home").mkdir()
    command = [sys.executable, "-c", code, str(artifact_folder)]
    subprocess.run(command, env=variables, check=True)  # noqa: S603  our own command
    assert list((tmp_path / "home").iterdir()) == []
