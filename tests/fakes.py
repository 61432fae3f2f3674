"""A dataset that needs no files."""

import torch

import robustvid as rv


class FakeVideos:
    """Random clips labelled by a model, one in six wrongly."""

    name, split, classes = "fake", "test", ("a", "b", "c", "d")

    def __init__(self, model, count=24):
        self.model, self.count, self.digest = model, count, "fake-v1"

    def __len__(self):
        return self.count

    def sample(self, index, clip):
        generator = torch.Generator().manual_seed(index)
        frames = torch.randint(60, 200, (clip.frames, *clip.size, 3), generator=generator, dtype=torch.uint8)
        with rv.frozen(self.model), torch.no_grad():
            label = int(self.model(frames.permute(3, 0, 1, 2)[None] / 255).argmax())
        return rv.Sample(f"fake/{index:03d}", frames, (label + (index % 6 == 0)) % 4)
