"""Square over space and time: honest queries, blocks of ±ε, and a search that only ever climbs."""

import pytest
import torch
from linear import BUDGETS, B, H, LinearVideo, T, W

import robustvid as rv
from robustvid.attacks import square as module
from robustvid.attacks.square import square
from robustvid.budget import Budget, frames_touched
from robustvid.data.transforms import to_clips
from robustvid.errors import CardError, UnknownNameError
from robustvid.losses import margin
from robustvid.testing import TinyVideoNet


class Counting(torch.nn.Module):
    """Counts clips and keeps margins; its answers carry no gradient, and it refuses to be asked for one."""

    def __init__(self, model, labels=None):
        super().__init__()
        self.model, self.labels, self.shown, self.margins = model, labels, 0, []

    def forward(self, clips):
        assert not clips.requires_grad
        self.shown += len(clips)
        with torch.no_grad():
            logits = self.model(clips)
        if self.labels is not None:
            self.margins.append(margin(logits, self.labels))
        return logits


def problem(count=4, shape=(6, 12, 16)):
    model = TinyVideoNet(4).eval()
    clips = 0.2 + 0.6 * torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model, clips, model(clips).argmax(1)


@pytest.mark.parametrize("budget", [Budget("linf", "1/255"), Budget("linf", "1/255", frames=2), Budget("l2", clip=0.1)])
@pytest.mark.parametrize("queries", [1, 2, 7, 40])
def test_never_one_query_more_than_allowed(budget, queries):
    """Counted from outside, clip by clip; and what a batch costs is what its clips cost alone."""
    model, clips, labels = problem()
    alone = []
    for clip, label, seed in zip(clips.split(1), labels.split(1), torch.arange(4).split(1), strict=True):
        counting = Counting(model)
        square(counting, clip, label, budget, seed, queries=queries)
        alone.append(counting.shown)
    together = Counting(model)
    square(together, clips, labels, budget, torch.arange(4), queries=queries)
    assert max(alone) <= queries
    assert together.shown == sum(alone)


def test_a_clip_that_never_falls_uses_all_its_queries_and_a_wrong_one_a_single_one():
    model, clips, labels = problem()
    counting = Counting(model)
    square(counting, clips, labels, Budget("linf", 1e-6), torch.arange(4), queries=25)
    assert counting.shown == 4 * 25
    counting.shown = 0
    result = square(counting, clips, (labels + 1) % 4, Budget("linf", 1e-6), torch.arange(4), queries=25)
    assert counting.shown == 4
    assert torch.equal(result, clips)


@pytest.mark.parametrize("shape", ["cuboid", "tube", "fold"])
def test_linf_perturbations_are_plus_or_minus_eps(shape):
    model, clips, labels = problem()
    result = square(model, clips, labels, Budget("linf", 1 / 512), torch.arange(4), queries=30, shape=shape)
    delta = (result - clips)[margin(model(result), labels) < 0]
    assert len(delta)
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, 1 / 512), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in BUDGETS if "per-clip" not in name])
def test_it_only_ever_climbs_and_gets_somewhere(name):
    """On the linear classifier the gain is a good part of FGSM's, and what is returned is the best that was seen."""
    model, budget = LinearVideo(), BUDGETS[name]
    clips, labels = torch.full((B, 3, T, H, W), 0.5, dtype=torch.float64), torch.zeros(B, dtype=torch.long)
    counting = Counting(model, labels)
    result = square(counting, clips, labels, budget, torch.arange(B), queries=300)
    reached = margin(model(result), labels)
    torch.testing.assert_close(reached, torch.stack(counting.margins).amax(0))
    short = square(model, clips, labels, budget, torch.arange(B), queries=30)
    assert bool((reached >= margin(model(short), labels)).all())
    assert bool((reached > margin(model(clips), labels)).all())
    assert bool((budget.size(result - clips) <= 1).all())


def test_few_frames_are_found_by_queries():
    """Only frame 4 counts; a random choice of one frame in eight has to be exchanged to find it."""

    class OneFrame(TinyVideoNet):
        def forward(self, clips):
            return super().forward(clips[:, :, 4:5])

    model = OneFrame(4).eval()
    clips = torch.full((16, 3, 8, 12, 12), 0.5)
    with torch.no_grad():
        labels = model(clips).argmax(1)
        budget = Budget("linf", 1e-3, frames=1)
        result = square(model, clips, labels, budget, torch.arange(16), queries=60)
    assert bool((frames_touched(result - clips) == 1).all())
    assert int(((result - clips)[:, :, 4].abs().amax((1, 2, 3)) > 0).sum()) >= 14


@pytest.mark.parametrize("frames", [8, 3])
def test_every_length_has_its_turn(frames, monkeypatch):
    """With few frames every second proposal is an exchange, which must not take some lengths' turns away."""
    model, clips, labels = problem(1)
    lengths, size = set(), module._Settings.size

    def record(*args):
        lengths.add(size(*args)[0])
        return size(*args)

    monkeypatch.setattr(module._Settings, "size", record)
    room = clips.shape[2]
    square(model, clips, labels, Budget("linf", 1e-3, frames=frames), torch.arange(1), queries=20)
    count = min(frames, room)
    assert lengths == {count >> turn for turn in range(count.bit_length())}


@pytest.mark.slow
def test_cuboids_break_more_than_tubes_and_folds():
    """400 queries at 12/255 on the zoo's conv3d; measured on 100 clips: 20 against 31 (fold) and 100 (tube) stand."""
    model, data = rv.load_model("conv3d"), rv.load_data("motion10")
    samples = [data.sample(index, model.card.clip) for index in range(20)]
    clips, labels = to_clips([s.frames for s in samples]), torch.tensor([s.label for s in samples])
    standing = {}
    for shape in ("cuboid", "tube", "fold"):
        attack = rv.load_attack("square", queries=400, shape=shape)
        found = attack(model, clips, labels, Budget("linf", "12/255"), torch.arange(20))
        with torch.no_grad():
            standing[shape] = int((model(found).argmax(1) == labels).sum())
    assert standing["cuboid"] < min(standing["tube"], standing["fold"]), standing


def test_blocks_are_drawn_for_each_clip():
    model, clips, labels = problem(2)
    same = clips[:1].expand(2, -1, -1, -1, -1).contiguous()
    budget, both = Budget("linf", 1e-3), labels[:1].expand(2)
    one, other = square(model, same, both, budget, torch.tensor([1, 2]), queries=20)
    again, twin = square(model, same, both, budget, torch.tensor([1, 1]), queries=20)
    assert not torch.equal(one, other)
    assert torch.equal(again, twin)
    assert torch.equal(one, again)


def test_block_sizes():
    cuboid, tube = (module._Settings(100, shape, 0.8, False) for shape in ("cuboid", "tube"))
    turns = [cuboid.size(0.0625, turn, (8, 64, 64)) for turn in range(5)]
    assert turns == [(8, 16, 16), (4, 23, 23), (2, 32, 32), (1, 45, 45), (8, 16, 16)]
    assert [cuboid.size(0.1, turn, (6, 9, 9))[0] for turn in range(4)] == [6, 3, 1, 6]
    assert cuboid.size(0.8, 3, (8, 64, 64)) == (1, 64, 64)
    assert tube.size(0.25, 1, (8, 64, 64)) == (8, 32, 32)
    for turn in (0, 1):
        assert cuboid.size(0.25, turn, (1, 48, 64)) == tube.size(0.25, turn, (1, 48, 64)) == (1, 24, 32)
    assert cuboid.size(1e-9, 3, (8, 64, 64)) == (1, 1, 1)
    assert [cuboid.share(n) for n in (0, 10, 11, 50, 51, 501)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.05]
    assert module._Settings(1000, "cuboid", 0.8, True).share(6) == 0.2


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"queries": 0}, CardError), ({"p_init": 0.0}, CardError), ({"shape": "cube"}, UnknownNameError)],
)
def test_settings_that_mean_nothing_are_refused(settings, error):
    model, clips, labels = problem(1)
    with pytest.raises(error):
        square(model, clips, labels, Budget("linf", "8/255"), torch.arange(1), **settings)


@pytest.mark.parametrize("own", [1, 3])
def test_blocks_are_read_and_written_alike_in_slices_and_by_index(own, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    delta, values = (torch.rand(shape, generator=generator) for shape in ((6, 3, 5, 7, 9), (6, 3, own, 1, 1)))
    starts = torch.tensor([[clip % 3, clip, 5 - clip] for clip in range(6)])
    blocks = module._Blocks(starts, (3, 2, 4), torch.arange(5).expand(6, -1))

    def used():
        written = delta.clone()
        blocks.write(written, values)
        return blocks.read(delta), written

    sliced = used()
    monkeypatch.setattr(module._Blocks, "_views", lambda *_: None)
    indexed = used()
    assert torch.equal(sliced[0], indexed[0])
    assert torch.equal(sliced[1], indexed[1])
    assert (sliced[1] != delta).flatten(1).any(1).all()


def test_blocks_count_in_the_frames_that_may_change():
    delta = torch.zeros(2, 3, 6, 4, 4)
    frames = torch.tensor([[1, 3, 5], [0, 1, 4]])
    blocks = module._Blocks(torch.tensor([[1, 0, 0], [0, 2, 2]]), (2, 1, 2), frames)
    blocks.write(delta, torch.ones(1, 1, 1, 1, 1))
    assert [one.amax((0, 2, 3)).nonzero().flatten().tolist() for one in delta] == [[3, 5], [0, 1]]
    assert float(delta.sum()) == 2 * 3 * 2 * 2
    assert bool((blocks.read(delta) == 1).all())


def test_a_block_that_is_there_already_becomes_its_opposite():
    clips, budget = torch.full((1, 3, 2, 4, 4), 0.5), Budget("linf", "8/255")
    settings = module._Settings(10, "tube", 1.0, resc_schedule=False)  # a block is everything
    goal = module.make_goal(lambda _: None, clips, torch.zeros(1, dtype=torch.int64), torch.zeros(1), "margin")
    problem = module.Problem(clips, goal, budget, torch.zeros(1, dtype=torch.int64), None)
    moves = module._Moves(problem, settings, [torch.Generator().manual_seed(0)])
    state = module._State(torch.zeros_like(clips), torch.tensor([[0, 1]]), torch.zeros(1))
    first = module._recolour(moves, state, 1.0, 0)
    moves.streams[0].manual_seed(0)
    second = module._recolour(moves, first, 1.0, 0)
    assert torch.equal(second.delta, -first.delta)
