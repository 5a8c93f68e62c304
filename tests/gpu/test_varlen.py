"""The variable-length kernel against one SDPA call a segment, forward and backward."""

import pytest
import torch

from rlhf.models.attention import packed_sdpa, packed_varlen
from rlhf.ops.segments import Segment, Segments

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="the variable-length kernel needs a CUDA GPU"),
]

PLAIN = Segments.of_lengths([7, 1, 32])
TREE = Segments((Segment(0, 12), Segment(12, 20, 0, 12), Segment(20, 29, 0, 12), Segment(29, 40)))


@pytest.mark.parametrize("segments", [PLAIN, TREE], ids=["plain", "tree"])
@pytest.mark.parametrize("key_heads", [4, 2], ids=["multi-head", "grouped"])
def test_varlen_equals_sdpa(segments, key_heads):
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(heads):
        tensor = torch.randn(1, heads, 40, 64, device="cuda", dtype=torch.bfloat16, generator=generator)
        return tensor.requires_grad_()

    inputs = (draw(4), draw(key_heads), draw(key_heads))
    weights = torch.randn(1, 40, 4, 64, device="cuda", generator=generator)
    results = []
    for function in (packed_sdpa, packed_varlen):
        output, _ = function(torch.nn.Module(), *inputs, None, segments=segments, scaling=64**-0.5)
        results.append((output, *torch.autograd.grad((output.float() * weights).sum(), inputs)))
    for expected, found in zip(*results, strict=True):
        # bfloat16 keeps 8 bits: two kernels that sum in another order differ by a few of its roundings
        torch.testing.assert_close(found.float(), expected.float(), rtol=3e-2, atol=3e-2)
