"""Watching streams: the windows are those that evaluate would see, late ones give way, lost streams come back."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest
import torch
from toys import CLIP, small_model

import robustvid as rv
from robustvid.contracts import Sample
from robustvid.data.decode import count_frames, read_frames, write_video
from robustvid.data.transforms import fit_frames
from robustvid.errors import ClipError, DataError, DecodeError, UnknownNameError
from robustvid.live import Alarm, sources, watch
from robustvid.live.alarms import Bell
from robustvid.live.windows import Window

SPAN = (CLIP.frames - 1) * CLIP.stride + 1


def noise(count, seed=0, size=16):
    """Frames that differ from one another, so that windows do."""
    shape = (count, size, size, 3)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "noise.mp4", noise(60), 25)
    return tmp_path / "noise.mp4"


class Sleepy(torch.nn.Module):
    def __init__(self, network, seconds):
        super().__init__()
        self.network, self.seconds = network, seconds

    def forward(self, clips):
        time.sleep(self.seconds)
        return self.network(clips)


def sleepy(seconds):
    model = small_model()
    return rv.VideoClassifier(Sleepy(model.network, seconds), model.card)


class Windows:
    """Every window of a video as a dataset, labelled as ``live`` saw it."""

    name, split = "windows", "test"

    def __init__(self, video, seen, classes):
        self.video, self.seen, self.classes = video, seen, classes

    def __len__(self):
        return len(self.seen)

    def sample(self, index, clip):
        last = self.seen[index].frame
        numbers = range(last - (clip.frames - 1) * clip.stride, last + 1, clip.stride)
        frames = fit_frames(read_frames(self.video, list(numbers)), clip)
        return Sample(str(index), frames, list(self.classes).index(self.seen[index].label))


@pytest.mark.usefixtures("small_home")
@pytest.mark.parametrize("name", ["conv3d", "frame_rnn"])
def test_predictions_are_those_of_evaluate_on_the_same_windows(name, tmp_path):
    data = rv.load_data("motion10")
    frames = torch.cat([data.read(index, range(24)) for index in range(4)])
    write_video(tmp_path / "stream.mp4", frames, 25)
    model = rv.load_model(name)
    seen = list(watch(model, tmp_path / "stream.mp4", every=5, speed=0))
    span = (model.card.clip.frames - 1) * model.card.clip.stride + 1
    assert [one.frame for one in seen] == list(range(span - 1, 96, 5))
    assert len({one.label for one in seen}) > 1
    results = rv.evaluate(model, Windows(tmp_path / "stream.mp4", seen, model.card.classes), "fgsm", [
        rv.Budget("linf", "1/255")
    ])  # fmt: skip
    assert results.clean["correct"] == results.n == len(seen)


def test_logits_are_those_of_the_model_on_the_window(video):
    model = small_model().eval()
    for one in watch(model, video, every=7, speed=0):
        frames = Windows(video, [one], model.card.classes).sample(0, CLIP).frames
        with torch.no_grad():
            confidences = model(frames.permute(3, 0, 1, 2)[None] / 255).softmax(1)[0]
        assert one.confidence == pytest.approx(float(confidences.max()), abs=1e-5)
        assert one.label == model.card.classes[int(confidences.argmax())]


def test_a_file_plays_in_real_time_and_answers_within_a_stride(video):
    begin = time.perf_counter()
    with watch(small_model(), video, every=14) as stream:
        seen = list(stream)
    assert time.perf_counter() - begin > 59 / 25
    assert [one.frame for one in seen] == list(range(SPAN - 1, 60, 14))
    assert stream.summary()[:5] == (60, len(seen), 0, 0, 0)
    assert stream.summary().p95 < 1000 * 14 / 25


def test_a_slow_model_skips_windows_rather_than_lag(video):
    with watch(sleepy(0.3), video, every=2) as stream:  # a window every 0.08 s
        seen = list(stream)
    summary = stream.summary()
    assert summary.windows == len(seen)
    assert summary.skipped > len(seen)
    assert summary.windows + summary.skipped == len(range(SPAN - 1, 60, 2))
    assert max(one.latency for one in seen) < 0.3 + 0.3 + 0.5  # its own time, that of the one before, and some room
    assert summary.missed == len(seen)


def test_at_speed_0_a_slow_model_sees_every_window(video):
    with watch(sleepy(0.01), video, every=2, speed=0) as stream:
        assert [one.frame for one in stream] == list(range(SPAN - 1, 60, 2))
    assert stream.summary()[2:5] == (0, 0, 0)


def test_a_source_that_is_too_fast_drops_frames_and_says_how_many(tmp_path):
    write_video(tmp_path / "long.mp4", noise(900, size=64), 25)
    with watch(small_model(), tmp_path / "long.mp4", speed=1e4) as stream:
        seen = list(stream)
    summary = stream.summary()
    assert summary.frames == 900
    assert summary.dropped > 450
    assert 0 < len(seen) < 100


def test_what_waits_does_not_grow(video):
    with watch(sleepy(0.02), video, every=1, speed=50) as stream:
        for _ in stream:
            assert len(stream._buffer._fitted) <= SPAN
            assert len(stream._buffer._shown) == 0
    left_out = stream.summary()
    assert left_out.skipped + left_out.dropped > 0  # the reader itself is late where the machine does other work


class _Flaky(http.server.BaseHTTPRequestHandler):
    """Sends a piece of MPEG-TS for each request, then breaks off, or says nothing more."""

    pieces: list[bytes]
    stalls = False

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        piece = self.pieces.pop(0) if self.pieces else b""
        self.wfile.write(piece)
        self.wfile.flush()
        if piece and self.stalls:
            time.sleep(3)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(pieces, *, stalls=False):
        handler = type("Handler", (_Flaky,), {"pieces": list(pieces), "stalls": stalls})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/stream.ts"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def transport_stream(tmp_path):
    write_video(tmp_path / "piece.ts", noise(50, size=64), 25)
    return (tmp_path / "piece.ts").read_bytes()


@pytest.mark.parametrize("stalls", [False, True])
def test_a_broken_or_stalled_stream_is_tried_again_with_growing_pauses(
    serve, transport_stream, monkeypatch, caplog, stalls
):
    monkeypatch.setattr(sources, "FIRST_WAIT", 0.1)
    monkeypatch.setattr(sources, "LONGEST_WAIT", 0.4)
    address = serve([transport_stream, b"", b"", transport_stream], stalls=stalls)
    frames, lost = [], 0
    with watch(small_model(), address, every=5, stall=0.5) as stream:
        for seen in stream:
            frames.append(seen.frame)
            lost = stream.summary().lost
            if lost >= 3:
                break
    assert lost >= 3
    steps = [after - before for before, after in pairwise(frames)]
    assert max(steps) > 5  # no window bridges the gap
    pauses = [record.getMessage().rpartition("again in ")[2] for record in caplog.records if "lost" in record.message]
    assert pauses[:3] == ["0.1 s", "0.2 s", "0.4 s"]


def test_a_stream_that_never_was_is_an_error(serve):
    with pytest.raises(DecodeError, match="cannot read"):
        list(watch(small_model(), "http://127.0.0.1:9/none", stall=2))


def test_a_stream_cannot_name_files_of_this_machine(serve, video):
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{video}\n#EXT-X-ENDLIST\n".encode()
    with pytest.raises(DecodeError):
        list(watch(small_model(), serve([playlist] * 9).replace(".ts", ".m3u8"), stall=2))


def test_a_folder_is_read_as_it_grows(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sources, "_POLL", 0.05)
    folder = tmp_path / "recordings"
    folder.mkdir()
    write_video(folder / "b.mp4", noise(SPAN, 1), 25)
    (folder / "notes.txt").write_text("no video")
    (folder / "broken.mp4").write_bytes(b"no video either")
    seen = []
    with watch(small_model(), folder) as stream:
        for one in stream:
            seen.append(one)
            if len(seen) == 1:
                write_video(folder / "a.mp4", noise(SPAN, 2), 25)
            else:
                break
    assert [one.frame for one in seen] == [SPAN - 1, 2 * SPAN - 1]
    assert "broken.mp4" in caplog.text
    assert seen[1].time > seen[0].time


def test_a_perturbed_stream_is_the_clip_with_the_perturbation(video):
    model, delta = small_model(), torch.zeros(1, 3, CLIP.frames, *CLIP.size)
    delta[:, 0] = torch.arange(CLIP.frames).view(-1, 1, 1) * 16 / 255
    plain = watch(model, video, every=CLIP.frames, speed=0)
    changed = watch(model, video, every=CLIP.frames, speed=0, perturbation=delta)
    kept = []
    for stream in (plain, changed):
        look = stream._confidences
        stream._confidences = lambda frames, look=look: kept.append(frames) or look(frames)
        list(stream)
    half = len(kept) // 2
    for before, after in zip(kept[1:half], kept[half + 1 :], strict=True):
        wanted = (before.int() + (255 * delta[0]).permute(1, 2, 3, 0).round().int()).clamp(0, 255)
        assert torch.equal(after.int(), wanted)  # windows begin at multiples of the perturbation's length


def test_a_perturbation_of_another_shape_is_refused(video):
    with pytest.raises(ClipError, match="this model wants"):
        watch(small_model(), video, perturbation=torch.zeros(1, 3, 2, 16, 16))


@pytest.mark.parametrize(
    ("source", "settings", "error"),
    [
        ("nothing.mp4", {}, DataError),
        ("", {}, DataError),
        (None, {"every": 0}, DataError),
        (None, {"window": 2}, DataError),
        (None, {"speed": -1}, DataError),
        (None, {"alarms": [Alarm("nobody", 0.5)]}, UnknownNameError),
    ],
)
def test_what_means_nothing_is_refused(video, source, settings, error):
    with pytest.raises(error):
        watch(small_model(), video if source is None else (source or "empty"), **settings)


@pytest.mark.parametrize("text", ["left", "left:", ":0.5", "left:0", "left:1.5", "left:0.5:-1", "left:a", "a:1:1:1"])
def test_alarms_that_are_none_are_refused(text):
    with pytest.raises(DataError):
        Alarm.parse(text)


def window(at, *, fresh=False):
    return Window(torch.zeros(0), 0, at, 0.0, 0.1, fresh, None)


def test_an_alarm_rings_once_when_its_class_has_held_and_again_after_it_let_go():
    bell = Bell(Alarm.parse("b:0.6:1"), ["a", "b"])
    confidences = [0.7, 0.9, 0.6, 0.9, 0.5, 0.9, 0.9, 0.9]
    rung = [bell.rings(window(0.5 * place), [0, value]) for place, value in enumerate(confidences)]
    assert rung == [False, False, True, False, False, False, False, True]
    assert not bell.rings(window(4.0, fresh=True), [0, 0.9])  # what held before a gap does not count
    assert not bell.rings(window(4.5), [0, 0.9])
    assert bell.rings(window(5.0), [0, 0.9])


def test_what_rang_is_written_as_a_video(video, tmp_path):
    label = next(iter(watch(small_model(), video, speed=0))).label
    alarms = [Alarm(label, 0.01, hold=0.4)]
    with watch(small_model(), video, speed=0, every=5, alarms=alarms, events=tmp_path / "events") as stream:
        rung = [seen for seen in stream if seen.alarms]
    assert len(rung) == 1
    assert rung[0].alarms == (label,)
    (clip,) = (tmp_path / "events").glob(f"*-{label}.mp4")
    assert SPAN <= count_frames(clip) <= SPAN + 10 + 6  # the window, 0.4 s of hold and a stride


def command(*words, **settings):
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "robustvid", "live", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **settings,
    )  # fmt: skip


def test_ctrl_c_ends_cleanly(tmp_path):
    write_video(tmp_path / "long.mp4", noise(1000, size=64), 25)
    # What was started in the background of a script ignores Ctrl-C, and so would its children.
    process = command(tmp_path / "long.mp4", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    first = json.loads(process.stdout.readline())
    assert set(first) == {"time", "frame", "label", "confidence", "latency_ms"}
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "windows of" in err
    for line in out.splitlines():
        json.loads(line)


def test_the_command_rings_and_says_what_it_saw(tmp_path):
    write_video(tmp_path / "short.mp4", noise(60, size=64), 25)
    process = command(tmp_path / "short.mp4", "--speed", 0)
    seen = [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]
    label = seen[0]["label"]
    ring = f'{sys.executable} -c \'import os; open("rang", "a").write(os.environ["ROBUSTVID_ALARM"])\''
    process = command(tmp_path / "short.mp4", "--speed", 0, "--alarm", f"{label}:0.01", "--on-alarm", ring)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[0])["alarms"] == [label]
    deadline = time.monotonic() + 10
    while not (tmp_path / "rang").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    assert json.loads((tmp_path / "rang").read_text())["label"] == label
    begin, end = err.split("\n", 1)
    assert begin == "conv3d on " + str(tmp_path / "short.mp4") + ": 15 frames every 7; Ctrl-C ends it"
    assert end.startswith(f"{len(seen)} windows of 60 frames, 1 alarms\nlatency ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.mp4"], "nothing.mp4 is no file and no folder"),
        (["bad.mp4"], "bad.mp4"),
        (["bad.mp4", "--alarm", "lefty:0.5"], "no class 'lefty'. Did you mean 'left'?"),
        (["bad.mp4", "--on-alarm", "true"], "no --alarm says when"),
        (["bad.mp4", "--perturb", "bad.mp4"], "holds no perturbation"),
        (["0"], "camera 0"),
    ],
)
def test_bad_input_is_one_clear_line(words, message, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    process = command(*words)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.slow
def test_a_minute_in_real_time_stays_under_a_stride_and_does_not_grow(tmp_path):
    resource = pytest.importorskip("resource")
    write_video(tmp_path / "minute.mp4", noise(1500, size=64), 25)
    with watch(rv.load_model("conv3d"), tmp_path / "minute.mp4") as stream:
        grown = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss for _ in stream]
    summary = stream.summary()
    assert (summary.frames, summary.dropped, summary.skipped) == (1500, 0, 0)
    assert summary.p95 < 1000 * 7 / 25
    assert grown[-1] - grown[20] < 16 * 1024  # KiB
