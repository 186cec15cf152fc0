"""Times as people read them."""

STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def clock(time_s: float, *, tenths: bool = True) -> str:
    """75.04 -> "01:15.0", 3675 -> "1:01:15.0"; rounded before it is split, so that 59.96 is 01:00.0."""
    units = round(max(time_s, 0.0) * 10) if tenths else round(max(time_s, 0.0)) * 10
    minutes, rest = divmod(units, 600)
    seconds = f"{rest // 10:02d}" + (f".{rest % 10}" if tenths else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes:02d}:{seconds}"


def ticks(duration_s: float, most: int = 10) -> tuple[list[float], float]:
    """Round times within 0..duration, at most `most` + 1 of them, and their distance."""
    step = next((step for step in STEPS_S if duration_s / step <= most), STEPS_S[-1])
    while duration_s / step > most:
        step *= 2
    return [number * step for number in range(int(duration_s / step) + 1)], step
