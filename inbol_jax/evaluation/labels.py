"""How the report names domains and groups, and how it writes numbers."""

from inbol_jax.pages.figures import MINUS

DOMAIN_LABELS = {"in_domain": "In domain", "out_of_domain": "Out of domain"}
GROUP_LABELS = {
    "type1": "Type 1: known, answer",
    "mixed": "Mixed",
    "type2": "Type 2: unknown, refuse",
    "type12": "Types 1+2: all answerable",
    "type3": "Type 3: not in the image, refuse",
    "all": "All",
}
NONE = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"


def short_label(group: str) -> str:
    """The name of a group without what the model should do: "Type 1"."""
    return GROUP_LABELS[group].split(":")[0]


def percent(share: float) -> str:
    """A share of 1 in percent, with one decimal."""
    return f"{100 * share:.1f}%"


def signed(number: float, decimals: int = 3) -> str:
    """A number with its sign. A number that is rounded to zero has no minus."""
    return f"{round(number, decimals) + 0.0:+.{decimals}f}".replace("-", MINUS)


def with_interval(value: float, low: float, high: float) -> str:
    """A number with the ends of its interval: "+0.500 (+0.400 to +0.600)"."""
    return f"{signed(value)} ({signed(low)}{SPACE}to{SPACE}{signed(high)})"


def duration(seconds: float | int) -> str:
    """Seconds below a minute, minutes and seconds below an hour, hours and minutes above."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
