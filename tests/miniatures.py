"""Small trees of videos in the official layouts of the datasets that people have."""

import json
import zlib

import torch

from robustvid.data.decode import write_video

UCF_CLASSES = ("Archery", "Hammering", "HammerThrow", "JumpingJack", "JumpRope")  # in the order of classInd.txt


def video(path, label=0, frames=20, size=(48, 64)):
    """Write noise that moves to the right, brighter for larger labels, another one for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(zlib.crc32(path.name.encode()))
    noise = torch.randint(0, 120, (*size, 3), generator=generator).byte() + 20 * (label % 6)
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
    write_video(path, torch.stack([noise.roll(2 * frame, 1) for frame in range(frames)]), 25, codec)
    return path


def ucf101(root, classes=UCF_CLASSES, train=4, test=2, folder="UCF-101", lists="ucfTrainTestlist"):
    """UCF101: groups from 1 are test, from 8 training, two clips of each; CRLF where the official lists have it."""
    (root / lists).mkdir(parents=True)
    numbered = [f"{number} {name}" for number, name in enumerate(classes, 1)]
    (root / lists / "classInd.txt").write_bytes("\r\n".join(numbered).encode() + b"\r\n")
    listed = {"train": [], "test": []}
    for label, name in enumerate(classes):
        for split, first, count in (("test", 1, test), ("train", 8, train)):
            for number in range(count):
                path = f"{name}/v_{name}_g{first + number // 2:02d}_c{number % 2 + 1:02d}.avi"
                video(root / folder / path, label)
                listed[split].append(f"{path} {label + 1}" if split == "train" else path)
    for fold in (1, 2, 3):
        (root / lists / f"trainlist0{fold}.txt").write_bytes("\r\n".join(listed["train"]).encode() + b"\r\n")
        (root / lists / f"testlist0{fold}.txt").write_text("\n".join(listed["test"]) + "\n")
    return root


def hmdb51(root, classes=("brush_hair", "cartwheel", "catch"), train=4, test=2, spare=1, videos=True):
    """HMDB51: names with brackets and marks as the official ones have."""
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for label, name in enumerate(classes):
        for fold in (1, 2, 3):
            marks = [1] * train + [2] * test + [0] * spare
            lines = [
                f"Film_(No.{number})!_{name}_h_cm_np1_ba_goo_{number}.avi {mark} " for number, mark in enumerate(marks)
            ]
            (lists / f"{name}_test_split{fold}.txt").write_text("\n".join(lines) + "\n")
        for line in lines if videos else ():
            video(root / "hmdb51_org" / name / line.rpartition(" ")[0].rpartition(" ")[0], label)
    return root


def kinetics(root, labels=("arm wrestling", "yoga"), split="val", count=2, missing=1):
    """Kinetics: a list, and all but the last of its videos in folders named with ``_`` for blanks."""
    lines = ["label,youtube_id,time_start,time_end,split"]
    for label, name in enumerate(labels):
        for number in range(count):
            id_ = f"-abc{label}_{number}"
            lines.append(f"{name},{id_},{number},{number + 10},{split}")
            path = root / split / name.replace(" ", "_") / f"{id_}_{number:06d}_{number + 10:06d}.mp4"
            if (label, number) < (len(labels) - 1, count - missing):
                video(path, label)
    (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def ssv2(root, labels=("Holding something", "Pushing something from left to right"), count=2):
    """Something-Something V2: templates with brackets, labels without."""
    (root / "labels").mkdir(parents=True)
    (root / "labels" / "labels.json").write_text(json.dumps({name: str(place) for place, name in enumerate(labels)}))
    entries = []
    for label, name in enumerate(labels):
        for number in range(count):
            id_ = str(100 * label + number)
            entries.append({"id": id_, "label": "x", "template": name.replace("something", "[something]")})
            video(root / "20bn-something-something-v2" / f"{id_}.webm", label)
    for split in ("train", "validation"):
        (root / "labels" / f"something-something-v2-{split}.json").write_text(json.dumps(entries))
    return root
