"""Makes the lists `<dialect>.txt` and the golden folders `tests/data/<dialect>` from the upstream packages.

Run once per package version, in an environment with torch, numpy, pyyaml, safetensors and h5py:
`python make.py <folder> <tests/data>`, where <folder> holds one unpacked distribution per name in _PACKAGES. Only the
generators' own source files run; their other imports are replaced by empty stand-ins. No code of upstream is kept.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import io
import json
import math
import sys
import tarfile
import types
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml
from safetensors.torch import save_file

_PACKAGES = ("parallel_wavegan", "espnet", "coqui_tts", "speechbrain", "nemo_toolkit")
_REAL = {"torch", "numpy", "yaml", "parallel_wavegan", "espnet2", "TTS", "speechbrain", "nemo"}
HERE = Path(__file__).parent
V1 = {
    "kernels": [3, 7, 11],
    "dilations": [[1, 3, 5]] * 3,
    "rates": [8, 8, 2, 2],
    "up": [16, 16, 4, 4],
    "channels": 512,
}
SMALL = {"kernels": [3, 5], "dilations": [[1, 2, 3], [1, 3, 5]], "rates": [4, 2], "up": [8, 4], "channels": 16}
MELS = 12


class _StandIn(types.ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        class Anything:
            def __init__(self, *args, **kwargs): ...

            def __new__(cls, *args, **kwargs):
                # As a decorator it leaves the function alone.
                plain = len(args) == 1 and callable(args[0]) and not kwargs
                return args[0] if plain else super().__new__(cls)

            def __call__(self, function=None, *args, **kwargs):
                return function

            def __class_getitem__(cls, item):
                return cls

        Anything.__name__ = name
        return Anything


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last on the path: supplies a stand-in for whatever third-party module is not installed."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = _StandIn(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module): ...


def bare_package(name: str, folder: Path) -> None:
    """Registers a package without running its `__init__`."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def lively(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Random weights that keep the signal's level; weight norm's g differs from the norm of v."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("weight_g", "original0")):
                p.uniform_(0.7, 1.1).mul_(math.sqrt(2.0) if "up" in name else 0.8)
            elif name.endswith(("weight_v", "original1")):
                p.normal_()
            else:
                p.uniform_(-0.1, 0.1)
    return model.eval()


def write_list(dialect: str, label: str, call: str, state: dict[str, torch.Tensor]) -> None:
    path = HERE / f"{dialect}_{label}.txt"
    lines = [f"# {call}"] + [f"{name} {' '.join(map(str, t.shape))}" for name, t in state.items()]
    path.write_text("\n".join(lines) + "\n")


def save_io(folder: Path, mel: torch.Tensor, wav: torch.Tensor) -> None:
    assert 0.05 < wav.std() < 0.7, (folder, wav.std())  # neither vanishing nor saturated
    save_file({"in.mel": mel.contiguous(), "out.wav": wav.contiguous()}, folder / "io.safetensors")


def mels(frames: int = 40) -> torch.Tensor:
    return torch.randn(2, MELS, frames, generator=torch.Generator().manual_seed(7)) * 2 - 4


def dump(path: Path, value: object) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False))


def version(root: Path, package: str) -> str:
    info = next(root.glob(f"{package}/*.dist-info"), None) or next(root.glob(f"{package}/*"))
    return info.name.removesuffix(".dist-info").rsplit("-", 1)[1]


def parallel_wavegan(root: Path, data: Path) -> None:
    home = next(root.glob("parallel_wavegan/*/parallel_wavegan"))
    for part in ("", ".layers", ".models", ".utils"):
        bare_package(f"parallel_wavegan{part}", home / part[1:])
    sys.modules["parallel_wavegan.utils"].read_hdf5 = lambda file, name: np.array(h5py.File(file)[name])
    residual = importlib.import_module("parallel_wavegan.layers.residual_block")
    causal = importlib.import_module("parallel_wavegan.layers.causal_conv")
    for source in (residual, causal):
        vars(sys.modules["parallel_wavegan.layers"]).update(vars(source))
    hifigan = importlib.import_module("parallel_wavegan.models.hifigan")

    def params(size: dict, **more) -> dict:
        return {
            "in_channels": MELS if size is not V1 else 80,
            "out_channels": 1,
            "channels": size["channels"],
            "kernel_size": 7,
            "upsample_scales": size["rates"],
            "upsample_kernel_sizes": size["up"],
            "resblock_kernel_sizes": size["kernels"],
            "resblock_dilations": size["dilations"],
            "nonlinear_activation": "LeakyReLU",
            "use_additional_convs": True,
            "bias": True,
            **more,
        }

    odd = {**SMALL, "rates": [5, 2], "up": [10, 4]}
    cases = {
        "parallel_wavegan": params(odd, nonlinear_activation_params={"negative_slope": 0.2}),
        "parallel_wavegan_plain": params(
            odd, use_additional_convs=False, bias=False, nonlinear_activation_params={"negative_slope": 0.1}
        ),
    }
    named = f"parallel_wavegan {version(root, 'parallel_wavegan')} HiFiGANGenerator"
    write_list(
        "parallel_wavegan", "v1", f"{named}(**{params(V1)})", hifigan.HiFiGANGenerator(**params(V1)).state_dict()
    )
    for case, arguments in cases.items():
        folder = data / case
        folder.mkdir(parents=True, exist_ok=True)
        model = lively(hifigan.HiFiGANGenerator(**arguments), 1)
        write_list(case, "small", f"{named}(**{arguments})", model.state_dict())
        state = {"generator": model.state_dict(), "discriminator": {"d.weight": torch.zeros(3)}}
        torch.save(
            {"model": state, "optimizer": {"generator": {}}, "steps": 3, "epochs": 1}, folder / "checkpoint-3steps.pkl"
        )
        generator = torch.Generator().manual_seed(3)
        mean, scale = torch.randn(MELS, generator=generator) - 4, torch.rand(MELS, generator=generator) + 1.5
        if case == "parallel_wavegan":
            for mode, name, value in (("w", "mean", mean), ("r+", "scale", scale)):
                with h5py.File(folder / "stats.h5", mode) as file:
                    file.create_dataset(name, data=value.numpy())
            model.register_stats(str(folder / "stats.h5"))
        else:
            np.save(folder / "stats.npy", np.stack([mean.numpy(), scale.numpy()]))
            model.register_stats(str(folder / "stats.npy"))
        params_ = dict(arguments)
        params_["upsample_kernal_sizes"] = params_.pop("upsample_kernel_sizes")  # as in the published recipes
        config = {"sampling_rate": 24000, "fft_size": 64, "hop_size": 10, "win_length": None, "window": "hann"}
        config |= {"num_mels": MELS, "fmin": 80, "fmax": 7600, "global_gain_scale": 1.0, "format": "hdf5"}
        dump(folder / "config.yml", {**config, "generator_type": "HiFiGANGenerator", "generator_params": params_})
        with torch.no_grad():
            wav = torch.stack([model.inference(item.T, normalize_before=True).T for item in mels()])
        save_io(folder, mels(), wav)


def espnet(root: Path, data: Path) -> None:
    home = root / "espnet"
    sys.path.insert(0, str(home))
    for part in ("", ".gan_tts", ".gan_tts.hifigan"):
        bare_package(f"espnet2{part}", home / "espnet2" / part[1:].replace(".", "/"))
    hifigan = importlib.import_module("espnet2.gan_tts.hifigan.hifigan")
    arguments = {
        "in_channels": MELS,
        "channels": 16,
        "upsample_scales": [3, 2],
        "upsample_kernel_sizes": [6, 4],
        "resblock_kernel_sizes": [3, 5],
        "resblock_dilations": [[1, 2, 3], [1, 3, 5]],
        "bias": False,
        "nonlinear_activation_params": {"negative_slope": 0.15},
    }
    named = f"espnet {version(root, 'espnet')} espnet2.gan_tts.hifigan.HiFiGANGenerator"
    write_list("espnet", "v1", f"{named}()", hifigan.HiFiGANGenerator().state_dict())
    model = lively(hifigan.HiFiGANGenerator(**arguments), 2)
    write_list("espnet", "small", f"{named}(**{arguments})", model.state_dict())
    folder = data / "espnet"
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"tts.generator.vocoder.{k}": v for k, v in model.state_dict().items()}
    torch.save(
        {"normalize.mean": torch.zeros(MELS), "tts.generator.text2mel.x.weight": torch.zeros(2), **state},
        folder / "train.pth",
    )
    vocoder = {k: v for k, v in arguments.items() if k != "in_channels"}
    conf = {"sampling_rate": 22050, "vocoder_type": "hifigan_generator", "vocoder_params": vocoder}
    dump(folder / "config.yaml", {"tts": "joint_text2wav", "odim": MELS, "tts_conf": conf, "normalize": "global_mvn"})
    with torch.no_grad():
        save_io(folder, mels(), model(mels()))


def coqui_generators(root: Path) -> types.ModuleType:
    home = root / "coqui_tts" / "TTS"
    for part in ("", ".vocoder", ".vocoder.models"):
        bare_package(f"TTS{part}", home / part[1:].replace(".", "/"))
    return importlib.import_module("TTS.vocoder.models.hifigan_generator")


def coqui(root: Path, data: Path) -> None:
    hifigan = coqui_generators(root)

    def arguments(size: dict, **more) -> dict:
        return {
            "resblock_type": "1",
            "resblock_dilation_sizes": size["dilations"],
            "resblock_kernel_sizes": size["kernels"],
            "upsample_kernel_sizes": size["up"],
            "upsample_initial_channel": size["channels"],
            "upsample_factors": size["rates"],
            **more,
        }

    named = f"coqui-tts {version(root, 'coqui_tts')} TTS.vocoder.models.hifigan_generator.HifiganGenerator"
    full = hifigan.HifiganGenerator(80, 1, **arguments(V1))
    write_list("coqui", "v1", f"{named}(80, 1, **{arguments(V1)})", full.state_dict())
    small = arguments(SMALL, conv_post_bias=False)
    model = lively(hifigan.HifiganGenerator(MELS, 1, **small), 3)
    write_list("coqui", "small", f"{named}({MELS}, 1, **{small})", model.state_dict())
    folder = data / "coqui"
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"model_g.{k}": v for k, v in model.state_dict().items()} | {"model_d.x.weight": torch.zeros(3)}
    torch.save({"config": {"model": "hifigan"}, "model": state, "step": 1}, folder / "best_model.pth")
    audio = {"sample_rate": 22050, "num_mels": MELS, "fft_size": 32, "win_length": 32, "hop_length": 8, "mel_fmin": 0.0}
    audio |= {"mel_fmax": 8000.0, "spec_gain": 1, "signal_norm": False, "log_func": "np.log", "preemphasis": 0.0}
    config = {
        "model": "hifigan",
        "generator_model": "hifigan_generator",
        "generator_model_params": small,
        "audio": audio,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    with torch.no_grad():
        save_io(folder, mels(), model(mels()))


def xtts(root: Path, data: Path) -> None:
    """The decoder of XTTS, whose stages know the speaker: as its model builds it, but narrow."""
    hifigan = coqui_generators(root)
    model = hifigan.HifiganGenerator(
        MELS,
        1,
        "1",
        V1["dilations"],
        V1["kernels"],
        V1["up"],
        16,
        V1["rates"],
        inference_padding=0,
        cond_channels=5,
        conv_pre_weight_norm=False,
        conv_post_weight_norm=False,
        conv_post_bias=False,
        cond_in_each_up_layer=True,
    )
    lively(model, 6)
    folder = data / "xtts"
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"hifigan_decoder.waveform_decoder.{k}": v for k, v in model.state_dict().items()}
    (folder / "config.json").write_text(json.dumps({"model": "xtts", "model_args": {"output_sample_rate": 24000}}))
    speaker = torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(8))
    latent = mels(9) + 4
    with torch.no_grad():
        model.conv_post.weight.mul_(20.0)  # one channel is left of 16
        torch.save({"model": {"gpt.x": torch.zeros(2), **state}}, folder / "model.pth")
        wav = model(latent, g=speaker)
    assert 0.05 < wav.std() < 0.7, wav.std()
    tensors = {"in.latent": latent.contiguous(), "in.speaker": speaker, "out.wav": wav.contiguous()}
    save_file(tensors, folder / "io.safetensors")


def speechbrain(root: Path, data: Path) -> None:
    home = root / "speechbrain" / "speechbrain"
    for part in ("", ".nnet", ".lobes", ".lobes.models", ".processing", ".utils"):
        bare_package(f"speechbrain{part}", home / part[1:].replace(".", "/"))
    hifigan = importlib.import_module("speechbrain.lobes.models.HifiGAN")
    keys = ("resblock_dilation_sizes", "resblock_kernel_sizes", "upsample_kernel_sizes", "upsample_initial_channel")

    def arguments(size: dict, mels_: int, kind: str = "1") -> dict:
        values = (size["dilations"], size["kernels"], size["up"], size["channels"])
        base = {"in_channels": mels_, "out_channels": 1, "resblock_type": kind, **dict(zip(keys, values, strict=True))}
        return base | {
            "upsample_factors": size["rates"],
            "inference_padding": 5,
            "cond_channels": 0,
            "conv_post_bias": True,
        }

    named = f"speechbrain {version(root, 'speechbrain')} speechbrain.lobes.models.HifiGAN.HifiganGenerator"
    write_list(
        "speechbrain",
        "v1",
        f"{named}(**{arguments(V1, 80)})",
        hifigan.HifiganGenerator(**arguments(V1, 80)).state_dict(),
    )
    small = arguments({**SMALL, "dilations": [[1, 2], [2, 6]]}, MELS, "2")
    model = lively(hifigan.HifiganGenerator(**small), 4)
    write_list("speechbrain", "small", f"{named}(**{small})", model.state_dict())
    folder = data / "speechbrain"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "generator.ckpt")
    lines = [f"{key}: {value!r}" for key, value in small.items()]
    lines += ["generator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator"]
    lines += [f"    {key}: !ref <{key}>" for key in small]
    lines += ["modules:", "    generator: !ref <generator>", "__seed: !apply:torch.manual_seed [1234]"]
    (folder / "hyperparams.yaml").write_text("\n".join(lines) + "\n")
    with torch.no_grad():
        save_io(folder, mels(), model(mels()))


def nemo(root: Path, data: Path) -> None:
    home = root / "nemo_toolkit" / "nemo"
    for part in ("", ".collections", ".collections.tts", ".collections.tts.modules"):
        bare_package(f"nemo{part}", home / part[1:].replace(".", "/"))
    for name in ("core", "core.classes", "core.classes.common", "core.classes.module", "core.neural_types"):
        sys.modules[f"nemo.{name}"] = _Finder().create_module(importlib.machinery.ModuleSpec(f"nemo.{name}", None))
    for name in ("core.neural_types.elements", "core.neural_types.neural_type"):
        sys.modules[f"nemo.{name}"] = _Finder().create_module(importlib.machinery.ModuleSpec(f"nemo.{name}", None))
    sys.modules["nemo.core.classes.module"].NeuralModule = torch.nn.Module
    sys.modules["nemo.core.classes.common"].typecheck = lambda: lambda function: function
    modules = importlib.import_module("nemo.collections.tts.modules.hifigan_modules")

    def arguments(size: dict) -> dict:
        return {
            "resblock": 1,
            "upsample_rates": size["rates"],
            "upsample_kernel_sizes": size["up"],
            "upsample_initial_channel": size["channels"],
            "resblock_kernel_sizes": size["kernels"],
            "resblock_dilation_sizes": size["dilations"],
        }

    named = f"nemo_toolkit {version(root, 'nemo_toolkit')} nemo.collections.tts.modules.hifigan_modules.Generator"
    write_list("nemo", "v1", f"{named}(**{arguments(V1)})", modules.Generator(**arguments(V1)).state_dict())
    small = {**arguments(SMALL), "initial_input_size": MELS}
    model = lively(modules.Generator(**small), 5)
    write_list("nemo", "small", f"{named}(**{small})", model.state_dict())
    folder = data / "nemo"
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"generator.{k}": v for k, v in model.state_dict().items()}
    state |= {"audio_to_melspec_precessor.fb": torch.zeros(1, 2), "mpd.discriminators.0.x": torch.zeros(2)}
    weights = io.BytesIO()
    torch.save(state, weights)
    target = "nemo.collections.tts.modules.hifigan_modules.Generator"
    preprocessor = {"_target_": "nemo.collections.asr.parts.preprocessing.features.FilterbankFeatures"}
    preprocessor |= {"nfilt": MELS, "sample_rate": 22050, "n_window_size": 32, "n_window_stride": 8, "n_fft": 32}
    config = yaml.safe_dump({"generator": {"_target_": target, **small}, "preprocessor": preprocessor})
    with tarfile.open(folder / "hifigan.nemo", "w:") as tar:
        for name, content in (("./model_config.yaml", config.encode()), ("./model_weights.ckpt", weights.getvalue())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with torch.no_grad():
        save_io(folder, mels(), model(mels()))


def main() -> None:
    root, data = Path(sys.argv[1]), Path(sys.argv[2])
    sys.meta_path.append(_Finder())
    for make in (parallel_wavegan, espnet, coqui, xtts, speechbrain, nemo):
        make(root, data)


if __name__ == "__main__":
    main()
