"""Every key of an option file: its kind, default and meaning; for keys of older toolkits, why they have no effect.

Arguments of networks, data sets, losses, metrics and optimisers are not listed here: they come from the constructors.
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
        default: value when the file does not give it; `REQUIRED`: it must; `ABSENT`: the key is then left out.
        about: what it sets, in a line.
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


_PROGRESSIVE = _ignored("published files set these for progressive training, but no published code reads them")
_OWN_FRAMES = _ignored("the layout of the data set determines its frames")

# BasicSR's loss keys: `pixel_opt: {type, loss_weight, ...}` and the like, each one loss term.
OLD_LOSS_KEYS = ("pixel_opt", "perceptual_opt", "ssim_opt", "gan_opt", "edge_opt", "tv_opt", "lpips_opt")

DATASET_NAME = r"^(train(_\w+)?|(val|test)(\d+|_\w+)?)$"

# Keys of a data set besides the arguments of its class; an argument of the same name takes precedence.
DATASET: Section = {
    "name": Key(str | None, None, "name in tables and of files"),
    "type": Key(str, REQUIRED, "name of the registered class"),
    "dataset_enlarge_ratio": _ignored("the sampler is endless"),
    "use_shuffle": _ignored("training always shuffles, evaluation never does"),
    "prefetch_mode": _ignored("the loader always prefetches"),
    "num_prefetch_queue": _ignored("the loader always prefetches"),
    "pin_memory": _ignored("memory is pinned whenever a GPU is used"),
    "persistent_workers": _ignored("workers live as long as the training"),
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
# Only a training set has these.
TRAIN_DATASET: Section = {
    "batch_size_per_gpu": Key(int, 1, "pairs per process in each forward pass", least=1),
    "num_worker_per_gpu": Key(int, 2, "processes that read images, per GPU", least=0),
}


def loader_keys(role: str) -> Section:
    """The keys of the loader in the section `datasets.<role>`: only `train` has them, its streams follow."""
    if role == "train":
        return TRAIN_DATASET
    streams = role.startswith("train_")
    why = "streams go with the batches of datasets.train" if streams else "images are evaluated one by one"
    return dict.fromkeys(TRAIN_DATASET, _ignored(why))


SCHEMA: Section = {
    "name": Key(str, REQUIRED, "name of the run, and of its folder"),
    "model_type": Key(str, "SupervisedModel", "what one training step is"),
    "scale": _ignored("enhancement keeps the size"),
    "num_gpu": Key(
        int | Literal["auto"] | list[int], "auto", "number of processes; auto: one per visible GPU; 0: the CPU", least=0
    ),
    "manual_seed": Key(int, 0, "all random numbers follow from it", least=0, most=2**63 - 1),
    "plugins": Key(list[str], [], "Python files or modules with your own registered classes"),
    "datasets": Key(dict, REQUIRED, "train, val, val_..., test, test_..., and further streams of training, train_..."),
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
            "weights to start from or to test: a file, a run, hf:OWNER/REPO, or a list of files that each hold a part",
        ),
        "param_key_g": Key(str, "auto", "entry of the checkpoint to load: auto, params_ema or params"),
        "strict_load_g": Key(bool, True, "every tensor must fit; otherwise those that fit are loaded"),
        "pretrain_network_d": Key(str | None, None, "weights of the discriminator to start from"),
        "param_key_d": Key(str, "auto", "as param_key_g"),
        "strict_load_d": Key(bool, True, "as strict_load_g"),
        "resume_state": Key(str | None, None, "training state to continue from, models/ITERATION.state of a run"),
        "root": _ignored("use experiments_root"),
        "ignore_resume_networks": _ignored("a run resumes as a whole"),
    },
    "train": {
        "total_iter": Key(int | None, None, "length of the training in iterations", least=1),
        "total_epochs": Key(int | None, None, "length of the training in epochs, instead of total_iter", least=1),
        "accumulate": Key(int, 1, "forward passes whose gradients make one optimiser step", least=1),
        "amp": Key(Literal["bf16", "fp16"] | None, None, "precision of autocast; float32 if not given"),
        "compile": Key(bool, False, "compile the network with torch.compile"),
        "channels_last": Key(bool, False, "keep tensors in NHWC layout"),
        "clip_grad_norm": Key(float | None, None, "largest norm of the gradient", least=0),
        "use_grad_clip": _ignored("set clip_grad_norm to the norm you want"),
        "use_static_graph": _ignored("the graph of a step may change"),
        "ema_decay": Key(float, 0.0, "decay of the moving average of the weights; 0: none", least=0, most=1),
        "max_nonfinite": Key(int, 10, "stop after so many steps in a row with a non-finite loss or gradient", least=1),
        "warmup_iter": Key(int, -1, "iterations over which the rate rises linearly; -1: none", least=-1),
        "optim_g": Key(
            dict,
            {"type": "Adam", "lr": 1e-4},
            "optimiser of the network: {type: name in torch.optim, lr: ..., **arguments}",
        ),
        "optim_d": Key(dict | None, None, "optimiser of the discriminator"),
        "scheduler": Key(dict, {"type": "constant"}, "learning-rate schedule: {type: NAME, **arguments}"),
        "scheduler_d": Key(dict | None, None, "schedule of the discriminator; scheduler if not given"),
        "losses": Key(list | dict, [], "a list of loss terms {type, weight, ...}, or a mapping of names to terms"),
        "mixing_augs": {
            "mixup": Key(bool, False, "mix each batch with itself in another order"),
            "mixup_beta": Key(
                float, 1.2, "parameter of the beta distribution that the mixing weights come from", least=1e-3
            ),
            "use_identity": Key(bool, False, "leave every second batch as it is"),
        },
        "random_gamma": Key(
            tuple[float, float] | None, None, "range of exponents for the inputs: each batch is raised to a random one"
        ),
        "net_d_iters": Key(int, 1, "the generator steps in every n-th iteration", least=1),
        "net_d_init_iters": Key(int, 0, "iterations of the discriminator alone at the start", least=0),
        **{key: Key(dict | None, ABSENT, "one loss term, in the words of BasicSR") for key in OLD_LOSS_KEYS},
    },
    "val": {
        "val_freq": Key(int | None, None, "validate every so many iterations; only at the end if not given", least=1),
        "save_img": Key(bool, False, "save the results of a test as PNG"),
        "suffix": Key(str | None, None, "ending of the folder of saved images"),
        "metrics": Key(
            dict | None,
            {"psnr": {"type": "psnr"}, "ssim": {"type": "ssim"}},
            "{name: {type: NAME, **arguments}}; the first one decides which checkpoint is the best",
        ),
        "protocols": Key(list[str], ["rgb8", "rgb8-gtmean"], "how images are prepared for each metric"),
        "controls": Key(
            dict[str, float | list[int]], {}, "test-time controls of the network, as listed by `llie models`"
        ),
        "average": Key(Literal["image", "folder"], "image", "mean over all images, or over the means of folders"),
        "pbar": _ignored("a progress bar is shown on terminals"),
        "window_size": _ignored("networks pad by themselves"),
        "use_image": _ignored("use val.protocols"),
        "rgb2bgr": _ignored("images are RGB everywhere"),
        "max_minibatch": _ignored("images are evaluated one by one"),
        "grids": _ignored("images are enhanced whole"),
        "trans_num": _ignored("images are enhanced once, without flipped copies"),
    },
    "logger": {
        "print_freq": Key(int, 100, "log every so many iterations", least=1),
        "save_checkpoint_freq": Key(int, 5000, "save a checkpoint every so many iterations", least=1),
        "keep_last": Key(int, 3, "number of checkpoints kept", least=1),
        "use_tb_logger": Key(bool, True, "write TensorBoard logs"),
        "wandb": _ignored("logs go to TensorBoard and to a JSONL file"),
    },
    "dist_params": {
        "backend": Key(
            Literal["gloo", "nccl", "mpi", "cpu:gloo,cuda:nccl"] | None,
            None,
            "of torch.distributed; chosen by device if not given",
        ),
        "port": _ignored("the launcher chooses the port"),
    },
    "find_unused_parameters": Key(
        bool, False, "networks with parameters that get no gradient need it in distributed training"
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
    "use_amp": "train.amp",
    "train.use_amp": "train.amp",
    "train.mixup": "train.mixing_augs.mixup",
}
# What values of theirs mean in ours, where they differ.
_AMP = {True: "fp16", False: None}
VALUE_ALIASES: Mapping[str, Mapping[Any, Any]] = {"use_amp": _AMP, "train.use_amp": _AMP}
# Names of data sets' arguments, for classes that take ours but not theirs.
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
