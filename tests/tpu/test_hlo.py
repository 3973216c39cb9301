"""What is read from the text of compiled programs; that the format is still XLA's, see
test_lowering.py.
"""

import pytest
from hlo import Collective, collectives, moved, runs

TEXT = """
HloModule step

%body (s: (f32[32])) -> (f32[32]) {
  %s = (f32[32]{0}) parameter(0)
  %x = f32[32]{0} get-tuple-element(%s), index=0
  %y = f32[32]{0} all-reduce(%x), channel_id=4, replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %t = (f32[32]{0}) tuple(%y)
}

%async (p: bf16[8,48]) -> bf16[32,48] {
  %p = bf16[8,48]{1,0} parameter(0)
  ROOT %g = bf16[32,48]{1,0} all-gather(%p), channel_id=1, replica_groups={{0,2,4,6},{1,3,5,7}}
}

%below (s: (f32[32], s32[])) -> pred[] {
  %s2 = (f32[32]{0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s2), index=1
  %n = s32[]{:T(128)} constant(5)
  %all = pred[] all-reduce(%i), channel_id=5, replica_groups={{0,1}}
  ROOT %l = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: bf16[8,48], d: (f32[32])) -> bf16[8,48] {
  %a = bf16[8,48]{1,0} parameter(0)
  %d = (f32[32]{0}) parameter(1)
  %begun = bf16[32,48]{1,0} fusion(%a), kind=kCustom, calls=%async
  %ended = bf16[32,48]{1,0} fusion(%a), kind=kCustom, calls=%async
  %w = (f32[32]{0}) while(%d), condition=%c, body=%body
  %again = (f32[32]{0}) while(%d), condition=%c, body=%known, \
backend_config={"known_trip_count":{"n":"3"}}
  %known_below = (f32[32]{0}, s32[]) while(%d), condition=%below, body=%unrolled
  %v = bf16[8,48]{1,0:T(8,128)(2,1)S(1)} copy(%a)
  %s = (bf16[8,48]{1,0:T(8,128)(2,1)S(1)}, bf16[8,48]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}, \
u32[]{:S(2)}) collective-permute-start(%v), channel_id=2, source_target_pairs={{0,1},{1,0}}
  %r = bf16[2,48]{1,0:S(1)} reduce-scatter(%a), replica_groups=mesh['a'=4,'b'=2] {'a'}
  ROOT %m = bf16[8,48]{1,0} negate(%a)
}

%known (s: (f32[32])) -> (f32[32]) {
  %k = (f32[32]{0}) parameter(0)
  ROOT %o = f32[32]{0} negate(%k)
}
"""
TEXT += """
%unrolled (s: (f32[32], s32[])) -> (f32[32], s32[]) {
  %s3 = (f32[32]{0}, s32[]) parameter(0)
  %f = f32[32]{0} get-tuple-element(%s3), index=0
  %j = s32[] get-tuple-element(%s3), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%j, %two)
  %o = f32[32]{0} negate(%f)
  ROOT %t2 = (f32[32]{0}, s32[]) tuple(%o, %next)
}
"""
SIZES = {"data": 2, "fsdp": 2, "tensor": 2}


def test_collectives_with_their_groups_and_counts():
    found = list(collectives(TEXT, trips=31))
    assert found == [
        Collective("all-gather", "bf16", (32, 48), (0, 2, 4, 6)),
        Collective("all-reduce", "f32", (32,), (0, 1), 31),
        Collective("all-reduce", "pred", (), (0, 1), 3),  # in a condition
        Collective("collective-permute", "bf16", (8, 48), (0, 1)),
        Collective("reduce-scatter", "bf16", (2, 48), (0, 2, 4, 6)),
    ]
    ways = ["data+fsdp", *["tensor"] * 3, "data+fsdp"]
    assert [c.where(SIZES) for c in found] == [f"along {axes}" for axes in ways]


def test_the_first_turn_of_a_loop_may_stand_before_it():
    """With the same channels; the counter then starts at 1."""
    gather = "all-gather(%x), channel_id=7, replica_groups={{0,1}}"
    text = f"""
%body (s: (bf16[8], s32[])) -> (bf16[8], s32[]) {{
  %s = (bf16[8]{{0}}, s32[]) parameter(0)
  %x = bf16[8]{{0}} get-tuple-element(%s), index=0
  %i = s32[] get-tuple-element(%s), index=1
  %g = bf16[16]{{0}} {gather}
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %t = (bf16[8]{{0}}, s32[]) tuple(%x, %next)
}}

%below (s: (bf16[8], s32[])) -> pred[] {{
  %s2 = (bf16[8]{{0}}, s32[]) parameter(0)
  %j = s32[] get-tuple-element(%s2), index=1
  %n = s32[] constant(32)
  ROOT %l = pred[] compare(%j, %n), direction=LT
}}

ENTRY %main (x: bf16[8]) -> (bf16[8], s32[]) {{
  %x = bf16[8]{{0}} parameter(0)
  %peeled = bf16[16]{{0}} {gather}
  %first = s32[] constant(1)
  %copied = s32[] copy(%first)
  %d = (bf16[8]{{0}}, s32[]) tuple(%x, %copied)
  ROOT %w = (bf16[8]{{0}}, s32[]) while(%d), condition=%below, body=%body
}}
"""
    assert [c.count for c in collectives(text)] == [1, 31]


def test_a_sum_of_which_a_slice_is_kept_is_a_reduce_scatter():
    text = """
%all-reduce-scatter (input: f32[1024,32]) -> f32[256,32] {
  %input = f32[1024,32]{0,1:T(8,128)} parameter(0)
  %sum = f32[1024,32]{0,1} all-reduce(%input), channel_id=7, replica_groups={{0,1,2,3}}
  %id = u32[] partition-id()
  %zero = u32[] constant(0)
  ROOT %part = f32[256,32]{0,1:T(8,128)S(1)} dynamic-slice(%sum, %id, %zero)
}

ENTRY %main (x: f32[1024,32]) -> f32[256,32] {
  %x = f32[1024,32]{0,1} parameter(0)
  ROOT %out = f32[256,32]{0,1} fusion(%x), kind=kCustom, calls=%all-reduce-scatter
}
"""
    (found,) = collectives(text)
    assert found == Collective("reduce-scatter", "f32", (256, 32), (0, 1, 2, 3))
    assert found.received == 3 * 256 * 32 * 4


def test_what_slices_exchange_is_received_from_the_host():
    """As a TPU's chips write it: with the slices, or with all their chips."""
    runtime = '_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale'
    text = f"""
ENTRY %main (x: bf16[14,128]) -> bf16[14,128] {{
  %x = bf16[14,128]{{1,0}} parameter(0)
  %token = token[] after-all()
  %send.7 = (bf16[14,128]{{1,0}}, u32[], token[]) send(%x, %token), channel_id=2, \
is_host_transfer=true, frontend_attributes={{{runtime}_target="{{1,2,3}}x{{0:15}}",\
_xla_megascale_transfer_type="ALL_REDUCE"}}
  %recv.7 = (bf16[14,128]{{1,0}}, u32[], token[]) recv(%token), channel_id=1, \
is_host_transfer=true, frontend_attributes={{{runtime}_target="{{1,2,3}}x{{0:15}}",\
_xla_megascale_transfer_type="ALL_REDUCE"}}
  %recv.8 = (bf16[8,264]{{1,0}}, u32[], token[]) recv(%token), channel_id=3, \
frontend_attributes={{{runtime}_target={{{{100000,100001,200000,200001}}}},\
_xla_megascale_transfer_type="ALL_TO_ALL"}}
  ROOT %y = bf16[14,128]{{1,0}} negate(%x)
}}
"""
    found = list(collectives(text))
    assert found == [
        Collective("all-reduce", "bf16", (14, 128), slices=3),
        Collective("all-to-all", "bf16", (8, 264), slices=2),
    ]
    assert [c.received for c in found] == pytest.approx([4 / 3 * 14 * 128 * 2, 8 * 264 * 2 / 2])
    assert [c.where(SIZES) for c in found] == ["between 3 slices", "between 2 slices"]


@pytest.mark.parametrize(
    ("operation", "received"),
    [
        ("all-gather", 3 / 4),
        ("all-to-all", 3 / 4),
        ("all-reduce", 6 / 4),
        ("reduce-scatter", 3),
        ("collective-permute", 1),
    ],
)
def test_bytes_that_a_device_receives_from_three_others(operation, received):
    """Of a result of 64 bytes."""
    assert Collective(operation, "f32", (16,), (0, 1, 2, 3)).received == received * 64


def test_trips_of_loops():
    """As XLA writes them, as counter and condition have them (0, 2, 4 are below 5), or as the
    caller knows them.
    """
    counts = [run.count for run in runs(TEXT, trips=31) if run.line.name == "o"]
    assert counts == [3, 3]
    assert {run.count for run in runs(TEXT, trips=31) if run.line.name == "y"} == {31}


def test_bytes_of_memory_are_those_of_hbm_alone():
    by_name = {run.line.name: moved(run) for run in runs(TEXT, trips=1)}
    assert by_name["m"] == 2 * 8 * 48 * 2
    assert by_name["s"] == 8 * 48 * 2, "what is sent lies in VMEM"
    assert by_name["r"] == 8 * 48 * 2, "what it makes lies in VMEM"


BRANCHES = """
%little (p: f32[8]) -> f32[8] {
  ROOT %p = f32[8]{0} parameter(0)
}

%much (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %sum = f32[8]{0} all-reduce(%q), replica_groups={{0,1}}
}

ENTRY %main (x: f32[8], which: pred[]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %which = pred[] parameter(1)
  ROOT %one = f32[8]{0} conditional(%which, %x, %x), BODIES
}
"""


@pytest.mark.parametrize(
    "bodies",
    [
        "branch_computations={%little, %much}",
        "true_computation=%little, false_computation=%much",
        "true_computation=%much, false_computation=%little",
    ],
)
def test_of_branches_the_one_that_moves_most_counts(bodies):
    (found,) = collectives(BRANCHES.replace("BODIES", bodies))
    assert found == Collective("all-reduce", "f32", (8,), (0, 1))


def test_an_exchange_that_is_begun_reads_its_source_and_writes_its_result():
    text = """
ENTRY %main (x: f32[8]) -> f32[32] {
  %x = f32[8]{0} parameter(0)
  %begun = (f32[8]{0}, f32[32]{0}) all-gather-start(%x), replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %done = f32[32]{0} all-gather-done(%begun)
}
"""
    assert sum(moved(run) for run in runs(text, trips=1)) == (8 + 32) * 4
