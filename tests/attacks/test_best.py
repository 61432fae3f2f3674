"""What is kept of each clip: rows go where they belong, however few they are."""

import pytest
import torch

from robustvid.attacks.best import put


@pytest.mark.parametrize(
    ("places", "rows", "count"),
    [([0, 1, 2, 3], [0, 1, 2, 3], 4), ([1, 2, 3], [0, 1, 2], 3), ([1, 3], [0, 2], 4), ([2], [0], 1), ([], [], 4)],
)
def test_rows_are_put_in_their_places(places, rows, count):
    into, clips = torch.zeros(4, 2, 3), torch.rand(count, 2, 3)
    wanted = into.clone()
    wanted[places] = clips[rows]
    put(into, torch.tensor(places, dtype=torch.int64), clips, torch.tensor(rows, dtype=torch.int64))
    assert torch.equal(into, wanted)
