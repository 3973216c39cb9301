"""What refusal rules are made of: the class of a rule, and the groups of words that rules share."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A pattern with a name.

    Attributes:
      name: an identifier that says what the pattern means; no two rules share one.
      pattern: a regular expression over a clause, without capturing groups.
      examples: texts that the rule recognises, and no other rule before it.
      counterexamples: similar texts that no rule recognises.
    """

    name: str
    pattern: str
    examples: tuple[str, ...]
    counterexamples: tuple[str, ...] = ()


WE = r"(?:i|we)"
CAN = r"(?:can|could)"
ADVERBS = (
    r"(?:(?:accurately|clearly|completely|definitively|entirely|fully|honestly|just|quite|really"
    r"|reliably|simply|too|totally|very) ){0,3}"
)

# Verbs of finding out, and their participles.
KNOW = (
    r"(?:answer|ascertain|assess|be (?:certain|sure)|confirm|deduce|determine|discern|distinguish"
    r"|establish|estimate|figure out|guess|identify|infer|judge|know|make out|recogni[sz]e|say"
    r"|specify|tell(?! (?:\w+ ){1,4}apart)|verify|work out)"
)
KNOWN = (
    r"(?:answered|ascertained|calculated|confirmed|counted|deduced|determined|discerned"
    r"|established|estimated|identified|inferred|judged|known|made out|measured|read|recogni[sz]ed"
    r"|seen|told|verified)"
)
# Verbs of answering, and of showing.
HELP = r"(?:comment|decide|find|give|help|name|provide|respond)"
SHOW = (
    r"(?:contain|depict|disclose|display|explain|give|identify|include|indicate|mention|offer"
    r"|provide|reveal|say|show|specify|state|tell)"
)

# What a question is about, and the words that open it.
ATTRIBUTE = (
    r"(?:\w+'s \w+|age|answer|artist|author|brand|breed|city|colou?r|cost|country|date|destination"
    r"|details?|flavou?r|gender|id|identity|information|job|label|location|make|manufacturer"
    r"|meaning|model|name|nationality|number|object|occupation|origin|owner|part|place|plate|price"
    r"|profession|purpose|question|reason|species|temperature|text|time|title|type|weight|writing"
    r"|year)"
)
ASKING = r"(?:who|whose|what|where|when|why|how|which|if|whether)"

# Where an answer would be found, and what it would then be.
IMAGE = r"(?:images?|pictures?|photos?|photographs?|scene|question|context)"
VISIBLE = (
    r"(?:answerable|apparent|available|clear|described|determinable|disclosed|discernible|evident"
    r"|given|identifiable|included|indicated|known|legible|listed|mentioned|named|obvious|provided"
    r"|readable|recorded|revealed|shown|specified|stated|visible)"
)
