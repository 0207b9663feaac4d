"""Every key an option file may hold: its kind, its default, and, for keys of older toolkits, why it has no effect.

Keys of networks, data sets, losses, metrics and optimisers are not listed here: their constructors say what they take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

REQUIRED = object()
ABSENT = object()


@dataclass(frozen=True)
class Key:
    """One option.

    Attributes:
        kind: Python type annotation of its value.
        default: value when the file does not give it; `REQUIRED`: it must; `ABSENT`: it then stays away.
        least: smallest value allowed.
        most: largest value allowed.
        no_effect: why a value of this key changes nothing; None for keys that do something.
    """

    kind: Any
    default: Any = None
    least: float | None = None
    most: float | None = None
    no_effect: str | None = None


Section = Mapping[str, Union[Key, "Section"]]


def _ignored(why: str) -> Key:
    return Key(Any, ABSENT, no_effect=why)


_PROGRESSIVE = _ignored("published files announce progressive training by these, yet nothing ever read them")
_OWN_FRAMES = _ignored("the frames of video sets are found and read as the data set's layout demands")

# BasicSR's loss keys: `pixel_opt: {type, loss_weight, ...}` and the like, each one loss term.
OLD_LOSS_KEYS = ("pixel_opt", "perceptual_opt", "ssim_opt", "gan_opt", "edge_opt", "tv_opt", "lpips_opt")

# What may stand in a data set's options beside the arguments of its class (an argument of that name comes first).
DATASET: Section = {
    "name": Key(str | None),
    "type": Key(str, REQUIRED),
    "dataset_enlarge_ratio": _ignored("the sampler is endless"),
    "use_shuffle": _ignored("training always shuffles, evaluation never does"),
    "prefetch_mode": _ignored("the loader always prefetches"),
    "num_prefetch_queue": _ignored("the loader always prefetches"),
    "pin_memory": _ignored("memory is pinned whenever a GPU is used"),
    "phase": _ignored("the name of the data set says it"),
    "scale": _ignored("enhancement keeps the size"),
    "mini_batch_sizes": _PROGRESSIVE,
    "iters": _PROGRESSIVE,
    "gt_sizes": _PROGRESSIVE,
    "interval_list": _OWN_FRAMES,
    "random_reverse": _OWN_FRAMES,
    "border_mode": _OWN_FRAMES,
    "N_frames": _OWN_FRAMES,
    "padding": _OWN_FRAMES,
    "cache_keys": _OWN_FRAMES,
    "cache_data": _OWN_FRAMES,
    "mode": _OWN_FRAMES,
    "color": _ignored("networks see RGB"),
    "mean": _ignored("networks see values in [0, 1]"),
    "std": _ignored("networks see values in [0, 1]"),
    "io_backend": _ignored("this data set recognises its storage by itself"),
    "filename_tmpl": _ignored("this data set pairs by its own rule"),
    "geometric_augs": _ignored("this data set has use_flip and use_rot"),
}
# Only a training set has these.
TRAIN_DATASET: Section = {
    "batch_size_per_gpu": Key(int, 1, least=1),
    "num_worker_per_gpu": Key(int, 2, least=0),
}


def loader_keys(role: str) -> Section:
    """The keys of the loader in the section `datasets.<role>`: only `train` has them, its streams follow."""
    if role == "train":
        return TRAIN_DATASET
    streams = role.startswith("train_")
    why = "streams go with the batches of datasets.train" if streams else "images are evaluated one by one"
    return dict.fromkeys(TRAIN_DATASET, _ignored(why))


SCHEMA: Section = {
    "name": Key(str, REQUIRED),
    "model_type": Key(str, "SupervisedModel"),
    "scale": _ignored("enhancement keeps the size"),
    "num_gpu": Key(int | Literal["auto"] | list[int], "auto", least=0),
    "manual_seed": Key(int, 0, least=0, most=2**63 - 1),
    "plugins": Key(list[str], []),
    "datasets": Key(dict, REQUIRED),
    "network_g": Key(dict, REQUIRED),
    "network_d": Key(dict | None),
    "path": {
        "experiments_root": Key(str | None),
        "results_root": Key(str | None),
        "pretrain_network_g": Key(str | list[str] | None),  # a list: files that each hold a part
        "param_key_g": Key(str, "auto"),
        "strict_load_g": Key(bool, True),
        "pretrain_network_d": Key(str | None),
        "param_key_d": Key(str, "auto"),
        "strict_load_d": Key(bool, True),
        "resume_state": Key(str | None),
        "root": _ignored("experiments_root says where runs are written"),
        "ignore_resume_networks": _ignored("a run resumes as a whole"),
    },
    "train": {
        "total_iter": Key(int | None, least=1),
        "total_epochs": Key(int | None, least=1),
        "accumulate": Key(int, 1, least=1),
        "amp": Key(Literal["bf16", "fp16"] | None),
        "compile": Key(bool, False),
        "channels_last": Key(bool, False),
        "clip_grad_norm": Key(float | None, least=0),
        "use_grad_clip": _ignored("set clip_grad_norm to the norm you want"),
        "ema_decay": Key(float, 0.0, least=0, most=1),
        "max_nonfinite": Key(int, 10, least=1),
        "warmup_iter": Key(int, -1, least=-1),
        "optim_g": Key(dict, {"type": "Adam", "lr": 1e-4}),
        "optim_d": Key(dict | None),
        "scheduler": Key(dict, {"type": "constant"}),
        "scheduler_d": Key(dict | None),
        "losses": Key(list | dict, []),
        "mixing_augs": {
            "mixup": Key(bool, False),
            "mixup_beta": Key(float, 1.2, least=1e-3),
            "use_identity": Key(bool, False),
        },
        "random_gamma": Key(tuple[float, float] | None),
        "net_d_iters": Key(int, 1, least=1),
        "net_d_init_iters": Key(int, 0, least=0),
        **{key: Key(dict | None, ABSENT) for key in OLD_LOSS_KEYS},
    },
    "val": {
        "val_freq": Key(int | None, None, least=1),
        "save_img": Key(bool, False),
        "suffix": Key(str | None),
        "metrics": Key(dict | None, {"psnr": {"type": "psnr"}, "ssim": {"type": "ssim"}}),
        "protocols": Key(list[str], ["rgb8", "rgb8-gtmean"]),
        "controls": Key(dict[str, float | list[int]], {}),  # of the network at evaluation: HVI-CIDNet's alpha_rgb ...
        "average": Key(Literal["image", "folder"], "image"),
        "pbar": _ignored("a progress bar is shown on terminals"),
        "window_size": _ignored("networks pad by themselves"),
        "use_image": _ignored("metrics name their protocol"),
        "rgb2bgr": _ignored("images are RGB everywhere"),
        "max_minibatch": _ignored("images are evaluated one by one"),
    },
    "logger": {
        "print_freq": Key(int, 100, least=1),
        "save_checkpoint_freq": Key(int, 5000, least=1),
        "keep_last": Key(int, 3, least=1),
        "use_tb_logger": Key(bool, True),
        "wandb": _ignored("logs go to TensorBoard and to a JSONL file"),
    },
    "dist_params": {
        "backend": Key(Literal["gloo", "nccl", "mpi", "cpu:gloo,cuda:nccl"] | None),
        "port": _ignored("the launcher chooses the port"),
    },
    "find_unused_parameters": Key(bool, False),
}

# Other toolkits' names for keys, by dotted path.
KEY_ALIASES = {
    "gpu_ids": "num_gpu",
    "network_G": "network_g",
    "network_g.which_model_G": "network_g.type",
    "network_D": "network_d",
    "network_d.which_model_D": "network_d.type",
    "path.pretrain_model_G": "path.pretrain_network_g",
    "path.pretrain_model_D": "path.pretrain_network_d",
    "path.strict_load": "path.strict_load_g",
    "path.param_key": "path.param_key_g",
}

MODEL_ALIASES = {
    "SRModel": "SupervisedModel",
    "ImageCleanModel": "SupervisedModel",
    "ImageRestorationModel": "SupervisedModel",
    "MambaLLIE": "SupervisedModel",
    "LLIEModel": "SupervisedModel",
    "SRGANModel": "AdversarialModel",
}
DATASET_ALIASES = {
    "Dataset_PairedImage": "PairedImageDataset",
    "Dataset_SMIDImage": "SMIDDataset",
    "Dataset_SDSDImage": "SDSDDataset",
    "Dataset_SIDImage": "SIDDataset",
    "SingleImageDataset": "UnpairedImageDataset",
}
