"""Container paths are rewritten to real ones exactly where a container would have seen its mounts."""

from pathlib import Path

import pytest

from alidade_local.kubelet.paths import PathMap

MAP = PathMap(Path("/real"), ["/etc/job", "/volumes/models", "/volumes/data", "/dev/termination-log"])


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/etc/job", "/real/etc/job"),
        ("/etc/job/job.json", "/real/etc/job/job.json"),
        ("/etc/jobs", "/etc/jobs"),
        ("/volumes", "/real/volumes"),
        ("/volumes/", "/real/volumes/"),
        ("/volumes/other", "/volumes/other"),
        ("/etc", "/real/etc"),
        ("/etc/passwd", "/etc/passwd"),
        ("/dev/null", "/dev/null"),
        ("/", "/"),
        ("/usr/bin/python", "/usr/bin/python"),
    ],
)
def test_a_path_is_rewritten_when_it_is_below_a_mount_or_a_parent_of_one(path: str, real: str) -> None:
    assert MAP.real(path) == real
    assert MAP.rewrite_argument(path) == real
    assert MAP.rewrite_value(path) == real


@pytest.mark.parametrize(
    ("argument", "rewritten"),
    [
        ("--model=/volumes/models/a", "--model=/real/volumes/models/a"),
        ("--lib=/usr/lib", "--lib=/usr/lib"),
        ("cat /etc/job/job.json > /dev/termination-log", "cat /real/etc/job/job.json > /real/dev/termination-log"),
        ("open('/volumes/data/x')", "open('/real/volumes/data/x')"),
        ("curl http://host/etc/job", "curl http://host/etc/job"),
        ("pvc://claim/volumes/data", "pvc://claim/volumes/data"),
        ("echo /etc/jobs /etc/job-2", "echo /etc/jobs /etc/job-2"),
    ],
)
def test_flags_and_scripts_are_rewritten_where_they_name_a_mount(argument: str, rewritten: str) -> None:
    assert MAP.rewrite_argument(argument) == rewritten


@pytest.mark.parametrize(
    ("value", "rewritten"),
    [
        ("/volumes/data:/usr/lib", "/real/volumes/data:/usr/lib"),
        ("see /volumes/data", "see /volumes/data"),
        ("file:///volumes/data", "file:///volumes/data"),
        ("", ""),
    ],
)
def test_variables_are_rewritten_only_when_they_are_paths(value: str, rewritten: str) -> None:
    assert MAP.rewrite_value(value) == rewritten
