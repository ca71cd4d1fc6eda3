"Few-shot autoregressive density estimation in PyTorch: a tutorial that trains"

# This file and __main__.py are written by hand; nbs/ exports the others.
from importlib import import_module

__version__ = "0.1.0"

# A name is imported when first used, so that `import fsgen` costs milliseconds, not torch.
_HOME = {
    "likelihood": ["InputError", "ancestral_sample", "bits_per_dim", "nats_per_dim"],
    "gated": ["BodyConfig", "PixelCNN"],
    "episodes": [
        "TASKS",
        "Episode",
        "ImageSet",
        "Splits",
        "characters",
        "fixed_classes",
        "fixed_episodes",
        "glyphs",
        "inversion",
        "products",
        "same_class",
    ],
    "conditional": ["ConditionalConfig", "ConditionalPixelCNN", "FewShotModel"],
    "attention": ["AttentionConfig", "AttentionPixelCNN"],
    "meta": ["MetaConfig", "MetaPixelCNN"],
    "union": ["CopyingConfig", "CopyingPixelCNN"],
    "multiscale": ["MultiscalePixelCNN"],
    "datasets": ["DATA", "DataSet", "omniglot", "photographs"],
    "experiments": [
        "EXPERIMENTS",
        "FAMILIES",
        "LOSSES",
        "MODELS",
        "TABLES",
        "Experiment",
        "Family",
        "Table",
        "find_experiment",
    ],
    "runs": ["load"],
    "training": ["train"],
    "sampling": ["SAMPLERS", "BodyInputs", "assert_same_pixels", "fixed_point_sample", "sample"],
    "evaluation": ["evaluate", "paired_difference", "sample_sheet"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [*_MODULE]


def __getattr__(name):
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
