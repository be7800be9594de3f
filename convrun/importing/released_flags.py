"""The flags of the released ConvNeXt code: main.py's, and what run_with_submitit.py adds (their commit 048efce)."""

from __future__ import annotations

from convrun.importing.flags import Flag, yes_or_no

_LAUNCH = "convrun's launcher sets it"

MAIN_FLAGS = (
    Flag("batch_size", int, 64),
    Flag("epochs", int, 300),
    Flag("update_freq", int, 1),
    # the model
    Flag("model", str, "convnext_tiny"),
    Flag("drop_path", float, 0.0),
    Flag("input_size", int, 224),
    Flag("layer_scale_init_value", float, 1e-6),
    # the average of the weights
    Flag("model_ema", yes_or_no, False),
    Flag("model_ema_decay", float, 0.9999),
    Flag("model_ema_force_cpu", yes_or_no, False, "no effect", "it moves the average, which stays the same"),
    Flag("model_ema_eval", yes_or_no, False),
    # optimization
    Flag("opt", str, "adamw"),
    Flag("opt_eps", float, 1e-8),
    Flag("opt_betas", float, None, nargs="+"),
    Flag("clip_grad", float, None),
    Flag("momentum", float, 0.9),
    Flag("weight_decay", float, 0.05),
    Flag("weight_decay_end", float, None),
    Flag("lr", float, 4e-3),
    Flag("layer_decay", float, 1.0),
    Flag("min_lr", float, 1e-6),
    Flag("warmup_epochs", int, 20),
    Flag("warmup_steps", int, -1),
    # augmentation
    Flag("color_jitter", float, 0.4),
    Flag("aa", str, "rand-m9-mstd0.5-inc1"),
    Flag("smoothing", float, 0.1),
    Flag("train_interpolation", str, "bicubic"),
    Flag("crop_pct", float, None),
    Flag("reprob", float, 0.25),
    Flag("remode", str, "pixel"),
    Flag("recount", int, 1),
    Flag("resplit", yes_or_no, False, "no effect", "main.py reads it and never uses it"),
    Flag("mixup", float, 0.8),
    Flag("cutmix", float, 1.0),
    Flag("cutmix_minmax", float, None, nargs="+"),
    Flag("mixup_prob", float, 1.0),
    Flag("mixup_switch_prob", float, 0.5),
    Flag("mixup_mode", str, "batch"),
    # weights to start from
    Flag("finetune", str, ""),
    Flag("head_init_scale", float, 1.0),
    Flag("model_key", str, "model|module"),
    Flag("model_prefix", str, ""),
    # the data
    Flag("data_path", str, "/datasets01/imagenet_full_size/061417/"),
    Flag("eval_data_path", str, None),
    Flag("nb_classes", int, 1000),
    Flag("imagenet_default_mean_and_std", yes_or_no, True),
    Flag("data_set", str, "IMNET", choices=("CIFAR", "IMNET", "image_folder")),
    Flag("output_dir", str, ""),
    Flag("log_dir", str, None),
    Flag("device", str, "cuda"),
    Flag("seed", int, 0),
    Flag("resume", str, ""),
    Flag("auto_resume", yes_or_no, True),
    Flag("save_ckpt", yes_or_no, True),
    Flag("save_ckpt_freq", int, 1),
    Flag("save_ckpt_num", int, 3),
    Flag("start_epoch", int, 0),
    Flag("eval", yes_or_no, False, "refused", "it trains nothing, and a recipe is a training"),
    Flag("dist_eval", yes_or_no, True, "no effect", "every process evaluates its share, and each image counts once"),
    Flag("disable_eval", yes_or_no, False),
    Flag("num_workers", int, 10),
    Flag("pin_mem", yes_or_no, True, "no effect", "it is about speed"),
    # processes
    Flag("world_size", int, 1, "no effect", "main.py takes the number of processes from its launcher"),
    Flag("local_rank", int, -1, "no effect", _LAUNCH),
    Flag("dist_on_itp", yes_or_no, False, "no effect", _LAUNCH),
    Flag("dist_url", str, "env://", "no effect", _LAUNCH),
    Flag("use_amp", yes_or_no, False),
    # Weights and Biases
    Flag("enable_wandb", yes_or_no, False),
    Flag("project", str, "convnext"),
    Flag("wandb_ckpt", yes_or_no, False),
)

SUBMITIT_FLAGS = (
    Flag("ngpus", int, 8),
    Flag("nodes", int, 2),
    Flag("timeout", int, 72),
    Flag("job_name", str, "convnext"),
    Flag("job_dir", str, ""),
    Flag("partition", str, "learnlab"),
    Flag("use_volta32", None, True),
    Flag("comment", str, ""),
)
