"""The wordings of refusals in English, as a table of names, examples and patterns.

A pattern is read against one clause: lower-case words with single blanks between them, with short
forms spelt out ("don't" is "do not", "cannot" is "can not") and without punctuation. It holds
anywhere in the clause, at the borders of words, if it does not begin with "^". "<KNOW>" stands for
one of the words of that name in `WORDS`.

To add a rule, add a row with an example that no rule before it recognises. A pattern must be
bounded ("{0,3}", never "*"), so that time stays linear in the length of the text.
"""

import re
from typing import NamedTuple


class Rule(NamedTuple):
    """A wording of refusals: its name, a text that it recognises, and a regular expression."""

    name: str
    example: str
    pattern: str


# fmt: off
WORDS = {
    "WE": "(?:i|we)",
    "CAN": "(?:can|could)",
    "ADVERBS": r"(?:(?:\w+ly|just|quite|too|very) ){0,3}",
    "ASKING": "(?:who|whose|what|where|when|why|how|which|if|whether)",
    # Verbs of finding out and of answering, and their participles.
    "KNOW":
        r"(?:answer|ascertain|assess|be (?:certain|sure)|calculate|choose|comment|compare|compute"
        r"|conclude|confirm|count|decide|decipher|deduce|describe|determine|diagnose|discern"
        r"|distinguish|establish|estimate|evaluate|figure out|find the|gauge|give|guess|help"
        r"|identify|infer|judge|justify|know|make out|match|measure|name|narrow|pinpoint|predict"
        r"|provide|read|recogni[sz]e|resolve|respond|say|select|solve|specify|state"
        r"|tell(?! (?:\w+ ){1,4}apart)|verify|work out)",
    "KNOWN":
        "(?:answered|ascertained|calculated|compared|computed|concluded|confirmed|counted|deduced"
        "|derived|determined|discerned|established|estimated|evaluated|given|identified|inferred"
        "|judged|known|made out|measured|pinpointed|predicted|provided|read|recogni[sz]ed|solved"
        "|specified|stated|told|verified)",
    # What a document does, or what an image shows.
    "INFORM":
        "(?:address|answer|clarify|confirm|cover|describe|detail|disclose|discuss|elaborate|explain"
        "|give|identify|indicate|mention|offer|provide|reveal|say|specify|state|tell)",
    "INFORMED":
        "(?:clarified|described|determinable|determined|disclosed|discussed|established|explained"
        "|given|indicated|known|mentioned|provided|revealed|specified|stated)",
    "SHOWN":
        "(?:<INFORMED>|answerable|apparent|available|clear|discern[ai]ble|evident|identifiable"
        "|legible|listed|named|obvious|readable|recorded|shown|visible)",
    # What is asked for. "'s" is the end of any noun.
    "JUDGEMENT":
        "(?:assessment|comparison|conclusion|decision|determination|estimate|guess|identification"
        "|judge?ment|prediction|statement)",
    "ATTRIBUTE":
        r"(?:'s \w+|age|answer|artist|author|brand|breed|city|colou?r|cost|country|date|destination"
        r"|details?|direction|distance|flavou?r|gender|height|id|identity|information|job|label"
        r"|length|location|make|manufacturer|meaning|model|name|nationality|number|object"
        r"|occupation|origin|owner|part|place|plate|price|profession|purpose|question|reason|score"
        r"|size|species|speed|step|temperature|text|time|title|type|value|weight|word|writing"
        r"|year)",
    "INFORMATION": "(?:information|context|data|details?|clues?|evidence|knowledge)",
    # Where an answer would be found.
    "IMAGE":
        "(?:images?|pictures?|photos?|photographs?|scene|videos?|clips?|frames?|question|context)",
    "DOCUMENT":
        "(?:articles?|contexts?|data|documents?|evidence|excerpts?|filings?|information|passages?"
        "|reports?|sources?|text)",
    "SOURCE":
        "(?:<IMAGE>|<DOCUMENT>|agreement|audio|book|captions?|charts?|code|contract|conversation"
        "|dialogue|descriptions?|diagrams?|figures?|files?|footage|graphs?|map|options|papers?|plan"
        "|plot|problem|prompt|results?|screenshot|script|section|sequence|snippet|story|tables?"
        "|transcript)",
    # Not "the man pouring a drink": who does not show that, denies it.
    "NOT_DOING": r"(?!(?:the|his|her|its) (?:(?!is\b|are\b|was\b)[\w']+ ){1,3}\w+ing\b)",
}


def fill(pattern: str) -> str:
    """The pattern with the words in place of their names."""
    while (filled := re.sub(r"<(\w+)>", lambda name: WORDS[name[1]], pattern)) != pattern:
        pattern = filled
    return pattern


def _rules(*rows: tuple[str, str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(name, example, fill(pattern)) for name, example, pattern in rows)


# The speaker is not willing, or not allowed.
DECLINES = _rules(
    ("cannot_assist", "I can't assist with that.",
     r"i (?:(?:can|could|will) not|am (?:not (?:\w+ )?able|unable|not going|not trained) to)"
     r" (?:\w+ly )?(?:assist|complete|comply|continue|discuss|display|do (?:that|this)|encourage"
     r"|endorse|engage|execute|follow (?:that|this)|fulfil{1,2}|generate|help (?:you|with)"
     r"|participate|support|write)|i am not (?:allowed|authori[sz]ed|permitted|programmed) to"),
    ("cannot_provide", "I cannot provide instructions for making that.",
     r"i (?:(?:can|could|will) not|am (?:not (?:\w+ )?able|unable|not going) to) (?:create|give"
     r"|offer|provide|share)(?: you)?(?: with)?(?! (?:\w+ ){0,12}(?:based|because|from|since|solely"
     r"|unless|without)\b) (?!<ADVERBS>(?:(?:a|an|any|the|that|this) )?(?:\w+ ){0,2}(?:answers?"
     r"|count|date|description|details?|estimate|integer|name|number|response|requested|result"
     r"|solution|value)\b)"),
    ("does_not_condone", "I do not condone violence.",
     r"(?:do|can|will) not (?:condone|promote|encourage|endorse)|(?:against|outside"
     r"|violat\w+) (?:\w+ ){0,3}polic(?:y|ies)"),
    ("rather_not", "I'd rather not say.",
     r"^(?:it|this|that) (?:is|would be) (?:(?:not|never) (?:appropriate|ethical)|inappropriate"
     r"|unethical|unsafe)(?: (?:or|and) \w+)? (?:for me )?to|^i (?:would )?(?:rather not"
     r"|prefer not to|(?:only|just) be guessing)|^i (?:must |have to )?(?:decline|abstain|give up"
     r"|pass$)|^i (?:do not feel|am not|would not be) comfortable|^i (?:do|will|would) not"
     r" (?:(?:care|like|want|wish) to )?(?:guess|answer|say|speculate)"),
)
# The speaker does not know, or it cannot be found out.
DOES_NOT_KNOW = _rules(
    ("do_not_know", "I don't know.",
     r"^(?:<WE> )?<ADVERBS>do not <ADVERBS>(?:know|recogni[sz]e)|(?:is that|so) <WE> do not know"
     r"|^(?:<WE> have (?:got )?)?(?:\w+ly )?no (?:idea|clue)(?:$| (?:about|<ASKING>))"
     r"|^i (?:do not )?have (?:not )?(?:an?|any|the \w+) (?:idea|clue)"),
    ("not_sure", "I'm not quite sure.",
     r"^(?:i am |i do )?<ADVERBS>not <ADVERBS>(?:feel )?(?:sure|certain|confident|familiar)(?:$"
     r"| (?!that\b))|^i am <ADVERBS>un(?:sure|certain)|^un(?:sure|certain)(?:$| <ASKING>)"
     r"|<WE> (?:am|are) not (?:aware|told)"),
    ("cannot_tell", "I can't tell who that is.",
     r"(?:<WE>|one|you|it|<SOURCE>) <ADVERBS><CAN> not <ADVERBS><KNOW>|i <CAN> not <ADVERBS>(?!be\b"
     r"|believe|discern any|feel|find an?\b|find any|hear|help but|imagine|recommend|see(?! or)"
     r"|spot|stress|tell|think|wait)\w+|(?:nobody|no one|not (?:think|believe) (?:that )?(?:<WE>"
     r"|one|you)) <CAN> <KNOW>|i (?:\w+ ){1,9}(?:and|so) (?:i )?(?:do|<CAN>) not <KNOW>"
     r"|^<CAN> not (?:see it|<KNOW>(?:$| (?:as|based|because|by|due|from|it|since|that|the|this"
     r"|with|without|<ASKING>)))"),
    ("unable", "I'm unable to read the sign.",
     r"(?<!if )i (?:am|was) (?:\w+ ){0,4}(?:unable|not (?:\w+ )?able) to|(?<!if )(?:we|you) (?:are"
     r"|were) (?:unable|not <ADVERBS>able) to <ADVERBS>(?:<KNOW>|see)|i (?:am (?:\w+ ){1,5}and )?do"
     r" not have the (?:ability|capability|capacity) to|<WE> (?:am|are) not (?:\w+ )?(?:capable of"
     r"|(?:equipped|in a position|qualified|trained) to) (?!feel|hav|think)|^unable to (?:<KNOW>"
     r"|see)"),
    ("beyond_me", "That one is beyond me.",
     r"^(?:\w+ ){1,12}is (?:\w+ )?(?:beyond|outside) (?:me$|my|what i)|^who knows$|^beats me"
     r"|^your guess is as good|can only guess|be (?:a guess|guess(?:ing|work)|speculation)|(?:<WE>"
     r"|you) would (?:need|have) to (?:ask|check|know|look|see)|i (?:will|would) need"
     r"|i would not (?:be able|know)|not something (?:that )?(?:\w+ ){1,2}(?:can|know|<INFORM>s?)"
     r"|my knowledge does not"),
    ("cannot_be_known", "The brand cannot be determined.",
     r"<CAN> not <ADVERBS>be <ADVERBS>(?:<KNOWN>|drawn|made$)"),
    ("no_answer_possible", "No reliable answer can be given.",
     r"no (?:\w+ ){0,3}<CAN> be <KNOWN>|no (?:clear |definite |possible |specific )?answer(?:$"
     r"| (?:in the|to (?:that|the|this|your) question))|no (?:\w+ ){0,2}<SOURCE> (?:that )?"
     r"(?:to answer|(?:answer|provide|tell)s?)|^(?:the )?(?:\w+ )?(?:answer|option) ?(?:is )?n a$"
     r"|^n a$"),
    ("nothing_found", "No record found.",
     r"no (?:\w+ )?(?:answers?|details|records?|results?) (?:(?:was|were|is|are|could be) )?"
     r"(?:available|found)|i (?:could|can|did) not find (?:(?:an|any|enough|the) (?:\w+ ){0,2}"
     r"(?:answers?|mention|records?|references?|sources?|<INFORMATION>)|(?:it|that|this) in)"),
    ("impossible", "From here it's impossible to see.",
     r"(?:impossible|(?:not|never) possible|hard|difficult|challenging|tough|tricky) (?:for (?:me"
     r"|us) )?to <ADVERBS>(?:<KNOW>|see|make an? (?:\w+ )?<JUDGEMENT>)"),
    ("too_blurry", "The text is too small to read.",
     r"(?:too|so) (?:\w+ ){1,4}(?:for me )?to (?:<ADVERBS><KNOW>|be (?:legible|read))|(?:image"
     r"|photo|picture|text) is too \w+$|unusable <IMAGE>$"),
    ("no_way_to_tell", "There's no way to tell.",
     r"(?:no|not (?:a|any)) (?:certain |sure |real )?way (?:for (?:me|us) )?(?:to (?:see|<KNOW>)"
     r"|of \w+ing)"),
    ("unclear", "Unanswerable.",
     r"^(?:(?:it |that |this |the answer |answer )?(?:is|was|remains) )?(?:unanswerable|unclear"
     r"|unknown|undetermined|indeterminate|unknowable|not (?:\w+ )?<SHOWN>)(?:$| (?:at this|based"
     r"|because|from|in|on|by|to|<ASKING>))|^(?:the|his|her|its|their) (?:\w+ ){1,12}(?:is|are"
     r"|remains?) (?:currently |still )?(?:unknown|not known)(?:$| as )|^(?:the |this "
     r"|that )?<ATTRIBUTE> (?:is )?(?:not answerable|unknown)|^<ASKING> (?:\w+ ){1,9}(?:is|are"
     r"|remains?) (?:not <SHOWN>|uncertain|unclear|unknown)"),
    ("unanswerable_question", "This question is unanswerable.",
     r"(?:question|problem|<IMAGE>) (?:is|are) (?:un|not )(?:answer|solv)able|(?:unclear"
     r"|not clear) (?:\w+ ){1,8}(?:being (?:asked|referred)|you are)|(?:question|problem|statement"
     r"|prompt) (?:\w+ )?(?:seems |appears )?(?:(?:is|was|to be) )?(?:not (?:\w+ ){0,2}(?:clear"
     r"|specific)|(?:too |very |quite )?(?:ambiguous|broad|general|incomplete|insufficient|missing"
     r"|subjective|unclear|vague)|(?:to )?(?:lack|miss)(?:s|es)?)"),
    ("does_not_have_information", "I don't have access to that.",
     r"<WE> (?:\w+ly )?(?:do|would) not (?:\w+ly )?(?:have|possess) (?:\w+ ){0,8}(?:<INFORMATION>"
     r"|access|facts|figures|projections|statistics|updates?|values)|<WE> have no (?:\w+"
     r" )?(?:access|<INFORMATION>|way to)|(?:<WE>|one|you) (?:would |first )?(?:lack"
     r"|need) (?:\w+ ){0,3}<INFORMATION>|(?:more|further|additional) (?:\w+ ){0,2}<INFORMATION>"
     r" (?:\w+ ){0,12}?(?:would be|is|are) (?:necessary|needed|required)"),
    ("asks_for_more", "Please provide the picture.",
     r"(?:^|(?:could|can|if) you (?:please |could |can )?)(?:also )?(?:clarify|describe|provide"
     r"|send|share|specify|supply|tell|(?:try )?upload(?:ing)?)(?: me| us)?(?: with)? (?:a|an"
     r"|additional|any|further|more|the(?! answer)|your)|(?:could|can) you please (?:check|clarify"
     r"|confirm|rephrase)"),
    ("not_enough_to_tell", "There is not enough to go on.",
     r"not (?:have )?(?:clear )?enough (?:\w+ ){0,2}to (?:<KNOW>|go on|make an? <JUDGEMENT>)"
     r"|<WE> (?:can|do) not see enough|<IMAGE> (?:\w+ )?(?:does|do|is|are) not (?:\w+ )?(?:enough"
     r"|sufficient)"),
    ("no_information", "Insufficient information.",
     r"(?:not (?:any|enough|sufficient)|insufficient|no) (?:(?:additional|available|clear|further"
     r"|legible|more|readable|relevant|specific|visible|visual) )?(?:<INFORMATION>(?<!evidence)"
     r"|evidence (?:in|on|to)|(?:(?<=legible )|(?<=readable ))(?:text|writing))(?! (?:(?:available "
     r"|provided )?(?:that|(?:confirm|indicat|suggest)ing|to (?:indicate|suggest|support))\b|booth"
     r"|desk|sign|center|centre|point|on the sign))|<INFORMATION> (?:\w+ ){0,2}(?:is"
     r"|are) (?:insufficient|not (?:enough|sufficient))|lacks? (?:of )?(?:\w+ ){0,2}<INFORMATION>"),
    ("no_indication", "There's no mention of her age.",
     r"no (?:explicit |specific )?(?:clue|hint|indication|mention|record) (?:(?:of|on|about"
     r"|regarding) (?:(?:the|his|her|their|its) )?<ATTRIBUTE>|(?:about|as to|of|on|regarding)"
     r" <ASKING>)"),
    ("does_not_provide", "The chart does not specify any unit.",
     r"<SOURCE> (?:(?:\w+ ){0,2}(?:does|do|did) not (?:\w+ly )?(?:<INFORM>(?! way)|(?:contain|have"
     r"|hold|include|list) (?=(?:\w+ ){0,2}(?:answers?|mention|<INFORMATION>)))|never (?:mention"
     r"|say|specifie|state)s)|(?:none|neither) of (?:them|(?:the|these|those) (?:\w+"
     r" )?(?!options)\w+s) (?:\w+ly )?(?:contain|<INFORM>)s?|(?:(?:provided|given) <DOCUMENT>"
     r"|<DOCUMENT> (?:provided|given)|filing|report|excerpt) (?:does|do|did) not (?:\w+ly"
     r" )?(?:contain|have|include|outline)|does not (?:\w+ly )?(?:disclose|elaborate|specify)"
     r"|^(?:it |they )?(?:does|do) not (?:\w+ly )?(?:indicate|mention|provide|say|specify|state)"),
    ("not_given", "The sides are not provided.",
     r"(?:(?:is|are|was|were) not|ha(?:s|ve) not been) (?:\w+ly )?<INFORMED>(?! (?:as(?! it\b)|by"
     r"|for|to)\b)|(?:is|are|remains?|left) (?:\w+ly )?(?:ambiguous|a mystery|uncertain|undisclosed"
     r"|unexplained|unspecified|unstated)|<INFORMATION> (?:(?:about|as to|for|of|on"
     r"|regarding) (?:[\w']+ ){1,12}(?:is|are) )?not (?:\w+ly )?<SHOWN>"),
    ("nothing_tells", "Nothing in the photo suggests a year.",
     r"nothing (?:here|(?:in|about|on) (?:the |this )?\w+) (?:\w+ ){0,2}(?:(?:lets?|says?|suggests?"
     r"|tells?) |<SHOWN>)"),
    ("nothing_attached", "The diagram is missing.",
     r"(?:figure|image|picture|photo|graph|chart|diagram|data) (?:\w+ )?(?:is|are|was|were|(?:seems"
     r"|appears) to be) (?:missing(?:$| from| in)|not (?:added|attached|displayed|included|loaded"
     r"|shown$))|no (?:\w+ ){1,4}(?:(?:is|are|was|were|has been) )?(?:attached|(?<!the )(?:given"
     r"|provided)|specified|uploaded)|you (?:have not|did not) (?:\w+ly )?(?:attach|includ|provid"
     r"|shar|specif|upload)\w*"),
)
# The image does not show it. To a yes/no question this says no: "The leash is not visible."
NOT_SHOWN = _rules(
    ("cannot_see_it", "We can't see the price.",
     r"(?:<WE> |you |^)<CAN> not (?:\w+ly )?see <NOT_DOING>(?:the|his|her|its|it|their|your|this"
     r"|that|enough|in the|inside|behind|\w+'s|<ASKING>)|<WE> can not see$|^can not see$|(?:the|his"
     r"|her|its|their|'s) (?:\w+ ){1,6}can not be (?:clearly )?seen|^it can not be (?:clearly"
     r" )?seen(?! (?:by|with) )"),
    ("image_does_not_show", "The image doesn't show his face.",
     r"(?<!in the )(?<!in this )(?:<IMAGE>|it|this|that) (?:does|do) not (?:clearly |explicitly "
     r"|actually )?(?:contain|display|include|show|<INFORM>)(?: us| me)?(?: any of)?(?:$"
     r"| (?:<ASKING>|<NOT_DOING>(?:the(?! (?:correct|right|same)\b)|that|this|its|his|her|their)))"
     r"|(?:<IMAGE>|it|this|that) (?:does|do) not (?:contain|have|include|show|<INFORM>) (?:(?:any"
     r"|enough|sufficient|the) )?(?:\w+ )?(?:answer|indication|mention|text|writing"
     r"|<INFORMATION>)"),
    ("part_not_visible", "The brand is not visible.",
     r"<ATTRIBUTE>s? (?:(?:of|on|in) (?:\w+ ){1,6})?(?:is|are|remains?) (?:unknown|unclear"
     r"|illegible|undetermined|unreadable|invisible|not (?:\w+ )?<SHOWN>(?! as\b))|(?:(?:his|her"
     r"|its|their|'s) (?:\w+ ){1,3}|the (?:\w+ (?:side )?of (?:\w+ ){1,4}|(?:\w+ ){0,2}\w+[^\Ws]s"
     r" (?:(?:in|inside|of|on) (?:\w+ ){1,4})?))(?<!that )(?<!which )(?:is|are) not (?:\w+ly"
     r" )?(?:legible|pictured|seen|shown|in view|visible)(?! (?:because|to) )|(?:hidden from"
     r"|out of) (?:view|sight)$"),
    ("not_in_image", "The price is not in the picture.",
     r"(?:(?:<ATTRIBUTE>s?|(?:his|her|its|their|'s) (?:\w+ ){1,3}) ?(?:is|are) not (?:depicted|in"
     r"|part of|present|shown|visible)|(?:(?:it|that|this) is |^)not (?:depicted|shown|visible)"
     r"|something that is not (?:in|present)|(?:is |are |^)not (?:available|given|included"
     r"|mentioned)) (?:(?:by|from|in|on) )?(?:the|this|your) (?:<IMAGE>|problem|text)"),
)
# fmt: on
RULES = DECLINES + DOES_NOT_KNOW + NOT_SHOWN
