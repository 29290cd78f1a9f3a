"""The two tiers of tests: `make test` runs the first, `make check` the rest.

`pytest --tier=test` and `--tier=check` choose one; without the option everything runs. A test belongs to `check` when
a line of LEFT says so. Of a test with several parameters `test` runs combinations in which every value of every one
occurs, with C++ where it can (tests/covering.py), and `check` the others; of three or more both together run those in
which every pair of values occurs, and `make soak` what remains. What says that an op, model, format or stream is
right (WHOLE) runs in all combinations. Property tests run in both: with a few examples first, with all of theirs in
`check` (tests/examples.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from covering import beyond_pairs, selection

TIERS = ("test", "check")


@dataclass(frozen=True)
class Left:
    """Tests left to `make check`: those whose id, without `tests/`, begins with `where` and has no `but` in it."""

    what: str
    where: str
    but: str | None = None

    def has(self, name: str) -> bool:
        return bool(re.match(self.where, name)) and not (self.but and re.search(self.but, name))


_SMOKE = (
    r"takes_plain_tf32|test_equals_the_meaning\[(conv1d-kernel-1|upsample-k4-s2|mrf-one-block|layer_norm-odd"
    r"|istft_head-same|rvq_decode-odd)\]"
)
_FAMILIES = "hifigan-1|hift-sample|vocos-same|codec-mono|int8"
_FORMS = r"checkpoints/test_forms\.py::test_"
_STREAMS = r"streams/test_(fast_)?streams\.py::test_"

LEFT = (
    Left("CUDA kernels, emulated", r"(ops|models)/test_cuda"),
    Left("Triton's compiler", r"ops/test_triton_(ahead|keys)"),
    Left("Triton's interpreter", r"(ops|models)/test_triton", _SMOKE),
    Left("Triton's interpreter", r"ops/test_attention_block.*::test_triton"),
    Left("instruction sets of other machines", r".*::[^[]*instruction_set|reliability/test_golden_isas"),
    Left(
        "bits of further cases", r"ops/test_ops\.py::test_(bfloat16_)?threads", r"odd|encodec|snake|causal|hift|linear"
    ),
    Left("bits of further cases", r"ops/test_op_streams\.py::test_chunks", "cpp|odd|reflect|causal|v1|k4|kernel-1"),
    Left("source builds and wheels", r"packaging/test_build"),
    Left("a first visit of a GPU, rehearsed", r"packaging/test_gpu_script\.py::test_a_first_visit"),
    Left("Triton's interpreter", r"ops/test_stream_rows\.py::test_triton", r"\[dtype0"),
    Left("64-bit Arm, emulated", r"arm/"),
    Left("a local Ray", r"cluster/test_(jobs|service)"),
    Left("sanitizers", r"reliability/test_((coder_)?sanit|fork_join\.py::test_under)"),
    Left("forms of checkpoints", rf"{_FORMS}every_dialect_in_every_form", "parametrizations-bfloat16"),
    Left("forms of checkpoints", rf"{_FORMS}names_of_wrapped_modules", "-both"),
    Left("forms of checkpoints", rf"{_FORMS}shards", "safetensors"),
    Left("long signals", r"models/test_hifigan\.py::test_accuracy_against_float64", "v1-cpp"),
    Left("long signals", r"models/test_toom_cook_choice\.py::test_pieces"),
    Left("long signals", r"models/test_pieces\.py::test_memory_of_a_long_clip"),
    Left("long signals", r"ops/test_nsf_source\.py::test_an_hour_does_not_drift"),
    Left("long signals", r"test_code_agreement\.py::test_a_few_clips"),
    Left("long signals", r"streams/test_long", r"stream\[(hifigan|vocos)"),
    Left("the script for machines with a GPU", r"packaging/test_gpu_script", r"usage|\[build\]"),
    Left("long runs", r"reliability/test_process\.py::test_two_hundred|test_loading\.py::test_two_hundred"),
    Left("processes of their own", r"reliability/test_process\.py::test_a_forked_child", "cpp"),
    Left("processes of their own", r"reliability/test_process\.py::test_(first_call|fork_before|interrupted)"),
    Left(
        "processes of their own",
        r"reliability/test_fork_join\.py::test_two_threads|ops/test_large_pages\.py::test_a_large",
    ),
    Left("processes of their own", r"test_pickling\.py::test_a_process_pool|test_duel\.py::test_a_process_plays"),
    Left(
        "processes of their own",
        r"training/test_(parallel\.py::test_(two|a_failing)|train_command\.py::test_an_interrupt)",
    ),
    Left("processes of their own", r"compat/test_transformers\.py::test_import|cli/test_stream\.py::test_sound_comes"),
    Left("every bit of a stream", r"test_ecdc\.py::test_every_flipped_bit", "mono"),
    Left("long runs", r"test_quantization\.py::test_the_embedded_voice_keeps_32_db"),
    Left("streams of many stages", rf"{_STREAMS}a_stage_cut_anywhere", r"\[(v1|snake-causal)\]"),
    Left("streams of many families", rf"{_STREAMS}closing_returns_all_memory", _FAMILIES),
    Left("streams of many families", rf"{_STREAMS}any_cuts_agree", "cpp|torch-hifigan-1"),
    Left("uses of many families", r"test_(torch_defaults|autocast)\.py::test_(every_use|gradients)", _FAMILIES),
    Left("language models of bit streams", r"cli/test_encode\.py::test_golden_files", r"\[False"),
    Left("language models of bit streams", r"test_compression\.py::test_streams_made_on_any_number_of_threads"),
    Left(
        "further ways to copy a model",
        r"test_pickling\.py::test_a_(narrow_)?model_comes_back",
        rf"({_FAMILIES}|bf16).*-pickle\]",
    ),
    Left("details of other packages' classes", r"compat/test_(config_fields|changed_weights|input_dtypes)\.py"),
    Left("details of other packages' classes", r"compat/test_meta\.py::test_(built|as_a_part)", "encodec|hift|vocos"),
    Left(
        "details of other packages' classes",
        r"compat/test_encodec_transformers\.py::test_(any_c|what_we)",
        "mono|stereo|deep",
    ),
    Left("long signals", r"test_mel_doctor\.py::test_with_the_waveform"),
    Left("further pages", r"test_docs\.py::test_a_page_runs", r"README|getting-started"),
    Left(
        "imports in processes of their own", r"packaging/test_imports\.py::test_(import_is_quick|loading|imports_make)"
    ),
    Left("graphs of further families", r"test_compile\.py::test_compiles", "hifigan-1"),
    Left("exports of further families", r"test_compile\.py::test_exports", "hifigan-1|vocos|encodec"),
    Left("exports of further families", r"exporting/test_export\.py::test_openvino", rf"{_FAMILIES}|snac|kokoro"),
    Left("uses of many families", r"test_load_dtype\.py::test_no_family", _FAMILIES),
)


ANY = re.compile("|".join(f"(?:{left.where})" for left in LEFT))  # most tests are in no line

# Tests with several parameters that the first tier runs in all combinations.
WHOLE = re.compile(
    r".*::[^[]*(golden|equals_the_meaning|equals_the_reference)|ops/test_ops\.py::test_(equals|bfloat16)"
    r"|streams/test_stream\.py::test_any_chunking"
)
COMBINED = Left("further combinations", "")
BEYOND = Left("combinations beyond pairs", "")
# Folders and files of long tests: they begin first, so that no worker is left with one at the end.
LONG = re.compile(r"arm/|cluster/|packaging/|reliability/|training/|ops/test_triton_(ahead|keys)")


def left_by(item: pytest.Item) -> Left | None:
    """The line that leaves a test to `make check`."""
    name = item.nodeid.removeprefix("tests/")
    return next((left for left in LEFT if left.has(name)), None) if ANY.match(name) else None


def stays_whole(item: pytest.Item) -> bool:
    """Whether the first tier runs every combination; what wants a device stands for no other where there is none."""
    return bool(WHOLE.match(item.nodeid.removeprefix("tests/")) or item.get_closest_marker("gpu"))


def choose(tier: str | None, items: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item], Counter[str]]:
    """The tests of a tier, long ones first, the others, and how many of these there are by what they are."""
    line = {item: left_by(item) for item in items}
    several = [item for item, left in line.items() if left is None and not stays_whole(item)]
    first = selection(several)
    line |= {item: COMBINED for item in several if item.nodeid not in first}
    if tier == "check":
        kept = {item.nodeid for item, left in line.items() if left is None}
        spare = beyond_pairs((item for item in line if not stays_whole(item)), kept)
        line |= {item: BEYOND for item in line if item.nodeid in spare}
    chosen, others, counts = [], [], Counter[str]()
    for item, left in line.items():
        in_both = left is None and item.get_closest_marker("hypothesis") is not None
        if tier is None or in_both or (left is not BEYOND and (tier == "check") == (left is not None)):
            chosen.append(item)
        else:
            others.append(item)
            counts[left.what if left else "make test"] += 1
    chosen.sort(key=lambda item: not LONG.match(item.nodeid.removeprefix("tests/")))
    return chosen, others, counts
