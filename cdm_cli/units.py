"""Bytes, seconds and operations in units of people: 20.8 GB, 2 h 39 min, 7.5 TFLOP; 1 image."""

MINUTE, HOUR, DAY = 60, 3600, 86400
HISSING = ("s", "x", "ch", "sh")
ONE = {"are": "is", "were": "was", "have": "has"}


def format_disk(count: int) -> str:
    """Return a number of bytes as disks are sold: powers of 1000, three digits."""
    return _scale(count, 1000, ("B", "kB", "MB", "GB", "TB", "PB"))


def format_memory(count: int) -> str:
    """Return a number of bytes as memory is sold: powers of 1024, three digits."""
    return _scale(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def format_operations(count: int) -> str:
    """Return a number of floating point operations, three digits: 7.5 TFLOP."""
    return _scale(count, 1000, ("FLOP", *(f"{power}FLOP" for power in "kMGTPEZY")))


def _scale(count: int, base: int, names: tuple[str, ...]) -> str:
    value, unit = float(count), 0
    while value >= base * 0.9995 and unit < len(names) - 1:
        value, unit = value / base, unit + 1
    digits = 0 if unit == 0 or value >= 99.95 else 1
    return f"{value:.{digits}f} {names[unit]}"


def format_duration(seconds: float) -> str:
    """Return seconds in their two largest units: 8 s, 1 min 40 s, 2 h 39 min, 3 days 4 h."""
    seconds = round(seconds)
    if seconds < 1:
        return "less than a second"
    for size, name, rest, part in ((DAY, "days", HOUR, "h"), (HOUR, "h", MINUTE, "min")):
        if seconds >= size - rest // 2:
            whole, left = divmod(round(seconds / rest), size // rest)
            name = "day" if (name, whole) == ("days", 1) else name
            return f"{whole} {name}" + (f" {left} {part}" if left else "")
    minutes, left = divmod(seconds, MINUTE)
    return " ".join([f"{minutes} min"] * bool(minutes) + [f"{left} s"] * bool(left))


def format_count(num: int, noun: str, verb: str = "") -> str:
    """Return a number with what it counts: 1 image, 2 images, 0 classes; 1 block is, 2 blocks are.

    noun: in the singular. verb: "are", "were" or "have", which then follows it.
    """
    ending = "" if num == 1 else "es" if noun.endswith(HISSING) else "s"
    said = ONE[verb] if num == 1 and verb else verb
    return f"{num} {noun}{ending} {said}".rstrip()


def is_number(cell: object) -> bool:
    """Tell whether a cell of a table is a number, or empty."""
    try:
        float(str(cell) or 0)
    except ValueError:
        return False
    return True
