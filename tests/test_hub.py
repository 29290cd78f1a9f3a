"""The hub: what is fetched, cached and checked. A small server on the loopback device plays the hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from checkpoint_files import DATA

from fastvoc import loading
from fastvoc.errors import LoadError
from fastvoc.hub import download as hub

REPO = "someone/vocoder"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import sys
from fastvoc.hub import download as hub
from fastvoc.errors import LoadError
try:
    print("FOLDER", hub.fetch(sys.argv[1]))
except LoadError as error:
    print("REFUSED", error)
"""


class Hub:
    """Serves the files of one repository and remembers what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.stated: dict[str, bytes] = {}  # content whose checksum the server states, where it is not the file's
        self.asked: list[str] = []
        hub_ = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None: ...

            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                path = urlsplit(self.path).path
                prefix = f"/{REPO}/resolve/"
                if path in (f"/api/models/{REPO}", f"/api/models/{REPO}/revision/v1.0"):
                    self.send(json.dumps(hub_.card()).encode(), "application/json")
                elif path.startswith(prefix) and (name := path.removeprefix(prefix).split("/", 1)[1]) in hub_.files:
                    hub_.asked.append(name)
                    self.send(hub_.files[name], "application/octet-stream", name)
                else:
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def send(self, data: bytes, kind: str, name: str | None = None) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if name is not None:
                    sha = hashlib.sha256(hub_.stated.get(name, data)).hexdigest()
                    self.send_header("X-Repo-Commit", COMMIT)
                    self.send_header("ETag", f'"{sha}"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def card(self) -> dict[str, object]:
        """What the hub says of the repository: the weights are large files, whose checksum it states."""
        siblings: list[dict[str, object]] = []
        for name, data in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
            if name.endswith(".ckpt"):
                sha = hashlib.sha256(self.stated.get(name, data)).hexdigest()
                entry["lfs"] = {"size": len(data), "sha256": sha, "pointerSize": 134}
            siblings.append(entry)
        return {"id": REPO, "sha": COMMIT, "cardData": {"license": "apache-2.0"}, "siblings": siblings}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Hub]:
    running = Hub()
    folder = DATA / "speechbrain"
    running.files = {name: (folder / name).read_bytes() for name in ("generator.ckpt", "hyperparams.yaml")}
    running.files |= {"README.md": b"#" * 1000, "example.wav": bytes(9), "old/generator.ckpt": b"x", "other.pt": b"y"}
    yield running
    running.close()


def fetch(name: str, home: Path, endpoint: str, offline: bool = False) -> tuple[str, str]:
    """What `hub.fetch` says in a process of its own: ("FOLDER", path) or ("REFUSED", message)."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    wanted = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": str(int(offline))}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, name],
        env={**keep, **wanted, **quiet},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    verdict, _, rest = done.stdout.strip().partition(" ")
    return verdict, rest


@pytest.mark.parametrize("revision", ["", "@v1.0"])
def test_fetches_only_what_is_needed_and_then_works_offline(server: Hub, revision: str, tmp_path: Path) -> None:
    verdict, folder = fetch(REPO + revision, tmp_path, server.url)
    assert verdict == "FOLDER", folder
    assert set(server.asked) == {"generator.ckpt", "hyperparams.yaml"}
    assert sorted(path.name for path in Path(folder).iterdir()) == ["generator.ckpt", "hyperparams.yaml"]
    assert loading.read_checkpoint(Path(folder)).config == loading.read_checkpoint(DATA / "speechbrain").config
    record = json.loads(next(tmp_path.rglob("fastvoc-*.json")).read_text())
    assert record["sha256"] == {name: hashlib.sha256(server.files[name]).hexdigest() for name in record["sha256"]}
    assert record["sizes"] == {name: len(server.files[name]) for name in record["sha256"]}
    assert set(record["sha256"]) == {"generator.ckpt", "hyperparams.yaml"}
    assert record["licence"] == "apache-2.0"

    asked = list(server.asked)
    assert fetch(REPO + revision, tmp_path, server.url) == (verdict, folder)
    assert server.asked == asked
    assert fetch(REPO + revision, tmp_path, "http://127.0.0.1:9", offline=True) == (verdict, folder)


def test_changed_file_in_the_cache(server: Hub, tmp_path: Path) -> None:
    _, folder = fetch(REPO, tmp_path, server.url)
    for name in ("hyperparams.yaml", "generator.ckpt"):
        file = (Path(folder) / name).resolve()
        kept = file.read_bytes()
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        verdict, message = fetch(REPO, tmp_path, server.url)
        assert verdict == "REFUSED"
        assert name in message
        assert "SHA-256" in message
        file.write_bytes(kept)
    assert fetch(REPO, tmp_path, server.url)[0] == "FOLDER"
    record = next(tmp_path.rglob("fastvoc-*.json"))
    for text in ("{", "[]", '{"sha256": {"a": 1}, "sizes": {}, "licence": null}'):
        record.write_text(text)
        assert fetch(REPO, tmp_path, server.url)[0] == "REFUSED"
    record.unlink()
    assert fetch(REPO, tmp_path, server.url)[0] == "FOLDER"


def test_the_hubs_own_checksum_is_recorded(server: Hub, tmp_path: Path) -> None:
    _, folder = fetch(REPO, tmp_path, server.url)
    record = next(tmp_path.rglob("fastvoc-*.json"))
    stated = hashlib.sha256(server.files["generator.ckpt"]).hexdigest()
    assert json.loads(record.read_text())["sha256"]["generator.ckpt"] == stated
    # A cache that names its blobs otherwise still has the record to be compared with.
    file = Path(folder) / "generator.ckpt"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-1] + b"?")
    verdict, message = fetch(REPO, tmp_path, server.url)
    assert verdict == "REFUSED"
    assert stated in message


def test_content_that_is_not_what_the_hub_states(server: Hub, tmp_path: Path) -> None:
    server.stated["generator.ckpt"] = b"something else"
    verdict, message = fetch(REPO, tmp_path, server.url)
    assert verdict == "REFUSED"
    assert "generator.ckpt" in message


def test_files_cached_by_another_program(server: Hub, tmp_path: Path) -> None:
    _, folder = fetch(REPO, tmp_path, server.url)
    next(tmp_path.rglob("fastvoc-*.json")).unlink()
    assert fetch(REPO, tmp_path, server.url, offline=True) == ("FOLDER", folder)
    assert len(list(tmp_path.rglob("fastvoc-*.json"))) == 1
    next(tmp_path.rglob("fastvoc-*.json")).unlink()
    file = (Path(folder) / "generator.ckpt").resolve()
    file.write_bytes(b"changed")  # the cache names the file by its checksum, so even without a record this shows
    assert fetch(REPO, tmp_path, server.url, offline=True)[0] == "REFUSED"


# Without offline mode huggingface_hub tries again for half a minute.
@pytest.mark.parametrize("offline", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["offline", "no server"])
def test_uncached_and_unreachable(offline: bool, tmp_path: Path) -> None:
    verdict, message = fetch(f"{REPO}@v2", tmp_path, "http://127.0.0.1:9", offline)
    assert verdict == "REFUSED"
    assert f"hf download {REPO} --revision v2" in message


def test_unknown_repository(server: Hub, tmp_path: Path) -> None:
    verdict, message = fetch("nobody/nothing", tmp_path, server.url)
    assert verdict == "REFUSED"
    assert "nobody/nothing" in message
    server.files = {"README.md": b"no weights"}
    verdict, message = fetch(REPO, tmp_path, server.url)
    assert verdict == "REFUSED"
    assert "no weights file" in message


def test_names() -> None:
    for name in ("microsoft/speecht5_hifigan", "a/b", "a/b@main", "a/b@refs/pr/3", "a-b.c/d_e"):
        assert hub.is_hub_id(name)
    for name in ("a", "a/b/c", "/a/b", "./a b/c", "a/b@", "../x y", "", "a/", "http://a/b"):
        assert not hub.is_hub_id(name)
    with pytest.raises(LoadError, match="owner/name"):
        hub.fetch("a/b/c")


@pytest.mark.parametrize("model", hub.KNOWN, ids=lambda model: model.repo)
def test_files_of_known_models(model: hub.HubModel) -> None:
    """A repository that holds more than the vocoder: only the vocoder's files are wanted."""
    names = [*(model.files or ("config.json", "model.safetensors")), "README.md", "llm.pt", "flow.pt", "ve.safetensors"]
    needed = hub._needed(model.repo, names)
    assert set(needed) == set(model.files or ("config.json", "model.safetensors"))
    assert hub._needed(model.repo, [name for name in names if name not in needed[-1:]]) != needed


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_all_shards_are_wanted(kind: str) -> None:
    stem = "model" if kind == "safetensors" else "pytorch_model"
    index, shards = f"{stem}.{kind}.index.json", [f"{stem}-{i:05}-of-00003.{kind}" for i in (1, 2, 3)]
    names = ["README.md", "config.json", index, *shards, f"{stem}-x-of-00003.{kind}"]
    assert set(hub._needed("a/b", names)) == {"config.json", index, *shards}
    for lost in shards:  # an interrupted download is no cached model
        assert not hub._needed("a/b", [name for name in names if name != lost])


def test_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, options: hub.Options) -> Path:
        asked.append(name)
        raise LoadError("asked")

    monkeypatch.setattr(hub, "fetch", fetch)
    for name in hub.ALIASES:
        with pytest.raises(LoadError, match="asked"):
            loading.load(name)
    assert asked == list(hub.ALIASES.values())
    assert {"hiftnet", "vocos", "encodec", "bigvgan", "dac", "snac", "mimi"} <= hub.ALIASES.keys()
    assert {model.repo for model in hub.KNOWN} >= set(asked)


def test_models_tell_what_the_hub_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = hub.HubFacts({"x": "0"}, {"a": 1_000_000, "b": 500_000}, "mit")
    monkeypatch.setattr(hub, "facts", lambda repo: told if repo.startswith("nvidia/") else hub.HubFacts())
    listed = {model.name: model for model in loading.list_models()}
    known = listed["nvidia/bigvgan_v2_24khz_100band_256x"]
    assert (known.size, known.licence) == (1_500_000, "mit")
    unknown = listed["charactr/vocos-mel-24khz"]
    assert (unknown.size, unknown.licence, unknown.cached) == (None, "unknown", False)


def test_cards_state_the_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fetch(name: str, options: hub.Options) -> Path:
        cached = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "0123"
        return shutil.copytree(DATA / "speechbrain", cached)

    monkeypatch.setattr(hub, "fetch", fetch)
    assert loading.read_checkpoint("speechbrain/tts-hifigan-libritts-16kHz").config.sample_rate == 16000
    assert loading.read_checkpoint("speechbrain/tts-hifigan-ljspeech").config.sample_rate == 22050
    assert loading.read_checkpoint("someone/else").config.sample_rate == 22050
