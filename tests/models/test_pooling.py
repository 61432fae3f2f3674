import pytest
import torch

from robustvid.models.pooling import POOLINGS, SpatiotemporalAverage, SpatiotemporalMax, TemporalAverage, TemporalMax

RAMP = torch.arange(2 * 3 * 4 * 5 * 6, dtype=torch.float32).reshape(2, 3, 4, 5, 6)  # grows with every index


def test_temporal_pooling_of_maps():
    assert torch.equal(TemporalMax()(RAMP), RAMP[:, :, 3])
    assert torch.equal(TemporalAverage()(RAMP), (RAMP[:, :, 1] + RAMP[:, :, 2]) / 2)


def test_temporal_pooling_of_frame_features():
    features = RAMP[:, :, :, 0, 0]
    assert torch.equal(TemporalMax()(features), features[:, 2])
    assert torch.equal(TemporalAverage()(features), features[:, 1])


def test_boxes_side_by_side():
    assert torch.equal(SpatiotemporalMax((2, 5, 3))(RAMP), RAMP[:, :, 1::2, 4:, 2::3])
    mean = torch.nn.functional.avg_pool3d(RAMP, (2, 5, 3))
    assert torch.equal(SpatiotemporalAverage((2, 5, 3))(RAMP), mean)
    assert mean.shape == (2, 3, 2, 1, 2)


def test_overlapping_boxes():
    pooled = SpatiotemporalMax((2, 1, 1), stride=(1, 1, 1))(RAMP)
    assert torch.equal(pooled, RAMP[:, :, 1:])


def test_a_box_over_the_edge_is_cut_there():
    line = torch.tensor([1.0, 3.0, 5.0]).reshape(1, 1, 3, 1, 1)
    assert SpatiotemporalMax((2, 1, 1))(line).flatten().tolist() == [3.0, 5.0]
    assert SpatiotemporalAverage((2, 1, 1))(line).flatten().tolist() == [2.0, 5.0]


@pytest.mark.parametrize("pool", [SpatiotemporalMax((4, 2, 2)), SpatiotemporalAverage((4, 2, 2))])
def test_a_window_longer_than_the_clip_is_shortened(pool):
    one_frame = RAMP[:, :, :1]
    assert pool(one_frame).shape == (2, 3, 1, 3, 3)


def test_the_poolings_by_name():
    kinds = {"temporal_max": TemporalMax, "spatiotemporal_average": SpatiotemporalAverage}
    assert all(POOLINGS.load(name) is kind for name, kind in kinds.items())
