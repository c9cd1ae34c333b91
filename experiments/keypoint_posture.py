"""Posture from keypoints that nobody annotated, also on a mat that was never seen.

Paper: Yu et al., "A self-supervised pressure map human keypoint detection approach" (keypoints:
jaxbed/models/efd.py, classifiers: jaxbed/models/keypoint_graphs.py). The encoder learns without
labels from the training subjects' maps and is frozen; posture is read from its 128 keypoints by
the paper's three graph networks, by those with learned node identity ("_id"), and by a
perceptron on the nodes in order ("ordered"). Beside them stand the majority class, the nearest
neighbour, a frozen random encoder and a small network trained from scratch.

Run:  python -m experiments.keypoint_posture                          (simulated sleepers)
      python -m experiments.keypoint_posture --data pmd --data-dir DIR    (data_prep.pmd)
      python -m experiments.keypoint_posture --study steps --data pmd --data-dir DIR
          (what each step of canonicalisation and augmentation brings)
      python -m experiments.keypoint_posture --data mat --data-dir DIR --from-run WORKDIR
          --evaluate-only                  (a trained run on your own mat, data_prep.mat_folder)
Published: SLP 95.25 / 95.18 / 95.56 % (GCN / GAT / GraphSAGE), the unfamiliar SMaL 89.72 / 98.39 /
99.22 %; neither set is public.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxbed.cli import Resume, by_preset, run
from jaxbed.errors import InputError
from jaxbed.machine import Training

Arm = Literal["crwt", "plain", "no_dilation", "no_exchange"]
Classifier = Literal["gcn", "gat", "sage", "gcn_id", "gat_id", "sage_id", "ordered"]
Labels = Literal["posture", "position"]
Step = Literal["median", "centred", "root"]

# The small presets work at 64x32, the canonical grid itself, with a thin decoder without
# exchange layers: those take half of a step, and the decoder is dropped after training.
_SMALL: dict[str, Any] = {
    "image_size": (64, 32),
    "decoder_features": (16, 8, 8, 4),
    "arms": ("no_exchange",),
    "batch_size": 16,
    "classifiers": ("gcn", "gat", "sage", "sage_id", "ordered"),
    "quick_compile": False,
    "costs": "counted",
    "thin": (20, 10),
}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": _SMALL
    | {
        "decoder_features": (4, 4, 4, 4),
        "stage1_steps": 2,
        "stage2_steps": 3,
        "batch_size": 4,
        "copies": 1,
        "gcn_steps": 3,
        "ordered_steps": 3,
        "sage_steps": 2,
        "gat_steps": 2,
        "cnn_steps": 3,
        "folds": 2,
        "encoders": 2,
        "classifiers": ("gcn", "sage_id", "ordered"),
        "quick_compile": True,
        "simulated": (5, 16),
    },
    "quick": _SMALL
    | {
        "stage1_steps": 40,
        "stage2_steps": 260,
        "copies": 6,
        "gcn_steps": 1500,
        "ordered_steps": 400,
        "sage_steps": 80,
        "gat_steps": 20,
        "cnn_steps": 200,
        "folds": 2,
        "encoders": 2,
        "simulated": (24, 40),
    },
    "long": _SMALL
    | {
        "stage1_steps": 600,
        "stage2_steps": 3400,
        "copies": 24,
        "gcn_steps": 5000,
        "ordered_steps": 2000,
        "sage_steps": 600,
        "gat_steps": 200,
        "cnn_steps": 1000,
        "folds": 5,
        "encoders": 3,
        "costs": "measured",
        "thin": (20, 1),
        "simulated": (100, 60),
    },
    "paper": {
        "image_size": (256, 256),
        "decoder_features": (64, 32, 16, 8),
        "arms": ("crwt", "plain", "no_dilation", "no_exchange"),
        "stage1_steps": 10_000,
        "stage2_steps": 40_000,
        "batch_size": 32,
        "copies": 40,
        "gcn_steps": 5000,
        "ordered_steps": 5000,
        "sage_steps": 5000,
        "gat_steps": 5000,
        "cnn_steps": 5000,
        "folds": 5,
        "encoders": 13,
        "classifiers": ("gcn", "gat", "sage", "gcn_id", "gat_id", "sage_id", "ordered"),
        "quick_compile": False,
        "costs": "measured",
        "thin": (5, 1),
        "simulated": (100, 100),
    },
}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """Settings; those without a default follow --preset."""

    preset: Literal["smoke", "quick", "long", "paper"] = "quick"
    """smoke: about a minute, proves that everything runs. quick: some minutes. long: some hours
    on two cores. paper: 256x256 and every arm, for an accelerator."""
    workdir: Path = Path("runs/keypoint_posture")
    """Where everything is written."""
    study: Literal["train", "steps"] = "train"
    """train: the system, its tables and figures. steps: what each step of canonicalisation and
    augmentation brings, each with an encoder of its own."""
    resume: Resume = False
    """Go on from the last checkpoints in --workdir; begin where there are none."""
    data: Literal["simulated", "pmd", "popu", "mat"] = "simulated"
    """Simulated sleepers, PMD's experiment i, PoPu (over the mattress), or your own mat."""
    data_dir: Path | None = None
    """The --out of the data_prep command; needed unless --data simulated."""
    unseen_pmd: Path | None = None
    """Also test, without training on it, on PMD's experiment ii in this prepared folder, and unless
    --data pmd on experiment i; by default where --data pmd holds one."""
    unseen_popu: Path | None = None
    """Also test on PoPu, over and under the mattress."""
    unseen_mat: Path | None = None
    """Also test on a mat folder of your own."""
    labelled_subjects: int = 0
    """Of every unseen mat, so many subjects' labels also train the classifiers; the others are
    tested on."""
    from_run: Path | None = None
    """The workdir of a finished run, whose system is evaluated; needs --evaluate-only."""
    evaluate_only: bool = False
    """Train nothing: evaluate the system of --from-run on --data."""
    trust_description: bool = False
    """Evaluate even where the maps contradict the mat's description."""

    protocol: Literal["leave_one_out", "folds", "fixed", "paper"] | None = None
    """leave_one_out: every subject is tested by classifiers that never saw them (the default for
    PMD). folds: groups of subjects in turn (the default elsewhere). fixed: --test-subjects.
    paper: a random fifth of the maps, which shares people."""
    folds: int | None = None
    """Groups of subjects of --protocol folds."""
    test_subjects: tuple[str, ...] = ()
    """Who is tested on in --protocol fixed; by default subjects 11 to 13 of PMD, else the last
    fifth. In --study steps by default subjects 8 to 10, and 11 to 13 are left out entirely."""
    encoders: int | None = None
    """How many encoders share the folds; each is trained without all subjects that its folds
    test on. As many as folds: each sees all but its fold's."""
    encoder_sees_all: bool = False
    """One encoder for all folds, trained without labels on everybody, test subjects included;
    the report then says so."""
    labels: tuple[Labels, ...] | None = None
    """posture: 3 or 4 classes. position: the set's own finer classes (PMD: 17). By default
    both for PMD, else posture."""
    arms: tuple[Arm, ...] | None = None
    """Encoders to compare: with CRWT, without it (plain), and CRWT with a poorer decoder."""
    classifiers: tuple[Classifier, ...] | None = None
    """What reads postures from keypoints; _id: with learned node identity; ordered: a
    perceptron."""
    finetune: bool = False
    """Also train the encoder on, with the ordered classifier behind it."""
    seed: int = 0
    """Of initial weights, order, augmentation, folds and simulation."""

    canonical: tuple[Step, ...] = ("median", "centred", "root")
    """Steps that bring a map into the canonical frame: hot and dead sensors filtered, the
    centre of pressure in the middle, the root of the pressure. With --canonical none of them."""
    shift_mm: tuple[float, float] = (127.0, 101.6)
    """Augmentation: largest shift down and across."""
    roll_deg: float = 12.0
    """Largest turn."""
    scale: float = 0.12
    """Largest stretch, as a logarithm, down and across by themselves."""
    gain: float = 0.15
    """Standard deviation of every sensor's gain, as a logarithm."""
    gamma: float = 0.25
    """Largest exponent on the pressure, as a logarithm."""
    dead: float = 0.02
    """Largest share of dead sensors."""
    mirror: bool = True
    """Mirror half of the maps, left and right exchanged."""
    ask_mirrored: bool = True
    """Ask readers about every map and about its mirror image, and take the mean of both answers;
    costs twice as much."""
    rebuild: Literal["canonical", "seen"] = "canonical"
    """What the decoder rebuilds from an augmented map: the map before that, or what it saw."""

    image_size: tuple[int, int] | None = None
    """Height and width of the encoder's input, multiples of 32."""
    decoder_features: tuple[int, int, int, int] | None = None
    """Channels of the decoder's routes; the paper's are 64 32 16 8."""
    simulated: tuple[int, int] | None = None
    """Simulated subjects and maps of each."""
    thin: tuple[int, int] | None = None
    """Of a recording, every so many frames are trained on, and tested on; they are alike."""
    stage1_steps: int | None = None
    """Steps of an encoder's classification (arm plain: of reconstruction)."""
    stage2_steps: int | None = None
    """Steps of its reconstruction."""
    batch_size: int | None = None
    """Maps per step of an encoder."""
    learning_rate: float = 5e-3
    """Peak of an encoder's schedules."""
    l2_weight: float = 100.0
    """The paper's alpha."""
    ssim_weight: float = 1.0
    """The paper's beta."""
    sharpness: float = 4.0
    """Factor on the heatmap logits."""
    contact_threshold: float = 0.01
    """Scaled pressure above which a pixel is in contact (stage 1)."""
    copies: int | None = None
    """Augmented copies of the training maps whose keypoints classifiers are trained on."""
    gcn_steps: int | None = None
    """Steps of gcn, which are the quickest by far."""
    ordered_steps: int | None = None
    """Steps of ordered."""
    sage_steps: int | None = None
    """Steps of sage."""
    gat_steps: int | None = None
    """Steps of gat, of a quarter of the batch each: attention costs ten times as much."""
    cnn_steps: int | None = None
    """Steps of the small network from scratch, and of --finetune."""
    classifier_batch_size: int = 64
    """Maps per step of a classifier."""
    classifier_learning_rate: float = 2e-3
    """Peak of a classifier's schedule."""

    costs: Literal["counted", "measured"] | None = None
    """Of the six keypoint networks: parameters and MACs, or also latency and throughput."""
    quick_compile: bool | None = None
    """Compile faster to slower programs; pays for a handful of steps on a CPU."""


def main(config: Config) -> Path:
    """Trains and writes the report, or evaluates a trained run; returns the report's path."""
    config = resolved(config)
    _check(config)

    config.configure()
    if config.evaluate_only:
        from experiments import keypoint_posture_stranger as study
    elif config.study == "steps":
        from experiments import keypoint_posture_steps as study
    else:
        from experiments import keypoint_posture_study as study

    report = study.run(config)
    print(report)
    return report


def resolved(config: Config) -> Config:
    """Fills what was left open, from the preset and from what the data suggest."""
    pmd = config.data == "pmd"
    by_data = {
        "protocol": "leave_one_out" if pmd else "folds",
        "labels": ("posture", "position") if pmd else ("posture",),
    }
    if config.study == "steps" or config.test_subjects:
        by_data["protocol"] = "fixed"
    return by_preset(config, {config.preset: PRESETS[config.preset] | by_data})


def _check(config: Config) -> None:
    height, width = config.image_size
    if height % 32 or width % 32 or min(height, width) < 32:
        raise InputError(
            f"--image-size is {height} {width}, but both must be multiples of 32, at least 32."
        )
    if config.data != "simulated" and config.data_dir is None:
        command = {"mat": "mat_folder"}.get(config.data, config.data)
        raise InputError(
            f"--data {config.data} needs --data-dir, the folder that `python -m "
            f"data_prep.{command}` wrote."
        )
    if config.evaluate_only != (config.from_run is not None):
        raise InputError(
            "--evaluate-only and --from-run WORKDIR go together; name the workdir of a finished "
            "run and add --evaluate-only, or leave both out to train."
        )
    if config.test_subjects and config.protocol != "fixed":
        raise InputError(
            f"--test-subjects names people, but --protocol is {config.protocol}; take --protocol "
            "fixed, or leave them out."
        )
    for flag, chosen in {"--arms": config.arms, "--classifiers": config.classifiers}.items():
        if not chosen or len(set(chosen)) < len(chosen):
            raise InputError(f"{flag} must name at least one, each once; it is {chosen}.")
    if config.study == "steps" and (config.protocol != "fixed" or config.labelled_subjects):
        raise InputError(
            "--study steps tests on --test-subjects; leave out --protocol and --labelled-subjects."
        )
    if not config.labels:
        raise InputError("--labels names nothing; take posture, position, or both.")
    _check_numbers(config)


def _check_numbers(config: Config) -> None:
    counts = (
        *("stage1_steps", "stage2_steps", "batch_size", "gcn_steps", "ordered_steps"),
        *("sage_steps", "gat_steps", "cnn_steps", "classifier_batch_size", "encoders"),
    )
    for name in counts:
        if getattr(config, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is {getattr(config, name)}, but must be at least 1.")
    if config.folds < 2:
        raise InputError(f"--folds is {config.folds}, but must be at least 2.")
    if min(config.thin) < 1:
        raise InputError(f"--thin is {config.thin}, but both must be at least 1.")
    if min(config.copies, config.labelled_subjects) < 0:
        raise InputError("--copies and --labelled-subjects must not be negative.")
    for name in ("learning_rate", "classifier_learning_rate", "sharpness"):
        if not np.isfinite(getattr(config, name)) or getattr(config, name) <= 0:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is {getattr(config, name)}, but must be above 0.")
    reach = (*config.shift_mm, config.roll_deg, config.scale, config.gain, config.gamma)
    if min(reach) < 0 or not np.isfinite(reach).all() or not 0 <= config.dead < 1:
        raise InputError(
            "--shift-mm, --roll-deg, --scale, --gain, --gamma must not be negative, and --dead "
            "must lie in [0, 1)."
        )


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
