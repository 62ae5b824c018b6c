"""The kinds of quantisation that llama.cpp makes without an importance matrix."""

from __future__ import annotations

KINDS = {
    "F32": 0,
    "F16": 1,
    "BF16": 32,
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q5_K_S": 16,
    "Q5_1": 9,
    "Q5_0": 8,
    "Q4_K_M": 15,
    "Q4_K_S": 14,
    "Q4_1": 3,
    "Q4_0": 2,
    "Q3_K_L": 13,
    "Q3_K_M": 12,
    "Q3_K_S": 11,
    "Q2_K": 10,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "IQ3_M": 27,
    "IQ3_S": 26,
    "TQ2_0": 37,
    "TQ1_0": 36,
    "MXFP4_MOE": 38,
    "Q2_0": 41,
    "Q1_0": 40,
}
"""By the names that llama.cpp's own tool has for them: llama.cpp's `llama_ftype`.

The others (the smallest of the IQ family, and Q2_K_S) need to know which weights matter. NVFP4 it only reads.
"""
