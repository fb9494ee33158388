#!/usr/bin/env python3
"""Writes tests/data/dequant_golden.json: random packed blocks of every quantised type that we read
and what the Python package `gguf` (0.17 or later, on numpy) makes of them, as little-endian hex.

    python3 -m venv v && v/bin/pip install gguf
    v/bin/python tests/oracle/make_dequant_golden.py > tests/data/dequant_golden.json
"""
import json

import gguf
import numpy as np

BLOCKS = 6
TYPES = {
    # name: (offsets of the f16 numbers in a block)
    "F16": (0,),
    "BF16": (),
    "Q8_0": (0,),
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q6_K": (208,),
}


def main():
    rng = np.random.default_rng(20261124)
    out = {}
    for name, halves in TYPES.items():
        kind = gguf.GGMLQuantizationType[name]
        _, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = BLOCKS if name != "Q6_K" else 3
        if size == 2:
            blocks = 64
        packed = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
        for at in halves:
            # Scales of real size, of both signs, one of them subnormal.
            scale = (rng.standard_normal(blocks) * 0.05).astype(np.float16)
            scale[0] = np.float16(3e-7)
            packed[:, at : at + 2] = scale.view(np.uint8).reshape(blocks, 2)
        if name == "BF16":
            packed[:, 1] &= 0xBF  # below 2: no infinity, no NaN
        values = gguf.quants.dequantize(packed.reshape(1, -1), kind).astype("<f4").reshape(-1)
        out[name] = {"packed": packed.tobytes().hex(), "values": values.tobytes().hex()}
    print(json.dumps(out, indent=1))


main()
