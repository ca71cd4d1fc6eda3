"Models of a researcher's own: what a class may do and still be trained, saved, loaded and drawn from."

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fsgen import cli
from fsgen.attention import Attention, AttentionPixelCNN
from fsgen.conditional import ConditionalConfig, ConditionalPixelCNN, FewShotModel
from fsgen.datasets import DATA, DataSet, omniglot, photographs
from fsgen.episodes import (
    TASKS,
    Episode,
    ImageSet,
    Splits,
    clustered_error,
    fixed_classes,
    fixed_episodes,
    glyphs,
)
from fsgen.evaluation import by_seed, evaluate, table
from fsgen.experiments import MODELS, Experiment, Family, Table, build
from fsgen.gated import GatedLayer
from fsgen.likelihood import InputError, ancestral_sample
from fsgen.masks import MaskedConv2d, causal_mask
from fsgen.meta import InnerLoss, MetaConfig, MetaPixelCNN
from fsgen.runs import RunFolder, load
from fsgen.sampling import assert_same_pixels, sample
from fsgen.training import train

SIZE = 8
SMALL = dict(size=SIZE, batch=2, targets=2, steps=4, warmup=1, checkpoint_every=2, validate=4)
BODY = dict(layers=2, planes=4, skip=4)


class Mean(NamedTuple):
    ink: Tensor  # (b,)


class NoBody(FewShotModel):
    "One tensor of weights, far fewer than the default settings have layers."

    def __init__(self, *args):
        super().__init__(*args)
        self.net = MaskedConv2d(1, 2, causal_mask("A", 5))

    def encode(self, support):
        return Mean(support.float().mean((1, 2, 3, 4)))

    def predict(self, images, context):
        return (self.net(images.float()) + context.ink[:, None, None, None])[:, :, None]


class NoWeights(NoBody):
    "The share of ink in the supports, at every pixel."

    def __init__(self, *args):
        super(NoBody, self).__init__(*args)

    def predict(self, images, context):
        ink = context.ink.clamp(0.01, 0.99).view(-1, 1, 1, 1, 1)
        return torch.cat([1 - ink, ink], 1).log().expand(-1, -1, *self.shape)


class Tied(ConditionalPixelCNN):
    def __init__(self, *args):
        super().__init__(*args)
        self.again = self.encoder


class OverShots(ConditionalPixelCNN):
    def __init__(self, *args):
        super().__init__(*args)
        self.over_shots = nn.Conv3d(1, 4, 3, padding=1)


class LooksAtNumbers(ConditionalPixelCNN):
    "What can't be done on torch's device meta."

    def __init__(self, *args):
        super().__init__(*args)
        rings = torch.linspace(0, 1, SIZE).round().unique()
        self.register_buffer("rings", rings, persistent=False)
        self.order_by = torch.linspace(-1, 1, SIZE).abs().numpy().argsort()


class Orthogonal(ConditionalPixelCNN):
    "Its weights have other names on the device meta."

    def __init__(self, *args):
        super().__init__(*args)
        nn.utils.parametrizations.orthogonal(self.encoder.summary[0])


@dataclass(frozen=True)
class NumberedConfig(ConditionalConfig):
    depth: Literal[1, 2] = 1


class Numbered(ConditionalPixelCNN):
    config_class = NumberedConfig


@pytest.mark.parametrize("cls", [NoBody, Tied, OverShots, LooksAtNumbers, Orthogonal, Numbered])
def test_trained_and_loaded(cls, monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "own", cls)
    sizes = BODY if issubclass(cls, ConditionalPixelCNN) else {}
    model = train(Experiment().vary(model="own", **SMALL, **sizes), tmp_path / "run", glyphs(SIZE))
    again, (support, target) = load(tmp_path / "run"), fixed_episodes(glyphs(SIZE).test, "characters", 4, 3)
    assert torch.equal(model.nll(target, support), again.nll(target, support))
    with pytest.warns(match="has no entry in SAMPLERS"):
        assert sample(again, support).shape == target.shape


def test_no_weights():
    exam = fixed_episodes(glyphs(SIZE).test, "characters", 4, 6)
    classes = fixed_classes(glyphs(SIZE).test, 6)
    row, nats = evaluate(NoWeights((1, SIZE, SIZE), 2), exam, classes=classes)
    assert row["parameters"] == 0 and 0 < nats.mean() < math.log(2)


def test_choices_of_any_kind():
    with pytest.raises(InputError, match="depth must be one of 1, 2, not 3"):
        NumberedConfig(depth=3)


class Bare(ConditionalPixelCNN):
    def encode(self, support):
        return super().encode(support).summary


class Flat(ConditionalPixelCNN):
    def predict(self, images, context):
        return super().predict(images, context)[:, :, 0]


@pytest.mark.parametrize(
    ("cls", "said"),
    [(Bare, "encode must return a NamedTuple of tensors"), (Flat, "predict must return logits of shape")],
)
def test_wrong_shapes(cls, said):
    support, target = fixed_episodes(glyphs(SIZE).test, "characters", 4, 3)
    with pytest.raises(InputError, match=said):
        cls((1, SIZE, SIZE), 2, ConditionalConfig(**BODY)).nll(target, support)


class LowRank(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + 1


class OtherAttention(Attention):
    def queries(self, h):
        return 2 * super().queries(h)


class OtherLayer(GatedLayer):
    "Which could do anything."


def replaced(model, name, module):
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
    return model


@pytest.mark.parametrize(
    ("cls", "name", "module"),
    [
        (ConditionalPixelCNN, "body.layers.1.skip", LowRank(4, 4, 1)),
        (ConditionalPixelCNN, "body.layers.1.skip", nn.Sequential(nn.Conv2d(4, 4, 1))),
        (ConditionalPixelCNN, "body.layers.1.dropout", nn.Identity()),
        (ConditionalPixelCNN, "body.layers.1", OtherLayer(4, 4, 64)),
        (AttentionPixelCNN, "attention", OtherAttention(4, 32)),
        (AttentionPixelCNN, "attention.query.linear", nn.Sequential(nn.Linear(18, 32))),
    ],
)
def test_replaced_parts_are_not_drawn_wrong(cls, name, module):
    model = replaced(cls((1, SIZE, SIZE), 2, cls.config_class(**BODY)), name, module)
    with pytest.raises(InputError, match=f"{name} has the class {type(module).__name__}"):
        sample(model, torch.zeros(1, 2, 1, SIZE, SIZE, dtype=torch.uint8))


def test_tied_layers_are_drawn():
    model = ConditionalPixelCNN((1, SIZE, SIZE), 2, ConditionalConfig(**BODY | dict(layers=4)))
    model.body.layers[1].skip = model.body.layers[0].skip
    assert_same_pixels(model, torch.randint(2, (2, 2, 1, SIZE, SIZE), dtype=torch.uint8))


class OwnLoss(InnerLoss):
    def __init__(self, body, learned, stride):
        super().__init__(body, False, stride)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, support, x):
        return self.weight * super().forward(support, x)


class OwnMeta(MetaPixelCNN):
    loss_class = OwnLoss


def test_own_inner_loss():
    config = MetaConfig(**BODY, init="scaled")
    model = OwnMeta((1, 4, 4), 2, config)  # too small for g, which it doesn't have
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    assert model.nll(images, images[None]).isfinite().all()


class Kept(ConditionalPixelCNN):
    def __init__(self, *args):
        super().__init__(*args)
        self.basis = 2 * self.encoder.summary[0].weight


class Extra(ConditionalPixelCNN):
    def get_extra_state(self):
        return {"seen": 1}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(("cls", "said"), [(Kept, "can't be copied"), (Extra, "_extra_state .* no tensor")])
def test_refused_before_training(cls, said, monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "own", cls)
    with pytest.raises(InputError, match=said):
        train(Experiment().vary(model="own", **SMALL, **BODY), tmp_path / "run", glyphs(SIZE))


def test_splits():
    experiment = Experiment().vary(model="conditional", **SMALL, **BODY)
    large = glyphs(10)
    for given, said in [
        (Splits(glyphs(SIZE).train, large.test), "differ in shape or levels"),
        (tuple(glyphs(SIZE)), "must be Splits"),
    ]:
        with pytest.raises(InputError, match=said):
            train(experiment, "nowhere", given)
    with pytest.raises(InputError, match="held_out splits the training classes"):
        train(experiment.vary(held_out=True), "nowhere", glyphs(SIZE))


def test_decay_of_weights_by_name(monkeypatch, tmp_path):
    class Recurrent(ConditionalPixelCNN):
        def __init__(self, *args):
            super().__init__(*args)
            self.unused = nn.GRU(2, 3)

    monkeypatch.setitem(MODELS, "own", Recurrent)
    experiment = Experiment().vary(model="own", **SMALL, **BODY, weight_decay=1.0)
    model = train(experiment, tmp_path / "run", glyphs(SIZE))
    plain = train(experiment.vary(weight_decay=0.0), tmp_path / "plain", glyphs(SIZE))
    assert model.unused.weight_ih_l0.norm() < plain.unused.weight_ih_l0.norm()
    assert torch.equal(model.unused.bias_ih_l0, plain.unused.bias_ih_l0)


def test_episodes_whatever_the_default_dtype():
    data = glyphs(SIZE).test
    as_always = fixed_episodes(data, "characters", 4, 6)
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.equal(fixed_episodes(data, "characters", 4, 6).support, as_always.support)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(levels=300), "levels must be 2 to 256"),
        (dict(levels=torch.tensor(2)), "levels must be 2 to 256"),
        (dict(labels=torch.tensor([0, 1], dtype=torch.uint8)), "Labels must be int64"),
        (dict(labels=torch.tensor([[0], [1]])), "Labels must be int64"),
        (dict(labels=[0, 1]), "must be tensors, not Tensor and list"),
        (dict(images=torch.zeros(2, 1, 2, 2, dtype=torch.uint8).numpy()), "must be tensors, not ndarray"),
        (dict(names=(0, 1)), "Class names must be words"),
    ],
)
def test_image_sets(change, said):
    good = ImageSet(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), 2)
    with pytest.raises(InputError, match=said):
        replace(good, **change)


def test_deepest_model_is_loaded(tmp_path):
    experiment = Experiment().vary(model="no-support", size=SIZE, layers=1_000, planes=1, skip=1)
    model = MODELS["no-support"]((1, SIZE, SIZE), 2, experiment.settings)
    facts = {"experiment": experiment.record(), "steps": 0, "seconds": 0.0, "shape": [1, SIZE, SIZE]}
    folder = RunFolder(tmp_path)
    folder.save_weights(model.state_dict(), facts | {"levels": 2, "commit": "", "device": ""})
    assert len(load(tmp_path).state_dict()) == len(model.state_dict())


def test_order_of_places():
    for wrong in ([(0, 0), (0, 1), (1, 0), (-1, 0)], [(0, 0), (0, 1), (1, 0), (5, 5)], [(0, 0)] * 4):
        with pytest.raises(InputError, match="order must name each of the 4 places once"):
            ancestral_sample(lambda x: torch.zeros(1, 2, 1, 2, 2), (1, 1, 2, 2), order=wrong)


def test_settings_as_slips():
    for slip, said in [
        (dict(model=NoBody), "There is no model"),
        (dict(settings={}), "takes settings of type"),
    ]:
        with pytest.raises(InputError, match=said):
            Experiment().vary(**slip)


def test_lock_that_is_gone(tmp_path):
    folder, model = RunFolder(tmp_path / "run"), NoBody((1, SIZE, SIZE), 2)
    with folder.owned():
        (folder.path / "lock").unlink()
        with pytest.raises(InputError, match="lock is gone; nothing more is saved there"):
            folder.save_weights(model.state_dict(), {})


def test_data_set_that_cannot_be_read(fsgen, monkeypatch):
    def read(size):
        raise FileNotFoundError("no such file")

    monkeypatch.setitem(DATA, "mine", DataSet(read))
    code, out, _ = fsgen("data")
    assert code == 0 and "mine: no such file" in out


def test_sample_is_whole_or_not_there(monkeypatch, tmp_path):
    models = [NoBody((1, SIZE, SIZE), 2) for _ in range(2)]
    monkeypatch.setattr(cli, "columns", lambda *_: dict(zip("ab", models, strict=True)))
    monkeypatch.setattr(cli, "load", lambda *_: None)
    monkeypatch.setattr(cli, "own_support", lambda *_: torch.zeros(1, 1, 1, SIZE, SIZE, dtype=torch.uint8))

    def draw(model, *_):
        if model is models[1]:
            raise InputError("refused")
        return torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)

    monkeypatch.setattr(cli, "sample", draw)
    with pytest.raises(InputError, match="refused"):
        cli.sample_from(["a", "b"], ["x.png"], 1, 0, tmp_path, png=True)
    assert not list(tmp_path.iterdir())


def test_a_task_that_gives_fewer_supports_is_refused(monkeypatch):
    def fewer(*args):
        support, target = TASKS["characters"](*args)
        return Episode(support[:, :1], target)

    monkeypatch.setitem(TASKS, "fewer", fewer)
    with pytest.raises(InputError, match="must make 2 support sets of 4.* made 2 of 1"):
        fixed_episodes(glyphs(SIZE).test, "fewer", 4, 2)


def test_a_model_may_limit_its_support_sets(monkeypatch):
    @dataclass(frozen=True)
    class FewConfig(ConditionalConfig):
        most: int = 2

    class FewPixelCNN(ConditionalPixelCNN):
        config_class = FewConfig
        limited_by = "most"

    monkeypatch.setitem(MODELS, "few", FewPixelCNN)
    with pytest.raises(InputError, match="The model few takes at most most=2 support images; set most=3"):
        Experiment().vary(model="few", shots=3)
    assert Family({"shots": 3}).experiment("few-shot", "few").settings.most == 3


def test_what_was_set_on_a_model_alone_is_not_drawn_without():
    torch.manual_seed(0)
    model = ConditionalPixelCNN((1, SIZE, SIZE), 2, ConditionalConfig(**BODY))
    support = fixed_episodes(glyphs(SIZE).test, "characters", 2, 1).support
    head = model.body.heads[0]
    plain = head.forward
    head.forward = lambda *inputs: plain(*inputs) * 30
    with pytest.raises(InputError, match=r"body\.heads\.0 has its own forward"):
        sample(model, support)
    del head.forward
    model.body.features = model.body.features
    with pytest.raises(InputError, match="body has its own features"):
        sample(model, support)
    del model.body.features
    predict = model.predict
    model.predict = lambda *inputs: predict(*inputs) / 0.01  # a temperature
    with pytest.raises(InputError, match="own predict, which the fast sampler does not heed"):
        sample(model, support)
    scales = build(Experiment().vary(model="conditional", scales=2, **BODY), (1, SIZE, SIZE), 2)
    scales.logits = scales.logits
    with pytest.raises(InputError, match="own logits, which the fast sampler does not heed"):
        sample(scales, support)


def test_classes_go_by_names_that_differ():
    images = torch.zeros(4, 1, SIZE, SIZE, dtype=torch.uint8)
    with pytest.raises(InputError, match="Two classes have one name"):
        ImageSet(images, torch.tensor([0, 0, 1, 1]), ("x", "x"), 2)
    with pytest.raises(InputError, match="go by their names"):
        clustered_error(torch.rand(3), [0, 0, 1])


def test_training_needs_gradients(tmp_path):
    experiment = Experiment().vary(**SMALL, **BODY)
    for without in (torch.no_grad(), torch.inference_mode()):
        with without, pytest.raises(InputError, match="Training needs gradients"):
            train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_without_weights_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "no-weights", NoWeights)
    with pytest.raises(InputError, match="no-weights has no weights to train"):
        train(Experiment().vary(model="no-weights", **SMALL), tmp_path / "run")


def test_rows_of_other_images_share_no_table():
    row = {"experiment": "a-0", "seed": 0, "nats_per_dim": 0.1, "images": "one"}
    with pytest.raises(InputError, match="seeds of a were measured on different images"):
        by_seed([row, row | {"experiment": "a-1", "seed": 1, "images": "another"}])
    same = dict(model="m", task="inversion", data="glyphs", split="test", shots=1, stderr=None)
    with pytest.raises(InputError, match="same images"):
        table([row | same, row | same | {"experiment": "b-0", "model": "n", "images": "another"}])


def test_a_row_says_the_shape_of_its_images():
    model = ConditionalPixelCNN((2, 9, 13), 5, ConditionalConfig(**BODY))
    images = torch.randint(5, (3, 2, 9, 13), dtype=torch.uint8)
    row, _ = evaluate(model, Episode(images[:, None], images))
    assert (row["shape"], row["levels"]) == ([2, 9, 13], 5)


@pytest.mark.parametrize("call", [
    lambda: glyphs(12.0), lambda: omniglot(26.0), lambda: photographs("folder", 16.0),
    lambda: fixed_episodes(glyphs(SIZE).test, "characters", 1.5), lambda: load("a" * 5_000),
])  # fmt: skip
def test_slips_of_kind_are_sentences(call):
    with pytest.raises(InputError):
        call()


def test_registrations_of_no_use():
    with pytest.raises(InputError, match="fields in a dict, not 5"):
        Family(5)
    with pytest.raises(InputError, match="The row 'oops' must be a dict of changes, not 5"):
        Table("glyphs-4shot", {"conditional": {}, "oops": 5}, to="conditional")
