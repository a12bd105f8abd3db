"""Provenance: identities of all models, versions and notes."""

from matir_cli.evaluation.reporting.provenance import PACKAGES, record_provenance
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files


def test_models_are_named_with_their_hashes() -> None:
    models = load_model_set("tiny")
    provenance = record_provenance({"N_C": "100"}, models, [models])
    identity = locate_files(models, "encoder").identity
    assert provenance.settings == {"N_C": "100"}
    assert list(provenance.models) == ["proposer", "encoder", "judge", "encoder of tiny"]
    assert provenance.models["encoder"].startswith(f"{identity.name}, SHA-256 {identity.weight_hash}, {{")
    assert provenance.models["encoder of tiny"] == provenance.models["encoder"]
    assert list(provenance.versions) == ["Python", *PACKAGES]
    assert provenance.notes == (models.note.rstrip("."),)
