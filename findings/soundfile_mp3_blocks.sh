#!/usr/bin/env bash
# Reads of an MP3 of variable bit rate in blocks by soundfile differ from one read of it all, and without its Xing header
# most of the sound is not read. Exits with 0 while that is so, with 1 when it has changed.
# The cause of the first: SoundFile.read seeks to where it is after each read, and the decoder then lacks the bits that
# the next frame takes from those before. Of the second: the length is the file's divided by the first frame's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q soundfile==0.14.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - 2> "$folder/decoder.log" <<'PYTHON'
import io
import sys

import numpy as np
import soundfile as sf

print(f"soundfile {sf.__version__}, {sf.__libsndfile_version__}, numpy {np.__version__}")
time = np.arange(20 * 22050) / 22050
wave = 0.3 * np.sin(2 * np.pi * 440 * time) * (np.sin(2 * np.pi * 0.3 * time) > 0)
wave += 0.05 * np.random.default_rng(0).standard_normal(len(time)) * (np.sin(2 * np.pi * 0.7 * time) > 0.2)
buffer = io.BytesIO()
sf.write(buffer, wave, 22050, format="MP3", bitrate_mode="VARIABLE", compression_level=0.6)
data = buffer.getvalue()


def blocks(size):
    with sf.SoundFile(io.BytesIO(data)) as file:
        return np.concatenate([np.array(b) for b in file.blocks(size, dtype="float32")])


whole, _ = sf.read(io.BytesIO(data), dtype="float32")
worst = [float(np.abs(blocks(size) - whole).max()) for size in (1152, 4096, 65536)]
print("largest difference of blocks of 1152, 4096, 65536 samples from one read, of 1:", *(f"{w:.3f}" for w in worst))

# The first frame (MPEG 2, layer III, 22050 Hz) holds the Xing header and no sound.
kbit = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)[(data[2] >> 4) - 1]
first = 72 * kbit * 1000 // 22050 + (data[2] >> 1 & 1)
assert b"Xing" in data[:first], "no Xing header in the first frame"
bare, _ = sf.read(io.BytesIO(data[first:]), dtype="float32")
print(f"samples written {len(wave)}, read {len(whole)}, read without the Xing header {len(bare)}")
sys.exit(0 if max(worst) > 0.01 and len(bare) < 0.9 * len(wave) else 1)
PYTHON
echo "the decoder's messages: $(wc -l < "$folder/decoder.log"), the first: $(head -n 1 "$folder/decoder.log")"
