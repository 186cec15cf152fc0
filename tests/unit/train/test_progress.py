"""The status line of a training."""

from qle.cli.progress import TrainProgress
from qle.train.progress import TrainStatus, score_label


def test_the_line_has_step_loss_score_rate_and_time_left(capsys):
    now_s = 0.0
    progress = TrainProgress(interval_s=0.0, clock=lambda: now_s)
    with progress:
        progress.update(TrainStatus(step=0, num_steps=300, epoch=1, num_epochs=10, run="seed-0", note="going on"))
        for step in range(1, 5):
            now_s = float(2 * step)
            status = TrainStatus(
                step=step,
                num_steps=300,
                epoch=1,
                num_epochs=10,
                run="seed-0",
                loss=0.4119,
                score=0.8712,
                best_score=0.9,
            )
            progress.update(status)
        now_s = 20.0
        progress.update(TrainStatus(step=1, num_steps=300, epoch=1, num_epochs=10, run="seed-1"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "seed-0: going on"
    assert (
        "seed-0  step 4/300  epoch 1/10  loss 0.412  val AUROC 0.871 (best 0.900)  0.5 steps/s  ETA 9 min 52 s" in lines
    )
    assert lines[-1] == "seed-1  step 1/300  epoch 1/10"  # another seed: its rate is not known yet


def test_seeds_that_are_trained_at_once_share_the_line(capsys):
    def status(run: str, step: int, **more: object) -> TrainStatus:
        return TrainStatus(step=step, num_steps=30, epoch=1, num_epochs=3, run=run, has_company=True, **more)

    with TrainProgress(interval_s=0.0, clock=lambda: 0.0) as progress:
        progress.update(status("seed-0", 10))
        progress.update(status("seed-1", 2, score=0.5, best_score=0.5, score_label="mAP"))
        progress.update(status("seed-0", 30, is_over=True, note="failed: no disk"))
        progress.update(status("seed-1", 3))
    assert capsys.readouterr().err.splitlines() == [
        "seed-0  step 10/30  epoch 1/3",
        "seed-0 10/30  |  seed-1 2/30 mAP 0.500",
        "seed-0: failed: no disk",
        "seed-1  step 3/30  epoch 1/3",
    ]


def test_scores_have_names_for_people():
    assert [score_label(name) for name in ("val_auroc", "val_mAP", "val_r@1")] == ["AUROC", "mAP", "r@1"]


def test_a_quiet_one_says_nothing(capsys):
    with TrainProgress(is_quiet=True) as progress:
        progress.note("hidden")
        progress.update(TrainStatus(step=1, num_steps=3, epoch=1, num_epochs=1, note="hidden too"))
    assert capsys.readouterr().err == ""
