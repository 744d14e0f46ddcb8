"""Addresses: what they mean, and what is said of those that mean nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alidade_crds.uris import SCHEMES, Location, UriError, parse_uri


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("hf://meta-llama/Llama-2-7b-hf", Location("hf", "meta-llama/Llama-2-7b-hf", "")),
        ("hf://meta-llama/Llama-2-7b-hf@main", Location("hf", "meta-llama/Llama-2-7b-hf", "", "main")),
        ("hf://tatsu-lab/alpaca/data/train.parquet", Location("hf", "tatsu-lab/alpaca", "data/train.parquet")),
        ("pvc://models/kbqa/sft/", Location("pvc", "models", "kbqa/sft")),
        ("pvc://models", Location("pvc", "models", "")),
        ("arena://kbqa", Location("arena", "kbqa", "")),
        ("s3://bucket/a/b.jsonl", Location("s3", "bucket", "a/b.jsonl")),
        (
            f"https://host:8443/a%20b.jsonl?version=1#sha256={'0a' * 32}",
            Location("https", "host:8443", "a%20b.jsonl?version=1", None, "0a" * 32),
        ),
        (f"s3://bucket/a.jsonl#sha256={'0a' * 32}", Location("s3", "bucket", "a.jsonl", None, "0a" * 32)),
        ("configmap://kbqa-data/train.json", Location("configmap", "kbqa-data", "train.json")),
        ("file:///data/train.json", Location("file", "", "/data/train.json")),
    ],
)
def test_an_address_has_these_parts(uri: str, location: Location) -> None:
    assert parse_uri(uri) == location


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("/data/train.json", "is not an address; start it with one of hf://"),
        ("https://host/file.jsonl", "says nothing of what lies there: set sha256 beside it"),
        ("https://host#sha256=" + "0" * 64, "names no file; write https://HOST/FILE"),
        ("https:///file", "names no host"),
        ("pvc://data/a#sha256=0123", "ends in no sha256: it has 64 digits"),
        ("ftp://host/file", "is not an address; start it with one of hf://"),
        ("pvc://models/../../etc/passwd", "climbs out of its volume with '..'"),
        ("arena://kbqa/votes.jsonl", "must name a ModelServe and nothing more"),
        ("pvc:///path", "names no claim; write pvc://CLAIM/PATH"),
        ("s3:///key", "names no bucket; write s3://BUCKET/PATH"),
        ("configmap://only-name", "must name one key: configmap://NAME/KEY"),
        ("configmap://name/a/b", "must name one key: configmap://NAME/KEY"),
        ("file://relative/path", "must be absolute: file:///PATH"),
        ("hf://only-name", "must be hf://ORG/NAME"),
        ("hf://org/name@", "gives no revision"),
        ("pvc://models/a\nb", "contains control characters"),
    ],
)
def test_an_address_that_means_nothing_gets_its_sentence(uri: str, sentence: str) -> None:
    with pytest.raises(UriError, match=sentence.replace("(", r"\(")):
        parse_uri(uri)


@given(st.text(max_size=60), st.sampled_from(SCHEMES), st.sampled_from(["", f"#sha256={'0' * 64}"]))
def test_any_text_is_either_an_address_that_prints_to_one_with_the_same_parts_or_refused(
    text: str, scheme: str, digest: str
) -> None:
    try:
        location = parse_uri(f"{scheme}://{text}{digest}")
    except UriError:
        return
    assert parse_uri(str(location)) == location
    assert ".." not in location.path.split("/")
