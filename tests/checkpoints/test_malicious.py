"""Files that try to run code, write files or exhaust memory: refused fast, with nothing executed."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import posix
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkpoint_files import DATA, SMALL, jik_config, random_state, write_jik

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import LoadError
from helpers import cpu_seconds

MAX_SECONDS = 0.1
MAX_GROWTH = 50 << 20
LEGACY_HEAD = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def resident_peak() -> int:
    """Bytes of the process's largest resident set since `reset_peak`."""
    line = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def assert_refused(path: Path) -> str:
    """LoadError, quickly and without much memory."""
    refusal(path)  # once before anything is measured: lazy imports of torch are not the file's doing
    reset_peak()
    before = resident_peak()
    message = refusal(path)
    assert resident_peak() - before < MAX_GROWTH
    assert cpu_seconds(lambda: refusal(path)) < MAX_SECONDS
    return message


def refusal(path: Path) -> str:
    with pytest.raises(LoadError) as caught:
        detect_and_load(path)
    return str(caught.value)


def raw(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def corpus(canary: Path) -> dict[str, bytes]:
    """Pickles by what they try. Each would touch the canary when unpickled without care, or break the reader."""
    touch = f"touch {canary}"
    text = repr(str(canary))
    state = {"generator": random_state(SMALL)}
    calls: dict[str, Any] = {
        "os.system": Call(os.system, touch),
        "posix.system": Call(posix.system, touch),
        "os.popen": Call(os.popen, touch),
        "subprocess.run": Call(subprocess.run, ["touch", str(canary)]),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "eval": Call(eval, f"open({text}, 'w')"),
        "exec": Call(exec, f"open({text}, 'w')"),
        "open": Call(open, str(canary), "w"),
        "io.FileIO": Call(io.FileIO, str(canary), "w"),
        "Path.touch": Call(Path.touch, canary),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "__import__": Call(__import__, "antigravity"),
        "compile": Call(compile, f"open({text}, 'w')", "x", "exec"),
        "nested": Call(list, Call(map, os.system, [touch])),
        "torch.load": Call(torch.load, str(canary)),
        "torch.hub": Call(torch.hub.load, "x/y", "z"),
        "torch.save": Call(torch.save, {}, str(canary)),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "in a list": [1, {"a": (Call(os.system, touch),)}],
        "after the weights": {**state, "config": Call(os.system, touch)},
        "as a weight": {"generator": {"conv_pre.weight": Call(os.system, touch)}},
        "sys.exit": Call(sys.exit, 0),
        "setattr": Call(setattr, Call(__import__, "builtins"), "print", None),
        "yaml.load": Call(yaml.unsafe_load, f"!!python/object/apply:os.system ['{touch}']"),
        "module class": torch.nn.Linear(2, 2),
    }
    pickles = {name: pickle.dumps(value, protocol=2) for name, value in calls.items()}
    pickles |= {
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": raw(b"(cos\nsystem\nU", bytes([len(touch)]), touch.encode(), b"o"),
        "STACK_GLOBAL": pickle.dumps(Call(os.system, touch), protocol=4),
        "EXT1": raw(b"\x82\x01"),
        "BUILD": raw(b"c__builtin__\nset\n)R}U\x01aK\x01sb"),
        "SETITEM on a number": raw(b"K\x01K\x02K\x03s"),
        "APPEND on a number": raw(b"K\x01K\x02a"),
        "empty stack": raw(b"R"),
        "memo": raw(b"h\x07"),
        "persistent id": raw(b"U\x03abcQ"),
        "huge string": raw(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"),
        "huge long": raw(b"\x8b\xff\xff\xff\x7f"),
        "deep lists": raw(b"]" * 2000),
    }
    return pickles


def zip_container(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def legacy_container(data: bytes) -> bytes:
    return b"".join(pickle.dumps(part, protocol=2) for part in LEGACY_HEAD) + data


@pytest.mark.parametrize("container", [zip_container, legacy_container], ids=["zip", "legacy"])
def test_malicious_pickles(container: Callable[[bytes], bytes], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickles = corpus(canary)
    assert len(pickles) >= 20
    (tmp_path / "config.json").write_text("{}")
    for name, data in pickles.items():
        path = tmp_path / "g_00000000"
        path.write_bytes(container(data))
        assert_refused(path)
        assert not canary.exists(), name
        assert builtins.print.__name__ == "print"
    assert "antigravity" not in sys.modules


def test_opcodes_without_end(tmp_path: Path) -> None:
    path = tmp_path / "g_00000000"
    for data in (legacy_container(raw(b"]" * (4 << 20))), zip_container(raw(b"N0" * (4 << 20)))):
        path.write_bytes(data)
        assert cpu_seconds(lambda: refusal(path)) < 4


def test_the_corpus_is_alive(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickles = corpus(canary)
    for name in ("os.system", "eval", "INST", "STACK_GLOBAL", "pickle.loads", "nested"):
        pickle.loads(pickles[name])  # what these files would do to a reader without care
        time.sleep(0.01)
        assert canary.exists(), name
        canary.unlink()


def with_payload(state: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "g_00000000"
    torch.save({"generator": state}, path)
    return path


def test_code_beside_good_weights(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = write_jik(tmp_path, random_state(SMALL))
    torch.save({"generator": random_state(SMALL), "config": Call(os.system, f"touch {canary}")}, path)
    assert "nothing in it was run" in assert_refused(path)
    assert not canary.exists()


def test_malicious_nemo(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    weights = zip_container(pickle.dumps(Call(os.system, f"touch {canary}"), protocol=2))
    path = tmp_path / "m.nemo"
    with tarfile.open(path, "w") as archive:
        for name, data in (("model_config.yaml", b"a: 1"), ("model_weights.ckpt", weights)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert_refused(path)
    assert not canary.exists()


YAML_ATTACKS = [
    "x: !!python/object/apply:os.system ['touch {canary}']",
    "x: !!python/object/new:os.system ['touch {canary}']",
    "x: !!python/object/apply:subprocess.check_output [['touch', '{canary}']]",
    "x: !!python/name:os.system",
    "x: !!python/module:antigravity",
    "x: !apply:os.system ['touch {canary}']",
    "x: !new:subprocess.Popen [['touch', '{canary}']]",
    "x: !include:/etc/passwd",
    "x: !name:os.system\n  command: touch {canary}",
]


@pytest.mark.parametrize("attack", YAML_ATTACKS)
def test_yaml_tags_are_data(attack: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in ("generator.ckpt", "hyperparams.yaml"):
        (tmp_path / name).write_bytes((DATA / "speechbrain" / name).read_bytes())
    with (tmp_path / "hyperparams.yaml").open("a") as file:
        file.write(attack.format(canary=canary) + "\n")
    config = detect_and_load(tmp_path).config
    assert config == detect_and_load(DATA / "speechbrain").config
    assert not canary.exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "{" * 50_000,
        "\n".join(f"{' ' * i}a:" for i in range(400)),
        "a: &a [x, x]\n" + "\n".join(f"b{i}: &b{i} [*{'a' if i == 0 else f'b{i - 1}'}, *a]" for i in range(500)),
        "m0: &m0 {x: 1}\n" + "\n".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, 60)),
        "a: " + "9" * 5000,
        "? [a]\n: b",
        "a: !!timestamp 2001-99-99",
        "\x00\x01",
        "- 1",
        "",
        "x" * (300 << 10),
    ],
    ids=range(12),
)
def test_hostile_yaml(text: str, tmp_path: Path) -> None:
    (tmp_path / "generator.ckpt").write_bytes((DATA / "speechbrain" / "generator.ckpt").read_bytes())
    (tmp_path / "hyperparams.yaml").write_text(text)
    with pytest.raises(LoadError, match=r"hyperparams\.yaml"):
        detect_and_load(tmp_path)
    assert cpu_seconds(lambda: refusal(tmp_path)) < 1


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        "[]",
        "9" * 5000,
        "\x00",
        '"' * 9,
        "{" + " " * (300 << 10),
    ],
    ids=["lists", "objects", "nan", "twice", "list", "digits", "control", "quotes", "long"],
)
def test_hostile_json(text: str, tmp_path: Path) -> None:
    path = write_jik(tmp_path, random_state(SMALL))
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in assert_refused(path)


def zip_file(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_zip_bombs(tmp_path: Path) -> None:
    zeros = bytes(100 << 20)
    bomb = zip_file(tmp_path / "a.pth.tar.zip", {"g.pth.tar": zeros})
    assert "bomb" in assert_refused(bomb)
    bomb = zip_file(tmp_path / "b.pt", {"archive/data.pkl": raw(b"}"), "archive/data/0": zeros})
    assert "bomb" in assert_refused(bomb)
    many = zip_file(tmp_path / "c.pt", {f"archive/data/{i}": b"" for i in range(20_000)})
    with pytest.raises(LoadError, match="members"):
        detect_and_load(many)
    pickled = zip_file(tmp_path / "d.pt", {"archive/data.pkl": bytes(20 << 20)}, zipfile.ZIP_STORED)
    assert "data.pkl" in assert_refused(pickled)


def test_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.pth.tar.zip", {"g.pth.tar": bytes(80 << 20)})
    data = path.read_bytes()
    small = (4096).to_bytes(4, "little")
    path.write_bytes(data.replace((80 << 20).to_bytes(4, "little"), small))
    assert_refused(path)


def test_gzip_bomb(tmp_path: Path) -> None:
    compress = zlib.compressobj(9, wbits=31)
    block = bytes(1 << 20)
    data = b"".join(compress.compress(block) for _ in range(200)) + compress.flush()
    path = tmp_path / "m.nemo"
    path.write_bytes(data)
    reset_peak()
    before = resident_peak()
    with pytest.raises(LoadError, match="bomb"):
        detect_and_load(path)
    assert resident_peak() - before < MAX_GROWTH


@pytest.mark.parametrize(
    "name", ["../../evil.pth.tar", "/etc/evil.pth.tar", "a/../../evil.pth.tar", "..\\evil.pth.tar"]
)
def test_path_traversal(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    before = sorted(tmp_path.rglob("*"))
    path = zip_file(inside / "a.pth.tar.zip", {name: b"x"})
    assert "outside the archive" in assert_refused(path)
    path.unlink()
    path = inside / "m.nemo"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    assert "outside the archive" in assert_refused(path)
    path.unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_zip_member_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pth.tar.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("x")
        archive.writestr(info, b"")
        info.filename = ""  # what the directory at the end of the archive will say
    assert "has no name" in assert_refused(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.nemo"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("model_weights.ckpt")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert "neither a file nor a folder" in assert_refused(path)


def test_tar_member_larger_than_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "m.nemo"
    info = tarfile.TarInfo("model_weights.ckpt")
    info.size = 1 << 40
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert_refused(path)


def rebuilt(shape: tuple[int, ...], stride: tuple[int, ...], offset: int, stored: int) -> Any:
    """A tensor whose pickled shape, strides and offset are not those of its storage."""
    storage = torch.zeros(stored).storage()._untyped_storage
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    return Call(torch._utils._rebuild_tensor_v2, typed, offset, shape, stride, False, {})


@pytest.mark.parametrize(
    ("shape", "stride", "offset", "stored"),
    [
        ((1 << 40,), (1,), 0, 4),
        ((1 << 20, 1 << 20), (0, 0), 0, 4),
        ((8,), (1,), 1 << 40, 8),
        ((8,), (1,), -1, 8),
        ((-8,), (1,), 0, 8),
        ((1 << 62, 4), (1, 1), 0, 8),
        ((8, 6, 7), (0, 0, 0), 0, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_tensor_that_lies_about_its_storage(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int, stored: int, tmp_path: Path
) -> None:
    state = {**random_state(SMALL), "conv_pre.weight": rebuilt(shape, stride, offset, stored)}
    (tmp_path / "config.json").write_text(json.dumps(jik_config(SMALL)))
    assert_refused(with_payload(state, tmp_path))


def test_storage_of_another_size(tmp_path: Path) -> None:
    path = write_jik(tmp_path, random_state(SMALL))
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in members if name.endswith("/data/0"))
    for data in (b"", members[name][:-4], members[name] + bytes(64)):
        zip_file(path, {**members, name: data}, zipfile.ZIP_STORED)
        assert_refused(path)


@pytest.mark.parametrize("tensor", ["sparse", "meta", "nested", "complex"])
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_plain(tensor: str, tmp_path: Path) -> None:
    plain = random_state(SMALL)["conv_pre.weight"]
    kinds = {
        "sparse": lambda: plain.to_sparse(),
        "meta": lambda: plain.to("meta"),
        "nested": lambda: torch.nested.nested_tensor([plain, plain]),
        "complex": lambda: plain.to(torch.complex64),
    }
    path = write_jik(tmp_path, {**random_state(SMALL), "conv_pre.weight": kinds[tensor]()})
    with pytest.raises(LoadError):
        detect_and_load(path)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = zip_file(
        tmp_path / "m.pt",
        {"m/data.pkl": pickle.dumps({}), "m/code/__torch__.py": b"import os", "m/constants.pkl": pickle.dumps(())},
        zipfile.ZIP_STORED,
    )
    assert_refused(path)
