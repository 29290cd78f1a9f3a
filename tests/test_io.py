"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from fastvoc.runtime.io import atomic_path


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".wav"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half of it")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "a"):
        pass
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a")]
    assert modes[0] == modes[1]


def test_a_missing_folder_shows_before_the_work(tmp_path: Path) -> None:
    started = False
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "absent" / "a"):
        started = True
    assert not started


def test_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    target = tmp_path / "a"
    contents = [bytes([65 + i]) * 100_000 for i in range(8)]
    barrier = threading.Barrier(len(contents))

    def write(content: bytes) -> None:
        with atomic_path(target) as temporary:
            barrier.wait()
            temporary.write_bytes(content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents
    assert os.listdir(tmp_path) == ["a"]
