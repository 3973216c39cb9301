"""The wordings of refusals in English, as a table of names, examples and patterns.

A pattern is read against one clause: lower-case words with single blanks between them, with short
forms spelt out ("don't" is "do not", "cannot" is "can not") and without punctuation. It holds
anywhere in the clause, at the borders of words, if it does not begin with "^". "<KNOW>" stands for
one of the words of that name in `WORDS`.

To add a rule, add a row with an example that no rule before it recognises. A pattern must be
bounded ("{0,3}", never "*"), so that time stays linear in the length of the text.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Rule(NamedTuple):
    """A wording of refusals: its name, a text that it recognises, and a regular expression.

    Attributes:
      kind: "declines" if the speaker is not willing or not allowed to answer, "does_not_know" if
        the speaker does not know or the image does not show it, "denies_premise" if the text denies
        what the question takes for granted.
    """

    name: str
    example: str
    pattern: str
    kind: str


# fmt: off
WORDS = {
    "WE": "(?:i|we)",
    "CAN": "(?:can|could)",
    "ADVERBS": r"(?:(?:\w+ly|just|quite|too|very) ){0,3}",
    "ASKING": "(?:who|whose|what|where|when|why|how|which|if|whether)",
    # Verbs of finding out and of answering, and their participles.
    "KNOW":
        "(?:answer|ascertain|assess|be (?:certain|sure)|calculate|choose|comment|compare|compute"
        "|conclude|count|decide|decipher|deduce|describe|determine|diagnose|discern|distinguish"
        "|establish|estimate|evaluate|figure out|find the|gauge|guess|help|identify|infer|judge"
        "|justify|know|make out|match|measure|name|narrow|pinpoint|provide|read|recogni[sz]e"
        r"|resolve|respond|say|select|solve|specify|state|tell(?! (?:\w+ ){1,4}apart)|verify"
        "|work out)",
    "KNOWN":
        "(?:answered|calculated|compared|computed|concluded|counted|deduced|derived|determined"
        "|discerned|estimated|evaluated|given|identified|inferred|judged|known|made out|measured"
        "|pinpointed|predicted|provided|read|solved|specified|stated|told|verified)",
    # What a document does, or what an image shows.
    "INFORM":
        "(?:address|answer|clarify|confirm|cover|describe|detail|disclose|discuss|elaborate"
        "|explain|give|identify|indicate|mention|offer|provide|reveal|say|specify|state|tell)",
    "INFORMED":
        "(?:clarified|described|determinable|determined|disclosed|discussed|explained|given"
        "|indicated|known|mentioned|provided|revealed|specified|stated)",
    "SHOWN":
        "(?:<INFORMED>|answerable|available|clear|evident|legible|listed|named|obvious|readable"
        "|recorded|shown|visible)",
    # What is asked for. "'s" is the end of any noun.
    "ATTRIBUTE":
        r"(?:'s \w+|age|answer|artist|author|brand|breed|city|colou?r|cost|country|date|details?"
        "|direction|distance|flavou?r|gender|height|id|identity|information|job|label|length"
        "|location|make|meaning|model|name|number|object|occupation|origin|owner|part|place"
        "|plate|price|profession|question|reason|score|size|species|speed|step|temperature|text"
        "|time|title|type|value|weight|word|writing|year)",
    "INFORMATION": "(?:information|context|data|details?|clues?|knowledge)",
    # Where an answer would be found.
    "IMAGE":
        "(?:images?|pictures?|photos?|photographs?|scene|videos?|clips?|frames?|question"
        "|context)",
    "DOCUMENT":
        "(?:articles?|contexts?|data|documents?|evidence|excerpts?|filings?|information"
        "|passages?|reports?|sources?|text)",
    "SOURCE":
        "(?:<IMAGE>|<DOCUMENT>|agreement|audio|book|captions?|charts?|code|contract|dialogue"
        "|diagrams?|figures?|files?|footage|graphs?|map|options|papers?|plan|plot|problem|prompt"
        "|results?|screenshot|script|section|sequence|snippet|story|tables?|transcript)",
    # Not "the man pouring a drink": who does not show that, denies it.
    "NOT_DOING": r"(?!(?:the|his|her|its) (?:(?!is\b|are\b|was\b)[\w']+ ){1,3}\w+ing\b)",
}
# fmt: on


def fill(pattern: str) -> str:
    """The pattern with the words in place of their names."""
    while (filled := re.sub(r"<(\w+)>", lambda name: WORDS[name[1]], pattern)) != pattern:
        pattern = filled
    return pattern


def _rules(kind: str, rows: Iterable[tuple[str, str, str]]) -> tuple[Rule, ...]:
    return tuple(Rule(name, example, fill(pattern), kind) for name, example, pattern in rows)


# fmt: off
# The speaker is not willing, or not allowed.
DECLINES = _rules("declines", (
    ("cannot_assist", "I can't assist with that.",
     r"i (?:(?:can|could|will) not|am (?:not (?:\w+ )?able|unable|not going) to) (?:\w+ly )?"
     r"(?:assist|complete|comply|continue|discuss|display|do (?:that|this)|encourage|endorse|engage"
     r"|execute|follow (?:that|this)|fulfil{1,2}|generate|help (?:you|with)|support|write)|i am not"
     r" (?:allowed|authori[sz]ed|permitted|programmed) to|against (?:\w+ ){0,3}polic(?:y|ies)"),
    ("cannot_provide", "I cannot provide instructions for making that.",
     r"i (?:(?:can|could|will) not|am (?:not (?:\w+ )?able|unable|not going) to) (?:give|offer"
     r"|provide|share)(?: you)?(?: with)?(?! (?:\w+ ){0,12}(?:based|because|from|since|solely"
     r"|unless|without)\b) (?!<ADVERBS>(?:\w+ ){0,2}(?:answers?|count|date|description|details?"
     r"|estimate|integer|name|number|response|requested|result|solution|value)\b)"),
    ("does_not_condone", "I do not condone violence.",
     "(?:do|can|will) not (?:condone|promote|encourage|endorse)"),
    ("rather_not", "I'd rather not say.",
     "^(?:it|this|that) (?:is|would be) (?:(?:not|never) (?:appropriate|ethical)|unethical"
     r"|unsafe)(?: (?:or|and) \w+)? to|^i (?:would )?(?:rather not|prefer not to)|^i (?:decline"
     "|abstain|give up|pass$)|^i (?:do not feel|am not) comfortable|^i (?:do|will"
     "|would) not (?:(?:care|like|want|wish) to )?(?:guess|answer|say|speculate)"),
))
# The speaker does not know, or it cannot be found out.
DOES_NOT_KNOW = _rules("does_not_know", (
    ("do_not_know", "I don't know.",
     "^(?:<WE> )?<ADVERBS>do not <ADVERBS>(?:know|recogni[sz]e)|(?:is that|so) <WE> do not know"
     r"|^(?:<WE> have (?:got )?)?(?:\w+ly )?no (?:idea|clue)(?:$| (?:about|<ASKING>))"
     r"|^i (?:do not )?have (?:not )?(?:an?|any|the \w+) (?:idea|clue)"),
    ("not_sure", "I'm not quite sure.",
     "^(?:i am |i do )?<ADVERBS>not <ADVERBS>(?:feel )?(?:sure|certain|confident|familiar)(?:$"
     r"| (?!that\b))|^i am <ADVERBS>un(?:sure|certain)|^un(?:sure|certain)(?:$| <ASKING>)"
     "|<WE> (?:am|are) not (?:aware|told)"),
    ("cannot_tell", "I can't tell who that is.",
     "(?:<WE>|one|you|it|<SOURCE>) <ADVERBS><CAN> not <ADVERBS><KNOW>"
     r"|i <CAN> not <ADVERBS>(?!be\b|believe|discern any|feel|find an?\b|find any|hear|help but"
     r"|imagine|recommend|see(?! or)|spot|stress|tell|think|wait)\w+|(?:nobody|no one"
     r"|not (?:think|believe) (?:that )?(?:<WE>|one|you)) <CAN> <KNOW>|i (?:\w+ ){1,9}(?:and"
     "|so) (?:i )?(?:do|<CAN>) not <KNOW>|^<CAN> not (?:see it|<KNOW>(?:$| (?:as|based|because"
     "|by|due|from|it|since|that|the|this|with|without|<ASKING>)))"),
    ("unable", "I'm unable to read the sign.",
     r"(?<!if )i (?:am|was) (?:\w+ ){0,4}(?:unable|not (?:\w+ )?able) to|(?<!if )(?:we"
     r"|you) (?:are|were) unable to <ADVERBS>(?:<KNOW>|see)|i (?:am (?:\w+ ){1,5}and )?do not "
     r"have the (?:ability|capability|capacity) to|<WE> (?:am|are) not (?:\w+ )?(?:capable of"
     "|(?:equipped|qualified|trained) to) (?!feel|hav|think)|^unable to (?:<KNOW>|see)"),
    ("beyond_me", "That one is beyond me.",
     r"^(?:\w+ ){1,12}is (?:\w+ )?(?:beyond|outside) (?:me$|my|what i)|^who knows$|^beats me"
     "|^your guess is as good|be (?:a guess|guess(?:ing|work)|speculation)|(?:<WE>"
     "|you) would have to (?:ask|check|know|look|see)|i (?:will|would) need"
     r"|i would not (?:be able|know)|not something (?:that )?(?:\w+ ){1,2}(?:know|<INFORM>s?)"
     "|my knowledge does not"),
    ("cannot_be_known", "The brand cannot be determined.",
     "<CAN> not <ADVERBS>be <ADVERBS>(?:<KNOWN>|drawn|made$)"),
    ("no_answer_possible", "No reliable answer can be given.",
     r"no (?:\w+ ){0,3}<CAN> be <KNOWN>|no (?:clear |definite |possible |specific )?answer(?:$"
     "| (?:in the|to (?:that|the|this|your) question))|^n a$"),
    ("nothing_found", "No record found.",
     r"no (?:\w+ )?(?:answers?|details|records?|results?) (?:available|found)|i (?:could|can"
     r"|did) not find (?:(?:an|any|enough|the) (?:\w+ ){0,2}(?:answers?|mention|records?|sources?"
     "|<INFORMATION>))"),
    ("impossible", "From here it's impossible to see.",
     "(?:impossible|(?:not|never) possible|hard|difficult|tough|tricky) (?:for (?:me"
     "|us) )?to <ADVERBS>(?:<KNOW>|see)"),
    ("too_blurry", "The text is too small to read.",
     r"(?:too|so) (?:\w+ ){1,4}to (?:<ADVERBS><KNOW>|be (?:legible|read))"),
    ("no_way_to_tell", "There's no way to tell.",
     r"(?:no|not (?:a|any)) way (?:for (?:me|us) )?(?:to (?:see|<KNOW>)|of \w+ing)"),
    ("unclear", "Unanswerable.",
     "^(?:(?:it |that |this |the answer |answer )?(?:is|was|remains) )?(?:unanswerable|unclear"
     r"|unknown|undetermined|indeterminate|unknowable|not (?:\w+ )?<SHOWN>)(?:$| (?:at this|based"
     "|because|from|in|on|by|to|<ASKING>))|^<ATTRIBUTE> (?:is )?(?:not answerable|unknown)"
     r"|^<ASKING> (?:\w+ ){1,9}(?:is|are|remains?) (?:not <SHOWN>|uncertain|unclear|unknown)"),
    ("unanswerable_question", "This question is unanswerable.",
     "(?:question|problem|<IMAGE>) (?:is|are) (?:un|not )(?:answer|solv)able|(?:question|problem"
     r"|statement|prompt) (?:\w+ )?(?:seems |appears )?(?:(?:is|was|to be) )?(?:(?:ambiguous"
     "|broad|general|incomplete|missing|subjective|unclear|vague)|(?:to )?(?:lack|miss)(?:s"
     "|es)?)"),
    ("does_not_have_information", "I don't have access to that.",
     r"<WE> (?:\w+ly )?(?:do|would) not (?:\w+ly )?(?:have|possess) (?:\w+ ){0,8}(?:<INFORMATION>"
     "|access|facts|figures|statistics|updates?|values)|(?:<WE>|one|you) (?:lack"
     r"|need) (?:\w+ ){0,3}<INFORMATION>|(?:more|further|additional) (?:\w+ ){0,2}<INFORMATION> "
     r"(?:\w+ ){0,12}?(?:would be|is|are) (?:necessary|needed|required)"),
    ("asks_for_more", "Please provide the picture.",
     "(?:^|(?:could|can|if) you (?:please |could |can )?)(?:also )?(?:clarify|describe|provide"
     "|send|share|specify|supply|tell|(?:try )?upload(?:ing)?)(?: me| us)?(?: with)? (?:a|an"
     "|additional|any|further|more|the(?! answer)|your)"),
    ("not_enough_to_tell", "There is not enough to go on.",
     r"not (?:have )?(?:clear )?enough (?:\w+ ){0,2}to (?:<KNOW>|go on|make an? \w+)|<WE> (?:can"
     r"|do) not see enough|<IMAGE> (?:\w+ )?(?:does|do|is|are) not (?:\w+ )?(?:enough"
     "|sufficient)"),
    ("no_information", "Insufficient information.",
     "(?:not (?:any|enough|sufficient)|insufficient|no) (?:(?:additional|available|clear|further"
     "|legible|more|readable|relevant|specific|visible|visual) )?(?:<INFORMATION>(?<!evidence)"
     "|evidence (?:in|on)|(?:(?<=legible ))(?:text|writing))(?! (?:(?:that|(?:confirm|indicat"
     r"|suggest)ing|to (?:indicate|suggest|support))\b|booth|desk|sign|center|centre|point"
     r"|on the sign))|<INFORMATION> (?:\w+ ){0,2}(?:is|are) (?:insufficient|not (?:enough"
     r"|sufficient))|lacks? (?:of )?(?:\w+ ){0,2}<INFORMATION>"),
    ("no_indication", "There's no mention of her age.",
     "no (?:clue|hint|indication|mention|record) (?:(?:of|on|about|regarding) (?:(?:the|his|her"
     "|their|its) )?<ATTRIBUTE>|(?:about|as to|of|on|regarding) <ASKING>)"),
    ("does_not_provide", "The chart does not specify any unit.",
     r"<SOURCE> (?:(?:\w+ ){0,2}(?:does|do|did) not (?:\w+ly )?(?:<INFORM>(?! way)|(?:contain"
     r"|have|hold|include|list) (?=(?:\w+ ){0,2}(?:answers?|mention|<INFORMATION>))))"
     "|(?:(?:provided|given) <DOCUMENT>|<DOCUMENT> (?:provided|given)|filing|report"
     r"|excerpt) (?:does|do|did) not (?:\w+ly )?(?:contain|have|include|outline)"
     r"|does not (?:\w+ly )?(?:disclose|elaborate|specify)"),
    ("not_given", "The sides are not provided.",
     r"(?:is|are|was|were) not (?:\w+ly )?<INFORMED>(?! (?:as(?! it\b)|by|for|to)\b)|(?:is|are"
     "|remains?) (?:ambiguous|a mystery|uncertain|undisclosed|unspecified)"),
    ("nothing_tells", "Nothing in the photo suggests a year.",
     r"nothing (?:here|(?:in|about|on) \w+) (?:\w+ ){0,2}(?:(?:lets?|says?|suggests?|tells?) "
     "|<SHOWN>)"),
    ("nothing_attached", "The diagram is missing.",
     r"(?:figure|picture|photo|graph|chart|diagram) (?:\w+ )?(?:is|are|was|were|(?:seems"
     "|appears) to be) (?:missing(?:$| from| in))"),
))
# The image does not show it. To a yes/no question this says no: "The leash is not visible."
NOT_SHOWN = _rules("does_not_know", (
    ("cannot_see_it", "We can't see the price.",
     r"(?:<WE> |you |^)<CAN> not (?:\w+ly )?see <NOT_DOING>(?:the|his|her|its|it|their|your|this"
     r"|that|enough|in the|inside|behind|\w+'s|<ASKING>)|(?:the|his|her|its|their"
     r"|'s) (?:\w+ ){1,6}can not be seen|^it can not be seen(?! (?:by|with) )"),
    ("image_does_not_show", "The image doesn't show his face.",
     "(?<!in the )(?<!in this )(?:<IMAGE>|it|this|that) (?:does|do) not (?:clearly "
     "|actually )?(?:contain|display|include|show|<INFORM>)(?: any of)?(?:$| (?:<ASKING>"
     r"|<NOT_DOING>(?:the(?! (?:correct|right|same)\b)|that|this|its|his|her|their)))|(?:<IMAGE>"
     r"|it|this|that) (?:does|do) not (?:have|include|show|<INFORM>) (?:\w+ )?(?:answer"
     "|indication|mention|text|writing|<INFORMATION>)"),
    ("part_not_visible", "The brand is not visible.",
     r"<ATTRIBUTE>s? (?:(?:of|on|in) (?:\w+ ){1,6})?(?:is|are|remains?) (?:unknown|unclear"
     r"|illegible|undetermined|unreadable|invisible|not <SHOWN>(?! as\b))|(?:hidden from"
     "|out of) (?:view|sight)$"),
    ("not_in_image", "The price is not in the picture.",
     r"(?:(?:<ATTRIBUTE>s?|(?:his|her|its|their|'s) (?:\w+ ){1,3}) ?(?:is|are) not (?:depicted|in"
     "|part of|present|shown|visible)|something that is not (?:in|present)|(?:is |are "
     "|^)not (?:available|given|included|mentioned)) (?:(?:by|from|in|on) )?(?:the|this"
     "|your) (?:<IMAGE>|problem|text)"),
))
# fmt: on
RULES = DECLINES + DOES_NOT_KNOW + NOT_SHOWN
