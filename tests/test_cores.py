"""How many cores there are: those that the process may run on, and what control groups leave of them."""

from __future__ import annotations

import os

import pytest

from colbert_core import cores
from colbert_core.cores import count_cores, read_quota


@pytest.fixture
def granted(tmp_path):
    """The quota by a list of control groups and the files of their file systems."""

    def granted(groups, **files):
        (tmp_path / "cgroup").write_text(groups)
        for name, content in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return read_quota(tmp_path / "cgroup", tmp_path / "sys")

    return granted


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert read_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("limit", "quota"),
    [
        ("200000 100000\n", 2.0),
        ("150000 100000\n", 1.5),
        ("max 100000\n", None),
        ("5000 10000\n", 0.5),
        ("", None),
        ("1 0", None),
    ],
)
def test_the_quota_of_a_container_that_sees_its_group_as_the_root(granted, limit, quota):
    assert granted("0::/\n", **{"cpu.max": limit}) == quota


def test_the_least_quota_on_the_way_up_counts(granted):
    files = {"a/b/cpu.max": "400000 100000", "a/cpu.max": "100000 100000", "cpu.max": "max 100000", "c/cpu.max": "1 100"}
    assert granted("0::/a/b\n", **files) == 1.0


def test_a_group_that_is_listed_by_its_path_on_the_host_has_the_roots_quota(granted):
    assert granted("0::/docker/8f3a\n", **{"cpu.max": "300000 100000"}) == 3.0


def test_a_quota_of_version_1(granted):
    files = {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}
    assert granted("9:memory:/a\n4:cpu,cpuacct:/a\n", **files) == 2.5


def test_no_quota_of_version_1(granted):
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n", "memory/cpu.max": "1 1"}
    assert granted("9:memory:/\n4:cpu:/\n", **files) is None


@pytest.mark.parametrize(("quota", "n"), [(None, 8), (16.0, 8), (1.5, 2), (1.0, 1), (0.1, 1), (7.2, 8)])
def test_as_many_cores_as_are_granted_and_a_part_of_one_is_one(monkeypatch, quota, n):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_quota", lambda: quota)
    assert count_cores() == n
