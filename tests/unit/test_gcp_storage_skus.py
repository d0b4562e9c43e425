"""Which operation of Cloud Storage is of which class, and which SKU is for what."""

from __future__ import annotations

import pytest

from costinsights.billing.columns import USAGE_KINDS
from costinsights.systems.gcp_storage import (
    OPERATIONS,
    SKUS,
    Sku,
    operation_class,
    sku,
    storage_class,
    transfer,
)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Standard Storage Belgium", Sku("storage", "STANDARD")),
        ("Standard Storage US Multi-region", Sku("storage", "STANDARD")),
        ("Standard Storage Belgium/London Dual-region", Sku("storage", "STANDARD")),
        ("Autoclass Standard Storage London", Sku("storage", "STANDARD")),
        ("Archive Storage Doha", Sku("storage", "ARCHIVE")),
        ("Multi-Regional Storage US", Sku("storage", "MULTI_REGIONAL")),
        ("Regional Storage Iowa", Sku("storage", "REGIONAL")),
        (
            "US Regional Standard Storage Durable Reduced Availability",
            Sku("storage", "DURABLE_REDUCED_AVAILABILITY"),
        ),
        ("Nearline Storage Doha (Early Delete)", Sku("early_delete", "NEARLINE")),
        ("Coldline Data Retrieval", Sku("retrieval", "COLDLINE")),
        ("Regional Standard Class A Operations", Sku("requests", "STANDARD", "A")),
        ("Multi-Region Nearline Class B Operations", Sku("requests", "NEARLINE", "B")),
        ("Regional Standard Tagging Class A Operations", Sku("requests", "STANDARD", "A")),
        ("Autoclass Management Fee", Sku("management")),
        ("Bucket Tagging Storage", Sku("management")),
        (
            "Networking Traffic Egress GCP Replication within Northern America",
            Sku("replication"),
        ),
        (
            "Download Worldwide Destinations (excluding Asia & Australia)",
            Sku("transfer_internet"),
        ),
        ("Download APAC", Sku("transfer_internet")),
        ("GCP Storage egress between NA and EU", Sku("transfer_region")),
        ("Inter-region GCP Storage egress within EU", Sku("transfer_region")),
        ("Network Data Transfer GCP Inter Region within Europe", Sku("transfer_region")),
        ("Network Data Transfer GCP Multi-region within Europe", Sku("transfer_region")),
        ("Networking of some kind", Sku("other")),
        ("Something new", Sku("other")),
        ("", Sku("other")),
    ],
)
def test_a_description_says_what_a_line_is_for(description: str, expected: Sku) -> None:
    assert sku(description) == expected
    assert expected.kind in USAGE_KINDS


def test_a_line_that_has_an_id_only_is_known_by_it() -> None:
    assert sku(None, "22EB-AAE8-FBCD") == Sku("transfer_internet")
    assert sku("", "4DBF-185F-A415") == Sku("requests", "STANDARD", "A")
    assert sku(None, "0000-0000-0000") == Sku("other")
    assert all(sku(None, id_).kind != "other" for id_ in SKUS)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Network Internet Data Transfer Out Europe to Europe", "transfer_internet"),
        ("Network Inter Region Data Transfer Out from Americas to Montreal", "transfer_region"),
        ("Network Inter Zone Data Transfer Out", "transfer_zone"),
        ("Network Internet Ingress from EMEA to Americas", "transfer_in"),
        ("N1 Predefined Instance Core running in Americas", None),
    ],
)
def test_data_transfer_of_other_services_is_known_too(
    description: str, expected: str | None
) -> None:
    assert transfer(description) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("storage.objects.insert", "A"),
        ("objects.list", "A"),
        ("objects.get", "B"),
        ("buckets.get", "B"),
        ("objects.delete", "free"),
        ("storage.projects.hmacKeys.list", "A"),
        ("objectAccessControls.list", "B"),
        ("objectAccessControls.delete", "A"),
        ("folders.insert", "A"),
        ("folders.delete", "free"),
        ("objects.restore", "A"),
        ("managedFolders.list", None),
        ("managedFolders.delete", None),
    ],
)
def test_a_method_is_of_a_class_or_of_none_that_is_known(method: str, expected: str | None) -> None:
    assert operation_class(method) == expected


def test_the_classes_are_three() -> None:
    assert set(OPERATIONS.values()) == {"A", "B", "free"}


def test_a_class_is_the_apis_word() -> None:
    assert storage_class("Nearline Data Retrieval") == "NEARLINE"
    assert storage_class("Download APAC") is None
