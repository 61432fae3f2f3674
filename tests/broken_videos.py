"""Everything that lies about in folders of videos and is not one."""

import os
import random
import struct
import wave
import zlib

import torch
from PIL import Image

from robustvid.data.decode import write_video


def whole(path, codec="libx264", frames=30):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (48, 64, 3), generator=generator).byte()
    write_video(path, torch.stack([noise.roll(frame, 1) for frame in range(frames)]), 25, codec)
    return path.read_bytes()


def make_all(folder):
    """Make one of each kind in ``folder``; return name to path, of inputs that must be refused."""
    folder.mkdir(exist_ok=True)
    mp4, avi = whole(folder / "whole.mp4"), whole(folder / "whole.avi", "mpeg4")
    moov = mp4.index(b"moov") - 4
    contents = {
        "empty.mp4": b"",
        "zeros.mp4": bytes(10_000),
        "text.mp4": b"This is not a video.\n" * 50,
        "page.mp4": b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20,
        "noise.mp4": random.Random(0).randbytes(20_000),
        "without_moov.mp4": mp4[:moov],
        "header_only.mp4": mp4[moov:],
        "first_kilobyte.mp4": mp4[:1000],
        "header_only.avi": avi[: avi.index(b"movi") + 4],
        "cut_in_header.avi": avi[:200],
        "huge.mp4": _huge_png(100_000),
        "concat.mp4": b"ffconcat version 1.0\nfile whole.mp4\n",
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "link.mp4": b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/video.ts\n#EXT-X-ENDLIST\n",
        "manifest.mp4": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
        "session.mp4": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 9 RTP/AVP 96\r\n",
        "subtitles.mp4": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n\n" * 20,
        "archive.mp4": b"PK\x03\x04" + bytes(500),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(1600))
    (folder / "sound.wav").rename(folder / "sound.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "frames.mp4").mkdir()
    (folder / "frames.mp4" / "img_00001.jpg").write_bytes(b"no image")
    names = [*contents, "sound.mp4", "folder.mp4", "dangling.mp4", "loop.mp4", "pipe.mp4", "frames.mp4"]
    return {name: folder / name for name in [*names, "missing.mp4"]}


def picture(path):
    """Write a PNG that is called a video: FFmpeg reads it as one frame."""
    Image.new("RGB", (16, 8), (255, 0, 0)).save(path, format="png")
    return path


def damaged(data, seed):
    """Return the bytes cut somewhere, or with up to 200 bits flipped, or both."""
    draw = random.Random(seed)
    kind = seed % 3
    if kind in {0, 2}:
        data = data[: draw.randrange(1, len(data))]
    if kind in {1, 2}:
        data = bytearray(data)
        for _ in range(draw.randint(1, 200)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def _huge_png(side):
    """Return a picture whose header tells of absurdly many pixels."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    )
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
