"""All keys of option files: kind, default and meaning; for keys of other toolkits, why they have no effect.

Arguments of networks, data sets, losses, metrics and optimisers are not here: they come from the constructors.
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
        default: value if the file does not contain the key; `REQUIRED`: it must; `ABSENT`: there is no value then.
        about: its meaning, in one line.
        least: smallest value allowed.
        most: largest value allowed.
        no_effect: why the key has no effect; None for keys with an effect.
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


_PROGRESSIVE = _ignored("published files set these for progressive training, but no published code reads them")
_OWN_FRAMES = _ignored("the layout of the data set determines its frames")

# BasicSR's keys for losses, each with one loss term: `pixel_opt: {type, loss_weight, ...}`.
OLD_LOSS_KEYS = ("pixel_opt", "perceptual_opt", "ssim_opt", "gan_opt", "edge_opt", "tv_opt", "lpips_opt")

DATASET_NAME = r"^(train(_\w+)?|(val|test)(\d+|_\w+)?)$"

# Keys of a data set besides the arguments of its class; an argument with the same name takes precedence.
DATASET: Section = {
    "name": Key(str | None, None, "name in tables and file names"),
    "type": Key(str, REQUIRED, "name of the registered class"),
    "dataset_enlarge_ratio": _ignored("the sampler is endless"),
    "use_shuffle": _ignored("training always shuffles, evaluation never does"),
    "prefetch_mode": _ignored("the loader always prefetches"),
    "num_prefetch_queue": _ignored("the loader always prefetches"),
    "pin_memory": _ignored("memory is pinned whenever a GPU is used"),
    "persistent_workers": _ignored("workers run until training ends"),
    "task": _ignored("the type of the data set determines it"),
    "phase": _ignored("the name of the section determines it"),
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
    "color": _ignored("images are always RGB"),
    "mean": _ignored("images are always in [0, 1]"),
    "std": _ignored("images are always in [0, 1]"),
    "io_backend": _ignored("this data set recognises its storage by itself"),
    "filename_tmpl": _ignored("this data set has its own rule for pairs"),
    "geometric_augs": _ignored("this data set has use_flip and use_rot"),
}
# Instead of a data set of its own, `val` may be a part of the training set.
SPLIT: Section = {
    "split": Key(float, REQUIRED, "share of the training set that is kept for validation; manual_seed chooses it"),
    "name": Key(str | None, None, "name in tables and file names"),
}
# Keys of training sets only.
TRAIN_DATASET: Section = {
    "batch_size_per_gpu": Key(int, 1, "pairs per process in each forward pass", least=1),
    "num_worker_per_gpu": Key(int, 2, "processes that read images, per GPU", least=0),
}


def loader_keys(role: str) -> Section:
    """The keys of the loader in the section `datasets.<role>`: they have an effect in `train` only."""
    if role == "train":
        return TRAIN_DATASET
    streams = role.startswith("train_")
    why = "streams use the batch size of datasets.train" if streams else "images are evaluated one by one"
    return dict.fromkeys(TRAIN_DATASET, _ignored(why))


SCHEMA: Section = {
    "name": Key(str, REQUIRED, "name of the run and of its folder"),
    "model_type": Key(str, "SupervisedModel", "kind of training: SupervisedModel or AdversarialModel"),
    "scale": _ignored("enhancement keeps the size"),
    "num_gpu": Key(
        int | Literal["auto"] | list[int], "auto", "number of processes; auto: one per visible GPU; 0: the CPU", least=0
    ),
    "manual_seed": Key(
        int | list[int], 0, "seed of all random numbers; a list: one run for each seed", least=0, most=2**63 - 1
    ),
    "plugins": Key(list[str], [], "Python files or modules with your own registered classes"),
    "datasets": Key(dict, REQUIRED, "train, val, val_..., test, test_..., and further training streams train_..."),
    "network_g": Key(dict, REQUIRED, "the network: {type: NAME, **arguments}"),
    "network_d": Key(dict | None, None, "the discriminator of adversarial training: {type: NAME, **arguments}"),
    "path": {
        "experiments_root": Key(
            str | None, None, "folder of all training runs; experiments/ in the repository if not given"
        ),
        "results_root": Key(str | None, None, "folder of all test results; results/ in the repository if not given"),
        "pretrain_network_g": Key(
            str | list[str] | None,
            None,
            "weights to start from or to test: a file, a run, hf:OWNER/REPO, or a list of files with one part each",
        ),
        "param_key_g": Key(str, "auto", "entry of the checkpoint to load: auto, params_ema or params"),
        "strict_load_g": Key(bool, True, "every tensor must fit; if false, those that fit are loaded"),
        "pretrain_network_d": Key(str | None, None, "weights of the discriminator to start from"),
        "param_key_d": Key(str, "auto", "see param_key_g"),
        "strict_load_d": Key(bool, True, "see strict_load_g"),
        "resume_state": Key(
            str | None, None, "training state to resume from: training_states/ITERATION.state of a run"
        ),
        "root": _ignored("use experiments_root"),
        "ignore_resume_networks": _ignored("a run resumes with all of its networks"),
    },
    "train": {
        "total_iter": Key(int | None, None, "length of the training in iterations", least=1),
        "total_epochs": Key(int | None, None, "length of the training in epochs, instead of total_iter", least=1),
        "accumulate": Key(int, 1, "number of forward passes per optimiser step", least=1),
        "amp": Key(Literal["bf16", "fp16"] | None, None, "precision of autocast; float32 if not given"),
        "compile": Key(bool, False, "compile the network with torch.compile"),
        "channels_last": Key(bool, False, "keep tensors in NHWC layout"),
        "checkpoint": Key(
            bool, False, "recompute blocks of the network in the backward pass: less memory, more time, same result"
        ),
        "clip_grad_norm": Key(float | None, None, "largest norm of the gradient", least=0),
        "use_grad_clip": _ignored("set clip_grad_norm to the norm you want"),
        "use_static_graph": _ignored("the graph may differ between steps"),
        "ema_decay": Key(float, 0.0, "decay of the moving average of the weights; 0: none", least=0, most=1),
        "max_nonfinite": Key(
            int, 10, "stop after this many steps in a row with a non-finite loss or gradient", least=1
        ),
        "warmup_iter": Key(int, -1, "number of iterations in which the rate rises linearly; -1: none", least=-1),
        "init": Key(
            Literal["data"] | None,
            None,
            "data: scale the convolutions so that the first batch leaves each with mean 0 and deviation 1",
        ),
        "optim_g": Key(
            dict,
            {"type": "Adam", "lr": 1e-4},
            "optimiser of the network: {type: name in torch.optim, lr: ..., **arguments}",
        ),
        "optim_d": Key(dict | None, None, "optimiser of the discriminator"),
        "scheduler": Key(dict, {"type": "constant"}, "learning-rate schedule: {type: NAME, **arguments}"),
        "scheduler_d": Key(dict | None, None, "schedule of the discriminator; the same as scheduler if not given"),
        "losses": Key(list | dict, [], "a list of loss terms {type, weight, ...}, or a mapping of names to terms"),
        "mixing_augs": {
            "mixup": Key(bool, False, "mix each batch with itself in another order"),
            "mixup_beta": Key(float, 1.2, "parameter of the beta distribution of the mixing weights", least=1e-3),
            "use_identity": Key(bool, False, "mix only every second batch (at random)"),
        },
        "random_gamma": Key(
            tuple[float, float] | None, None, "range of random exponents for the inputs, one per batch"
        ),
        "net_d_iters": Key(int, 1, "the generator is updated in every n-th iteration", least=1),
        "net_d_init_iters": Key(int, 0, "iterations at the start that update only the discriminator", least=0),
        **{key: Key(dict | None, ABSENT, "one loss term, in BasicSR's syntax") for key in OLD_LOSS_KEYS},
    },
    "val": {
        "val_freq": Key(int | None, None, "iterations between validations; only at the end if not given", least=1),
        "save_img": Key(bool, False, "save the results of a test as PNG"),
        "suffix": Key(str | None, None, "suffix of the folder of saved images"),
        "metrics": Key(
            dict | None,
            {"psnr": {"type": "psnr"}, "ssim": {"type": "ssim"}},
            "{name: {type: NAME, **arguments}}; the first one decides which checkpoint is the best",
        ),
        "protocols": Key(list[str], ["rgb8", "rgb8-gtmean"], "preparation of the images for each metric"),
        "controls": Key(
            dict[str, float | list[int]], {}, "test-time controls of the network; `llie models` lists them"
        ),
        "average": Key(Literal["image", "folder"], "image", "mean over all images, or over the means of folders"),
        "pbar": _ignored("a progress bar is shown on terminals"),
        "window_size": _ignored("networks pad automatically"),
        "use_image": _ignored("use val.protocols"),
        "rgb2bgr": _ignored("images are RGB everywhere"),
        "max_minibatch": _ignored("images are evaluated one by one"),
        "grids": _ignored("images are enhanced in one piece"),
        "trans_num": _ignored("images are enhanced once, without flipped copies"),
    },
    "logger": {
        "print_freq": Key(int, 100, "iterations between log lines", least=1),
        "save_checkpoint_freq": Key(int, 5000, "iterations between checkpoints", least=1),
        "keep_last": Key(int, 3, "number of checkpoints to keep", least=1),
        "use_tb_logger": Key(bool, True, "write TensorBoard logs"),
        "wandb": _ignored("logs go to TensorBoard and to a JSONL file"),
    },
    "dist_params": {
        "backend": Key(
            Literal["gloo", "nccl", "mpi", "cpu:gloo,cuda:nccl"] | None,
            None,
            "backend of torch.distributed; depends on the device if not given",
        ),
        "port": _ignored("the launcher chooses the port"),
    },
    "find_unused_parameters": Key(
        bool, False, "needed in distributed training of networks with parameters that get no gradient"
    ),
}

# Other toolkits' names of keys, by dotted path.
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
    "use_amp": "train.amp",
    "train.use_amp": "train.amp",
    "train.mixup": "train.mixing_augs.mixup",
}
# Meaning of their values, where it differs.
_AMP = {True: "fp16", False: None}
VALUE_ALIASES: Mapping[str, Mapping[Any, Any]] = {"use_amp": _AMP, "train.use_amp": _AMP}
# Their names of arguments of data sets, for classes that take ours but not theirs.
ARGUMENT_ALIASES = {"use_flip": "use_hflip"}

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
