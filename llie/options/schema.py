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
        about: what it does, in a line, for the guide.
        least: smallest value allowed.
        most: largest value allowed.
        no_effect: why a value of this key changes nothing; None for keys that do something.
    """

    kind: Any
    default: Any = None
    about: str = ""
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
    "name": Key(str | None, None, "of the data set, for tables and files; null: its section's"),
    "type": Key(str, REQUIRED, "the data set's class"),
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
    "batch_size_per_gpu": Key(int, 1, "images per process and batch", least=1),
    "num_worker_per_gpu": Key(int, 2, "processes that load and augment; 0: this one", least=0),
}


def loader_keys(role: str) -> Section:
    """The keys of the loader in the section `datasets.<role>`: only `train` has them, its streams follow."""
    if role == "train":
        return TRAIN_DATASET
    streams = role.startswith("train_")
    why = "streams go with the batches of datasets.train" if streams else "images are evaluated one by one"
    return dict.fromkeys(TRAIN_DATASET, _ignored(why))


SCHEMA: Section = {
    "name": Key(str, REQUIRED, "of the run: its folder under experiments/ or results/"),
    "model_type": Key(
        str, "SupervisedModel", "SupervisedModel learns from pairs, AdversarialModel also against a discriminator"
    ),
    "scale": _ignored("enhancement keeps the size"),
    "num_gpu": Key(
        int | Literal["auto"] | list[int],
        "auto",
        "GPUs to use, one process each; auto: all that are visible, 0: the CPU",
        least=0,
    ),
    "manual_seed": Key(
        int, 0, "seed of initial weights, order, crops and all other random draws", least=0, most=2**63 - 1
    ),
    "plugins": Key(list[str], [], "your own Python files or modules, imported before names are looked up"),
    "datasets": Key(dict, REQUIRED, "train, val and test, see below"),
    "network_g": Key(dict, REQUIRED, "{type: NAME, ...}: the network"),
    "network_d": Key(dict | None, None, "{type: NAME, ...}: the discriminator of AdversarialModel"),
    "path": {
        "experiments_root": Key(str | None, None, "folder of all runs; null: experiments/ in the repository"),
        "results_root": Key(str | None, None, "folder of all results; null: results/ in the repository"),
        "pretrain_network_g": Key(
            str | list[str] | None, None, "weights to start from or to test; a list: files that each hold a part"
        ),
        "param_key_g": Key(
            str, "auto", "entry of the checkpoint to load: params, params_ema; auto: the averaged one if there is one"
        ),
        "strict_load_g": Key(bool, True, "every tensor must fit"),
        "pretrain_network_d": Key(str | None, None, "weights of the discriminator"),
        "param_key_d": Key(str, "auto", "as param_key_g"),
        "strict_load_d": Key(bool, True, "as strict_load_g"),
        "resume_state": Key(
            str | None, None, "training state to resume from; --auto_resume finds the newest by itself"
        ),
        "root": _ignored("experiments_root says where runs are written"),
        "ignore_resume_networks": _ignored("a run resumes as a whole"),
    },
    "train": {
        "total_iter": Key(int | None, None, "length of the run in optimiser steps; or total_epochs", least=1),
        "total_epochs": Key(int | None, None, "length of the run in epochs; or total_iter", least=1),
        "accumulate": Key(int, 1, "batches per optimiser step: a larger batch in the same memory", least=1),
        "amp": Key(Literal["bf16", "fp16"] | None, None, "mixed precision"),
        "compile": Key(bool, False, "compile the network with torch.compile"),
        "channels_last": Key(bool, False, "memory layout of images and weights; often faster, same results"),
        "clip_grad_norm": Key(float | None, None, "largest norm of the gradient; null: no clipping", least=0),
        "use_grad_clip": _ignored("set clip_grad_norm to the norm you want"),
        "ema_decay": Key(
            float,
            0.0,
            "of a moving average of the weights, which is validated and saved as params_ema; 0: none",
            least=0,
            most=1,
        ),
        "max_nonfinite": Key(
            int, 10, "stop after so many steps in a row whose loss or gradient was not finite", least=1
        ),
        "warmup_iter": Key(int, -1, "the learning rate rises linearly up to this iteration; -1: no warm-up", least=-1),
        "optim_g": Key(dict, {"type": "Adam", "lr": 1e-4}, "{type: NAME, lr: ..., ...}: any optimiser of torch.optim"),
        "optim_d": Key(dict | None, None, "of the discriminator"),
        "scheduler": Key(dict, {"type": "constant"}, "{type: NAME, ...}: the learning rate over time"),
        "scheduler_d": Key(dict | None, None, "of the discriminator; null: as scheduler"),
        "losses": Key(
            list | dict, [], "list of loss terms, or mapping of names to them: {type, weight, pred, target, ...}"
        ),
        "mixing_augs": {
            "mixup": Key(bool, False, "blend pairs of the batch with each other"),
            "mixup_beta": Key(float, 1.2, "both parameters of the Beta distribution of the blend", least=1e-3),
            "use_identity": Key(bool, False, "leave every second batch as it is, at random"),
        },
        "random_gamma": Key(
            tuple[float, float] | None,
            None,
            "[low, high]: raise each batch's input to a random power, with the target unchanged",
        ),
        "net_d_iters": Key(
            int, 1, "train the network only in every so many iterations, the discriminator in each", least=1
        ),
        "net_d_init_iters": Key(int, 0, "train the discriminator alone for so many iterations first", least=0),
        **{key: Key(dict | None, ABSENT, "BasicSR's name for a loss term") for key in OLD_LOSS_KEYS},
    },
    "val": {
        "val_freq": Key(int | None, None, "validate every so many iterations; null: only at the end", least=1),
        "save_img": Key(bool, False, "write the pictures"),
        "suffix": Key(str | None, None, "appended to the name of the picture folder"),
        "metrics": Key(
            dict | None,
            {"psnr": {"type": "psnr"}, "ssim": {"type": "ssim"}},
            "mapping of names to {type: NAME, ...}; the first decides which checkpoint is best",
        ),
        "protocols": Key(
            list[str],
            ["rgb8", "rgb8-gtmean"],
            "what is done to a result before it is measured; a plain protocol brings its GT-mean form along",
        ),
        "controls": Key(
            dict[str, float | list[int]], {}, "of the network at evaluation, such as HVI-CIDNet's alpha_rgb"
        ),
        "average": Key(
            Literal["image", "folder"],
            "image",
            "image: mean over images; folder: mean over the means of folders (clips)",
        ),
        "pbar": _ignored("a progress bar is shown on terminals"),
        "window_size": _ignored("networks pad by themselves"),
        "use_image": _ignored("metrics name their protocol"),
        "rgb2bgr": _ignored("images are RGB everywhere"),
        "max_minibatch": _ignored("images are evaluated one by one"),
    },
    "logger": {
        "print_freq": Key(int, 100, "log every so many iterations", least=1),
        "save_checkpoint_freq": Key(int, 5000, "save every so many iterations", least=1),
        "keep_last": Key(int, 3, "numbered checkpoints to keep", least=1),
        "use_tb_logger": Key(bool, True, "write TensorBoard files"),
        "wandb": _ignored("logs go to TensorBoard and to a JSONL file"),
    },
    "dist_params": {
        "backend": Key(
            Literal["gloo", "nccl", "mpi", "cpu:gloo,cuda:nccl"] | None,
            None,
            "of torch.distributed; null: gloo on CPUs, nccl on GPUs",
        ),
        "port": _ignored("the launcher chooses the port"),
    },
    "find_unused_parameters": Key(
        bool, False, "several processes: look for parameters without a gradient; slower, needed by some networks"
    ),
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
