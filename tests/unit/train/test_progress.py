"""The status line of a training."""

from qle.console import TrainProgress
from qle.train.progress import TrainStatus


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


def test_a_quiet_one_says_nothing(capsys):
    with TrainProgress(is_quiet=True) as progress:
        progress.note("hidden")
        progress.update(TrainStatus(step=1, num_steps=3, epoch=1, num_epochs=1, note="hidden too"))
    assert capsys.readouterr().err == ""
