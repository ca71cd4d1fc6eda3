"Data sets as their users have them: real files, folders of one's own, and builds that are killed."

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import resource
import shutil
import socketserver
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsgen.datasets import DATA, OMNIGLOT_PARTS, list_folder, photographs
from fsgen.experiments import MODELS, experiment_names, find_experiment
from fsgen.files import LOCK, Files, download
from fsgen.likelihood import InputError
from fsgen.runs import load
from fsgen.training import train

SMALL = "--layers 2 --planes 8 --skip 8 --batch 2 --steps 2 --precision float32 --validate 0".split()
PAPER = [name for name in experiment_names() if find_experiment(name).settings.planes == 128]


def noise(side, seed=0):
    "The content of a PNG of that side."
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def put(folder, names, side=48, different=12):
    "Pictures of these names in a folder, so many different ones in turn."
    contents = [noise(side, seed) for seed in range(different)]
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents[k % different])


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    "A data folder with two tiny data sets in the official layouts."
    monkeypatch.setenv("FSGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    put(tmp_path / "data/imagenet", [f"{part}/n0{k}/{k}.JPEG" for part in ("train", "val") for k in range(4)])
    shop = tmp_path / "data/Stanford_Online_Products"
    put(shop, [f"chair_final/{k}_{i}.JPG" for k in range(4) for i in range(3)])
    for part, objects in (("train", (0, 1)), ("test", (2, 3))):
        lines = [f"0 {k} 4 chair_final/{k}_{i}.JPG" for k in objects for i in range(3)]
        (shop / f"Ebay_{part}.txt").write_text("\n".join(["image_id class_id super_class_id path", *lines]))
    return tmp_path


def test_paper_presets_are_there():
    assert set(PAPER) == {
        f"{name}-{model}"
        for name in ("inversion-24", "inversion-48", "products-32", "products-multiscale")
        for model in MODELS
    }


# every model at one of the scales of the paper, and attention at all
STEPPED = [f"inversion-24-{model}" for model in MODELS]
STEPPED += [f"{family}-attention" for family in ("inversion-48", "products-32", "products-multiscale")]


@pytest.mark.parametrize("name", STEPPED)
def test_one_step_at_the_scale_of_the_paper(stand_ins, name):
    one = find_experiment(name).vary(steps=1, batch=1, validate=0, precision="float32")
    model = train(one, stand_ins / "run")
    assert model.facts["steps"] == 1 and model.shape == (3, one.size, one.size) and model.levels == 256
    line = json.loads((stand_ins / "run/metrics.jsonl").read_text())
    assert 4 < line["loss"] < 8 and line["gradient_norm"] > 0  # log 256 = 5.5 before training


@pytest.mark.parametrize(
    "family, data, model",
    [
        ("brief-inversion-24", "tiny-imagenet", "conditional"),
        ("brief-products-32", "stanford-online-products", "conditional"),
        *(("brief-eth80-32", "ETH-80", model) for model in MODELS),
    ],
)
def test_real_photographs(fsgen, real, tmp_path, family, data, model):
    real(data)
    run = tmp_path / "run"
    code, _, error = fsgen("train", f"{family}-{model}", *SMALL, "--size", 16, "--out", run)
    assert code == 0, error
    code, out, error = fsgen("evaluate", run, "--episodes", 16, "--json", tmp_path / "results.json")
    assert code == 0, error
    test, _ = json.loads((tmp_path / "results.json").read_text())
    assert test["data"] == data and test["episodes"] == 16
    assert 1 < test["nats_per_dim"] < np.log(test["config"]["levels"]) + 1


def test_own_folder_without_a_name(fsgen, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    put(tmp_path / "mine", [f"{letter}/{k}.png" for letter in "abcdef" for k in range(3)])
    line = ["--data", "folder", "--root", "mine", "--task", "products", *SMALL]
    code, _, error = fsgen("train", *line)
    assert code == 0, error
    code, _, error = fsgen("sample", "runs/custom-0", "--episodes", 1, "--samples", 1)
    assert code == 0 and (tmp_path / "runs/custom-0/samples.png").exists(), error

    (tmp_path / "mine/b/1.png").write_bytes(b"")
    assert "b/1.png (an empty file)" in refused("train", *line, "--out", tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_data_says_what_is_there(fsgen, stand_ins):
    put(stand_ins / "data/mine", [f"{letter}/{k}.png" for letter in "abcdef" for k in range(3)])
    code, out, error = fsgen("data", "--json", stand_ins / "data.json")
    assert code == 0, error
    rows = {row.pop("name"): row for row in json.loads((stand_ins / "data.json").read_text())}
    counts = {name: [*row.values()] for name, row in rows.items() if row["found"]}
    assert set(rows["mine"]) == {"found", "train_classes", "train_images", "test_classes", "test_images"}
    assert counts.pop("glyphs")[2] > 10_000
    assert counts == {
        "imagenet": [True, 4, 4, 4, 4],
        "stanford-online-products": [True, 2, 6, 2, 6],
        "mine": [True, 5, 15, 1, 3],
    }
    assert all(f"--download {name}" in out for name in ("omniglot", "tiny-imagenet"))
    assert "cache: none" in out and "--data folder --root mine" in out
    assert set(rows) >= {name for name, data in DATA.items() if data.urls}


def test_killed_build_leaves_nothing_that_looks_whole(command, run_cli, tmp_path):
    cache, environment = tmp_path / "cache", {"FSGEN_CACHE": str(tmp_path / "cache")}
    put(tmp_path / "mine", [f"{letter}/{k}.png" for letter in "abcde" for k in range(160)], side=300)
    line = ["train", "--data", "folder", "--root", tmp_path / "mine", *SMALL, "--out", tmp_path / "run"]
    process = subprocess.Popen([*command, *map(str, line)], env=os.environ | environment)
    while process.poll() is None and not any(path.stat().st_size for path in cache.glob("*.part")):
        time.sleep(0.005)
    assert process.poll() is None, "the build ended before it could be killed"
    process.kill()
    process.wait()
    assert {path.suffix for path in cache.iterdir()} == {"", ".part"}  # the lock
    done = run_cli(*line, env=environment)
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in cache.iterdir()} == {"", ".npy"}
    (path,) = cache.glob("*.npy")
    images = np.load(path, mmap_mode="r")
    assert images.shape == (800, 3, 16, 16) and images[-1].any()


def test_slow_image_does_not_let_the_others_pile_up(tmp_path):
    code = """
        import resource, sys, time
        from pathlib import Path
        import numpy as np
        from fsgen.files import Files, read_images
        root = Path(sys.argv[1])
        for k in range(2000):
            (root / f"{k:05}.png").write_bytes(b"slow" if k == 0 else b"fast")
        def convert(content):
            time.sleep(1.5 if content == b"slow" else 0)
            return np.ones((3, 256, 256), np.uint8)
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
        before, files = peak(), Files(root)
        images = read_images(files, files.images, convert, "test")
        print(peak() - before, images.numel() // 10**6)
    """
    (tmp_path / "x").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "x"],
        env=os.environ | {"FSGEN_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    added, cache = map(int, run.stdout.split())  # MB
    assert cache > 390 and added < 0.3 * cache + 13 * (os.cpu_count() or 1)


def names_of(parts):
    "How many images each class of each part has."
    return [{name: len(names) for source in part for name, names in source.classes.items()} for part in parts]


class Named(zipfile.ZipInfo):
    "A file in a zip, its name in a code page and without the mark of UTF-8."

    page = "cp437"

    def _encodeFilenameFlags(self):
        return self.filename.encode(self.page), self.flag_bits & ~0x800


def zip_of(path, names, page=None, **options):
    "A zip of pictures under these names, as they stand."
    with zipfile.ZipFile(path, "w", **options) as archive:
        for k, name in enumerate(names):
            info = Named(name)
            info.page, info.compress_type = page or "utf-8", archive.compression
            archive.writestr(info if page else name, noise(16, k))
    return path


CLASSES = [f"{letter}/{k}.png" for letter in "abcdef" for k in range(2)]


@pytest.mark.parametrize(
    "write",
    [
        lambda name: f"./{name}",
        lambda name: f"/{name}",
        lambda name: "C:\\photos\\" + name.replace("/", "\\"),
        lambda name: f"photos/photos/{name}",
        lambda name: f"photos//./{name}",
    ],
)
def test_names_as_tools_write_them(tmp_path, write):
    put(tmp_path / "photos", CLASSES, different=len(CLASSES), side=16)
    same = zip_of(tmp_path / "photos.zip", map(write, CLASSES))
    folder, zipped = list_folder(tmp_path / "photos"), list_folder(same)
    plain = [[name.rpartition("/")[2] for name in part] for part in names_of(zipped)]
    assert plain == [list(part) for part in names_of(folder)]
    for (here,), (there,) in zip(folder, zipped, strict=True):
        for ours, theirs in zip(here.classes.values(), there.classes.values(), strict=True):
            assert list(map(here.files.read, ours)) == list(map(there.files.read, theirs))


@pytest.mark.parametrize(
    "page, words",
    [
        ("gbk", "照片 苹果 香蕉 椅子 桌子 猫 狗"),
        ("cp932", "りんご バナナ 写真 猫 犬 表"),
        ("big5", "蘋果 香蕉 椅子 貓 狗"),
        ("cp866", "кошка собака дом лес"),
        ("cp1251", "кошка собака дом лес"),
        ("cp850", "café forêt niño pão"),
        ("cp1252", "Äpfel Käse Brötchen Wurst"),
        ("utf-8", "苹果 кошка café 표"),
    ],
)
def test_code_pages(tmp_path, page, words):
    words = words.split()
    zipped = zip_of(tmp_path / "x.zip", [f"{word}/{k}.png" for word in words for k in range(5)], page)
    assert set().union(*names_of(list_folder(zipped))) == set(words)


def test_code_page_that_can_not_be_told(tmp_path):
    for page, words in (("euc_kr", "개 말"), ("gbk", "红 绿"), ("cp852", "żółw łódź")):
        zipped = zip_of(
            tmp_path / f"{page}.zip", [f"{w}/{k}.png" for w in words.split() for k in range(5)], page
        )
        with pytest.raises(InputError, match="a code page that can't be told"):
            list_folder(zipped)


def test_what_systems_leave_behind(tmp_path, capsys):
    left = (
        "@eaDir #recycle $RECYCLE.BIN lost+found .thumbnails __MACOSX .Trash-1000 .ipynb_checkpoints".split()
    )
    left += ["System Volume Information", "a/@eaDir", "a/.AppleDouble", "b/@__thumb"]
    names = CLASSES + [f"{folder}/{k}.png" for folder in left for k in range(5)]
    put(tmp_path / "photos", names)
    for name in ("Thumbs.db", "desktop.ini", "a/.DS_Store"):
        (tmp_path / "photos" / name).write_bytes(b"?")
    zip_of(tmp_path / "photos.zip", names)
    for path in (tmp_path / "photos", tmp_path / "photos.zip"):
        assert names_of(list_folder(path)) == [dict.fromkeys("abcdf", 2), {"e": 2}]
    assert capsys.readouterr().err == ""


def test_links_and_what_is_no_file(tmp_path, capsys):
    root = tmp_path / "photos"
    put(root, CLASSES)
    put(tmp_path / "elsewhere", ["1.png", "2.png"])
    for name, target in {
        "up": "..", "here": ".", "a/up": "..", "again": "a", "g": "../elsewhere", "h": "../elsewhere",
        "gone.png": "nowhere", "me": "me", "null.png": "/dev/null",
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    (root / "b/link.png").symlink_to("../a/0.png")
    os.mkfifo(root / "a/pipe.png")
    os.mkfifo(tmp_path / "pipe.zip")
    listing = list_folder(root)
    assert names_of(listing) == [{"a": 2, "b": 3, "c": 2, "d": 2, "f": 2, "g": 2}, {"e": 2}]
    (line,) = capsys.readouterr().err.splitlines()
    assert "passed over: a/pipe.png (no regular file)" in line and "and 4 more" in line
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        list_folder(tmp_path / "pipe.zip")


def test_zip_with_one_name_twice(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for k, name in enumerate(("a/0.png", "./a//0.png", "b/1.png")):
            archive.writestr(name, noise(8, k))
    files = Files(tmp_path / "twice.zip")
    assert files.read("a/0.png") == noise(8, 1)
    assert "passed over: a/0.png (there twice, the first time)" in capsys.readouterr().err


def test_folder_whose_pictures_changed_at_one_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))

    def unpacked(seed):  # as from an archive that keeps the times of writing
        shutil.rmtree(tmp_path / "pictures", ignore_errors=True)
        for k in range(12):
            path = tmp_path / f"pictures/{k // 6}/{k}.ppm"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed + k).integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            os.utime(path, (0, 0))
        return photographs("folder", 8, root=tmp_path / "pictures").train.fingerprint

    assert unpacked(0) != unpacked(100)


def test_zip_with_a_link(tmp_path, capsys):
    with zipfile.ZipFile(zip_of(tmp_path / "x.zip", CLASSES), "a") as archive:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert names_of(list_folder(tmp_path / "x.zip"))[0]["a"] == 2
    assert "a/link.png (no regular file)" in capsys.readouterr().err


@pytest.fixture
def nobody():
    "While open, this process is a user who may not do everything."
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)

    @contextlib.contextmanager
    def other():
        os.seteuid(65534 if os.getuid() == 0 else os.getuid())
        try:
            yield
        finally:
            os.seteuid(os.getuid())

    yield folder, other
    subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)
    shutil.rmtree(folder)


def test_folder_or_file_that_can_not_be_read(nobody, monkeypatch):
    folder, other = nobody
    put(folder / "photos", CLASSES)
    (folder / "cache").mkdir(mode=0o777)
    (folder / "cache").chmod(0o777)
    monkeypatch.setenv("FSGEN_CACHE", str(folder / "cache"))
    (folder / "photos/a").chmod(0)
    with other(), pytest.raises(InputError, match="photos/a can't be read: Permission denied"):
        list_folder(folder / "photos")
    (folder / "photos/a").chmod(0o755)
    (folder / "photos/a/0.png").chmod(0)
    with other(), pytest.raises(InputError, match="photos/a/0.png can't be read: Permission denied"):
        photographs("folder", 8, root=folder / "photos")


def test_weights_that_can_not_be_read(nobody):
    folder, other = nobody
    (folder / "weights.safetensors").touch(0)
    with other(), pytest.raises(InputError, match="weights.safetensors can't be read: Permission denied"):
        load(folder / "weights.safetensors")


def test_cache_that_can_only_be_read(nobody, monkeypatch):
    folder, other = nobody
    put(folder / "photos", CLASSES)
    monkeypatch.setenv("FSGEN_CACHE", str(folder / "cache"))
    before = photographs("folder", 8, root=folder / "photos")
    for path in ((folder / "cache"), *(folder / "cache").iterdir()):
        path.chmod(0o555)
    with other():
        assert photographs("folder", 8, root=folder / "photos").train.images.equal(before.train.images)
        with pytest.raises(InputError, match="can't be written|could not be written"):
            photographs("folder", 16, root=folder / "photos")


@pytest.mark.parametrize("kind", ["for writing only", "none"])
def test_locks_of_network_disks(tmp_path, monkeypatch, kind):
    def flock(file, how):
        if kind == "none":
            raise OSError(errno.ENOLCK, "No locks available")
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    put(tmp_path / "photos", CLASSES)
    assert len(photographs("folder", 8, root=tmp_path / "photos").train) == 10


def test_home(tmp_path, monkeypatch):
    put(tmp_path / "photos", CLASSES)
    for name in ("FSGEN_DATA", "FSGEN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(photographs("folder", 8, root="~/photos").train) == 10
    assert list((tmp_path / ".cache/fsgen/cache").glob("*.npy"))
    monkeypatch.setenv("FSGEN_DATA", "~")
    assert len(photographs("folder", 8, root="photos").train) == 10
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(InputError, match="set HOME, or FSGEN_DATA and FSGEN_CACHE"):
        photographs("folder", 8, root=tmp_path / "photos")
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    assert len(photographs("folder", 8, root=tmp_path / "photos").train) == 10


def test_odd_names_on_a_terminal_of_ascii(tmp_path):
    data = tmp_path / "data"
    put(data / "mine", [f"{letter}/{k}.png" for letter in ("caf\udce9", *"bcdef") for k in range(3)])
    put(data / "b\udce9b\n\u00e9", CLASSES)
    put(data / "@eaDir/x", CLASSES)
    (data / "gone").symlink_to("nowhere")
    os.mkfifo(data / "mine/pipe.png")
    (data / "cut.zip").write_bytes(b"PK\3\4")
    environment = {"FSGEN_DATA": str(data), "FSGEN_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    environment |= {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    train = ["train", "--data", "folder", "--root", "mine", "--task", "products", *SMALL, "--out=~/run"]
    lines = [
        ["data", "--json=~/all.json"],
        [*train, "--size", "16"],
        ["evaluate", "~/run", "--episodes", "2"],
    ]
    code = f"""
import sys
from fsgen.__main__ import main
for line in {lines}:
    sys.argv[1:] = line
    main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "nats/dim" in done.stdout, done.stderr
    assert "cut.zip is not a whole zip file" in done.stdout
    rows = {row["name"]: row for row in json.loads((tmp_path / "all.json").read_text())}
    assert rows["mine"]["train_images"] == 15 and rows["b\udce9b\n\u00e9"]["train_images"] == 10
    assert "x" not in rows and (tmp_path / "run/weights.safetensors").exists()


@pytest.mark.parametrize(
    "names, train, test",
    [
        ([f"{p}/{c}/{k}.png" for p in ("Training", "VALID") for c in "ab" for k in "12"], "ab", "ab"),
        ([f"{c}/{p}/{k}.png" for p in ("train", "test") for c in "ab" for k in "12"], "ab", "ab"),
        ([f"data/{p}/{c}/{k}.png" for p in ("train", "dev") for c in "ab" for k in "12"] + ["x.png"], 2, 2),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "test/1.png", "test/2.png"], "ab", "a"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "test/b/2.png", "train/x.png"], "ab", "b"),
        ([f"{c}/{k}.png" for c in ("bus", "car", "plane", "ship", "train") for k in "12"], 4, 1),
        ([f"{k}.png" for k in range(9)] + ["old/1.png"], 2, 1),
    ],
)
def test_parts(tmp_path, names, train, test):
    put(tmp_path / "x", names)
    for part, wanted in zip(names_of(list_folder(tmp_path / "x")), (train, test), strict=True):
        assert len(part) == wanted if isinstance(wanted, int) else "".join(part) == wanted


def test_what_is_left_out_is_counted(tmp_path, capsys):
    others = ["a/1.heic", "b/2.HEIC", "notes.txt", "README"]
    endings = "jpg jfif jpe pgm pbm ppm avif webp tif bmp gif png".split()
    put(
        tmp_path / "x",
        [f"{c}/{k}.{e}" for k, c in enumerate("abcdef") for e in endings] + ["look.png", *others],
    )
    train, test = names_of(list_folder(tmp_path / "x"))
    assert set((train | test).values()) == {len(endings)}
    said = "2 .heic, 1 .txt, 1 no ending; images in no class or part: look.png."
    assert set(
        capsys.readouterr().err.partition("left out: ")[2][:-2].replace("; ", ", ").split(", ")
    ) == set(said[:-1].replace("; ", ", ").split(", "))


def test_messages_say_what_was_seen(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    train = ["train", *SMALL, "--data", "folder", "--task", "products", "--out", tmp_path / "run", "--root"]
    put(tmp_path / "three", [f"{c}/{k}.png" for c in "abc" for k in range(8)])
    error = refused(*train, tmp_path / "three")
    assert "need 2 images of every class, and class 'a' has 8, 1 of them in this part" in error
    put(
        tmp_path / "flat",
        [f"train/{c}/{k}.png" for c in "ab" for k in range(4)] + ["test/1.png", "test/2.png"],
    )
    assert "test: 2 images of 1 classes, '' first" in refused(*train, tmp_path / "flat")
    put(tmp_path / "one", [f"photos/{k}.png" for k in range(9)])
    assert "train: 8 images of 1 classes" in refused(*train, tmp_path / "one")


def tiny(root, val):
    "Tiny ImageNet of three classes; `val` names the pictures of validation by class and number."
    wnids = [f"n0{k}" for k in range(3)]
    put(root, [f"train/{wnid}/images/{wnid}_{k}.JPEG" for wnid in wnids for k in range(2)])
    put(root, [val(wnid, k) for k, wnid in enumerate(wnids * 2)])
    (root / "wnids.txt").write_text("\n".join(wnids))
    return "".join(
        f"{val(wnid, k).rpartition('/')[2]}\t{wnid}\t0\t0\t9\t9\n" for k, wnid in enumerate(wnids * 2)
    )


@pytest.mark.parametrize("inside", ["", "tiny-imagenet-200/"])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("place", ["val/{}/{}.JPEG", "val/{}/images/{}.JPEG", "val/images/{1}.JPEG"])
def test_tiny_imagenet_sorted(tmp_path, place, listed, inside):
    root = tmp_path / "tiny-imagenet-200" / inside
    table = tiny(root, place.format)
    if listed or "{1}" in place:
        (root / "val/val_annotations.txt").write_text(table)
    assert names_of(DATA["tiny-imagenet"].list(tmp_path)) == [{f"n0{k}": 2 for k in range(3)}] * 2


def test_imagenet_is_not_hidden(stand_ins):
    put(stand_ins / "data", [f"train/notes/{k}.png" for k in range(3)])
    assert names_of(DATA["imagenet"].list()) == [{f"n0{k}": 1 for k in range(4)}] * 2
    own = stand_ins / "own"
    put(own, [f"{part}/{c}/{k}.png" for part in ("train", "val") for c in "ab" for k in range(4)])
    with pytest.raises(InputError, match="imagenet"):
        DATA["imagenet"].list(own)


def omniglot_like(part, alphabets, names):
    places = [f"{a}/character0{c}/{c}_{k:02}.png" for a in alphabets for c in (1, 2) for k in range(20)]
    return [names.format(part=part, place=place) for place in places]


@pytest.mark.parametrize(
    "names, other",
    [
        ("{place}", []),
        ("{part}/{place}", ["README.txt"]),
        ("{part}/{place}", ["{part}/.DS_Store", "__MACOSX/{part}/Latin/character01/._1_01.png"]),
        ("{part}/{part}/{place}", []),
        ("python/{part}/{place}", ["python/notes.txt"]),
        (".\\{part}\\{place}", []),
    ],
)
def test_omniglot_zipped_again(tmp_path, monkeypatch, names, other):
    monkeypatch.setattr("fsgen.datasets.OMNIGLOT_PARTS", {part: (4, "") for part in OMNIGLOT_PARTS})
    for part, alphabets in zip(OMNIGLOT_PARTS, (("Latin", "Tengwar"), ("Greek", "ULOG")), strict=True):
        zip_of(
            tmp_path / f"{part}.zip",
            omniglot_like(part, alphabets, names) + [name.format(part=part) for name in other],
        )
    train, test = names_of(DATA["omniglot"].list(tmp_path))
    assert train == {f"{a}/character0{c}": 20 for a in ("Latin", "Greek") for c in (1, 2)}
    assert set(test) == {f"{a}/character0{c}" for a in ("Tengwar", "ULOG") for c in (1, 2)}


def test_broken_archive_is_named_or_fetched_again(refused, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FSGEN_DATA", str(tmp_path))
    good = zip_of(tmp_path / "good.zip", CLASSES).read_bytes()
    official = {f"http://127.0.0.1:9/{part}.zip": hashlib.sha256(good).hexdigest() for part in OMNIGLOT_PARTS}
    monkeypatch.setitem(DATA, "omniglot", replace(DATA["omniglot"], urls=official))
    for part in OMNIGLOT_PARTS:
        (tmp_path / f"{part}.zip").write_bytes(good)
    (tmp_path / "images_evaluation.zip").write_bytes(good[:-500])
    error = refused("data", "--download", "omniglot")
    assert (
        f"{tmp_path}/images_evaluation.zip is broken, delete it" in error and "could not be fetched" in error
    )
    assert (tmp_path / "images_evaluation.zip").read_bytes() == good[:-500]


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED, 9, "password", "3 GB"]
)
def test_zips_that_can_not_be_unpacked(tmp_path, monkeypatch, method):
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    known = (
        method
        if method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED)
        else zipfile.ZIP_STORED
    )
    raw = bytearray(zip_of(tmp_path / "x.zip", CLASSES, compression=known).read_bytes())
    for signature, flags, kind, size in ((b"PK\3\4", 6, 8, 22), (b"PK\1\2", 8, 10, 24)):
        place = raw.find(signature)
        while place >= 0:
            if method == 9:
                raw[place + kind] = 9
            elif method == "password":
                raw[place + flags] |= 1
            elif method == "3 GB":
                raw[place + size : place + size + 4] = (3 * 10**9).to_bytes(4, "little")
            elif signature == b"PK\3\4":
                start = place + 30 + len("a/0.png") + 12
                raw[start : start + 40] = b"\xff" * 40
            place = raw.find(signature, place + 4)
    (tmp_path / "x.zip").write_bytes(raw)
    with pytest.raises(InputError, match=r"a/0.png in \S+x.zip") as error:
        photographs("folder", 8, root=tmp_path / "x.zip")
    assert "\n" not in str(error.value)


def test_zip_whose_names_are_not_utf8(tmp_path):
    raw = zip_of(tmp_path / "x.zip", [f"\u00e9{k}.png" for k in range(5)]).read_bytes()
    (tmp_path / "x.zip").write_bytes(raw.replace("\u00e9".encode(), b"\xff\xfe"))
    with pytest.raises(InputError, match="is not a whole zip file"):
        list_folder(tmp_path / "x.zip")


def saved(image, form, **options):
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def test_hostile_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("subprocess.Popen", None)  # of Ghostscript
    put(tmp_path / "x", CLASSES)
    frame = saved(Image.new("L", (8, 8)), "gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)])
    hostile = {
        "a/script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n",
        "a/large.png": saved(Image.new("1", (13_000, 13_000)), "png"),
        "b/bomb.png": saved(Image.new("1", (20_000, 20_000)), "png"),
        "b/frames.gif": frame[:-1] + frame[frame.rindex(b"\x2c\0\0\0\0\x08\0\x08\0") : -1] * 10**5 + b";",
        "c/huge.ppm": b"P6 60000 60000 255\n",
        "c/empty.png": b"",
    }
    for name, content in hostile.items():
        (tmp_path / "x" / name).write_bytes(content)
    with pytest.raises(InputError, match="6 of 18 images in .* can't be used") as error:
        photographs("folder", 8, root=tmp_path / "x")
    for said in ("script.png (not a readable image)", "13000x13000, more than 100 million pixels",
                 "bomb.png (Image size", "frames.gif (several pictures in one file)"):  # fmt: skip
        assert said in str(error.value)
    with (tmp_path / "x/a/0.png").open("wb") as file:
        file.truncate(3 * 10**9)  # of holes
    with pytest.raises(InputError, match="a/0.png in .* has 3,000 MB; at most 268 are read"):
        photographs("folder", 8, root=tmp_path / "x")


def test_names_with_dots_have_caches_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    for name in ("photos.v1", "photos.v2"):
        put(tmp_path / name, CLASSES)
        photographs("folder", 8, root=tmp_path / name)
    assert {path.name[:9] for path in (tmp_path / "cache").glob("*.npy")} == {"photos_v1", "photos_v2"}


def test_folders_with_names_of_one_length(tmp_path):
    put(tmp_path, [f"{letter}/train/1.png" for letter in "hgfedcba"])
    assert Files(tmp_path).inner("train/") == "a/"


def test_name_as_long_as_a_name_can_be(tmp_path, monkeypatch):
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    name = "\u7167" * 85  # 255 bytes
    put(tmp_path / name, CLASSES)
    assert len(photographs("folder", 8, root=tmp_path / name).train) == 10
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_full_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    put(tmp_path / "x", CLASSES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="could not be written: File too large"):
            photographs("folder", 16, root=tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [LOCK]


@pytest.mark.parametrize("how", ["silent", "hangs up", "no web server", "endless redirects"])
def test_site_that_breaks_off(tmp_path, monkeypatch, how):
    said = {
        "silent": b"",
        "hangs up": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nPK",
        "no web server": b"SSH-2.0-OpenSSH\r\n",
        "endless redirects": b"HTTP/1.1 302 Found\r\nLocation: /x.zip\r\nContent-Length: 0\r\n\r\n",
    }[how]
    monkeypatch.setattr("fsgen.files.TIMEOUT", 0.3)
    done = threading.Event()

    class Site(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1000)
            self.request.sendall(said)
            if not said:
                done.wait(10)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/x.zip"
        with pytest.raises(InputError, match="could not be fetched"):
            download({url: "0" * 64}, tmp_path / "data/x")
        done.set()
        server.shutdown()
    assert [path.name for path in (tmp_path / "data/x").iterdir()] == [LOCK]


@pytest.mark.parametrize(
    "root", ["x" * 5000, "a\0b", "~nosuch/x", "/dev/zero", "/dev/null", "/etc/passwd", "\udcff"]
)
def test_roots_that_are_none(root):
    for data in DATA.values():
        if data.list:
            with pytest.raises(InputError):
                data.list(root)
