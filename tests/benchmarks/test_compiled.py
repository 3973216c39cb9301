"""benchmarks/compiled.py: a step compiled for an H100, without one."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import roofline

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAM = """
HloModule step

%fused (p: bf16[4,8], q: bf16[64,8]) -> bf16[64,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  %q = bf16[64,8]{1,0} parameter(1)
  %i = s32[] constant(3)
  ROOT %u = bf16[64,8]{1,0} dynamic-update-slice(%q, %p, %i, %i)
}

%body (s: (f32[8])) -> (f32[8]) {
  %s = (f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%s), index=0
  %y = f32[8]{0} add(%x, %x), metadata={op_name="jit(run)/while/body/add"}
  ROOT %t = (f32[8]{0}) tuple(%y)
}

ENTRY %main (a: bf16[64,16], b: bf16[16,8], c: bf16[4,8], d: (f32[8])) -> bf16[64,8] {
  %a = bf16[64,16]{1,0} parameter(0)
  %b = bf16[16,8]{1,0} parameter(1)
  %c = bf16[4,8]{1,0} parameter(2)
  %d = (f32[8]{0}) parameter(3)
  %g = (bf16[64,8]{1,0}, s8[4194304]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", \
metadata={op_name="jit(run)/mlp/up_proj/dot_general"}, backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"lhs_batch_dimensions":[]}}}
  %h = bf16[64,8]{1,0} get-tuple-element(%g), index=0
  %w = (f32[8]{0}) while(%d), condition=%c, body=%body
  ROOT %f = bf16[64,8]{1,0} fusion(%c, %h), kind=kLoop, calls=%fused
}
"""


def test_kernels_of_a_program():
    """A product, a loop of unknown length, and a fusion that writes four rows in place."""
    found = roofline.kernels(PROGRAM, trips=15)
    assert [(k.kind, k.count, k.flops, k.nbytes) for k in found] == [
        ("__cublas$gemm bf16", 1, 2 * 64 * 16 * 8, 2 * (64 * 16 + 16 * 8 + 64 * 8)),
        ("add", 15, 0, 3 * 8 * 4),
        ("fusion", 1, 0, 2 * 2 * 4 * 8),
    ]
    assert found[0].source == "jit(run)/mlp/up_proj/dot_general"


def has_plugin(*names):
    return any(importlib.util.find_spec(name) for name in names)


@pytest.mark.skipif(
    not has_plugin("jax_cuda12_plugin", "jax_cuda13_plugin"),
    reason="compiling for an H100 needs jax[cuda12] or jax[cuda13]",
)
def test_training_on_an_h100_has_fused_attention_and_no_products_in_float32(tmp_path):
    """The default program of 7B shapes, from its short forms."""
    out = tmp_path / "compiled.json"
    command = [sys.executable, BENCHMARKS / "compiled.py", "--only", "sft, sel", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (program,) = json.loads(out.read_text())["programs"]
    kinds, (decoder, tower) = program["kernels"], (32, 23)
    attention = {kind: n for kind, n in kinds.items() if "fmha" in kind}
    backward = sum(n for kind, n in attention.items() if "Backward" in kind)
    assert backward == decoder
    forward = sum(attention.values()) - backward
    assert forward == decoder + tower, "once each, and not again for the backward pass"
    assert not [kind for kind in kinds if kind.endswith("f32 batched")]
    assert program["totals"]["GB"] < 500
    assert program["totals"]["GiB"] < 45
