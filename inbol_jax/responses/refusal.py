"""Tells a refusal from an answer by rule, in English: templates and free paraphrases, from the text alone.

A text is cut into clauses. It refuses where a clause refuses, what stands before that clause is no answer (an apology, a description of
the image), and no other clause ventures one: "I think it is red, but I am not sure" is an answer, hedged. Nor does a text refuse that
quotes a refusal ("the sign says 'I don't know'") or tells of others ("he does not know").

Precision and recall on a labelled list are printed by `inbol judge` and by the tests, and once more for wording that the rules were not
tuned on: there precision holds and recall is clearly lower (docs/records.md), so a refusal rate errs on the low side. Every pattern is
bounded, so time is linear in the text.
"""

import re

# "don't", "dont" and "do not" are one; "cannot" and "can not" too.
_AUXILIARIES = (
    "do",
    "does",
    "did",
    "is",
    "are",
    "was",
    "were",
    "has",
    "have",
    "had",
    "ca",
    "wo",
    "could",
    "would",
    "should",
)
_NEGATED = {
    f"{aux}n{mark}t": f"{ {'ca': 'can', 'wo': 'will'}.get(aux, aux) } not"
    for aux in _AUXILIARIES
    for mark in ("'", "")
}
_SHORT_FORMS = _NEGATED | {
    "cannot": "can not", "i'm": "i am", "im": "i am", "i've": "i have", "ive": "i have", "i'd": "i would", "i'll": "i will",
    "it's": "it is", "its": "it is", "that's": "that is", "thats": "that is", "there's": "there is", "theres": "there is",
    "we're": "we are", "you're": "you are", "he's": "he is", "she's": "she is", "they're": "they are", "what's": "what is",
    "idk": "i do not know", "dunno": "do not know", "info": "information",
}  # fmt: skip
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ´`′", "'") | dict.fromkeys("“”„«»", '"'))
_DOUBLE_QUOTED = re.compile(r'"[^"]*"')
_SINGLE_QUOTED = re.compile(r"(?<!\w)'(?:[^']|(?<=\w)'(?=\w))*'(?!\w)")
_CLAUSE_END = re.compile(
    r"[.!?;:,()\n]+|(?:^|\s)(?:but|however|although|though)(?=\s|$)|\s[-–—]+\s"
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

# What says nothing by itself and may open a clause, or be one.
_FILLER = re.compile(
    r"(?:(?:i am |so |very ){0,4}(?:sorry|afraid)|my apologies|i (?:do )?apologi[sz]e|unfortunately|sadly|regrettably"
    r"|honestly|frankly|actually"
    r"|to be honest|really|h+m+|u+h*m+|oh|well|and|so|then|thus|hence|therefore|yet|also|simply|just|but|however|although|though"
    r"|i (?:must|have to) (?:say|admit)|(?:for|about) (?:this|that)|as an? ai(?: \w+){0,2}|i feel"
    r"|thanks?(?: you)?|please|at all|answer)(?: that(?! is))?(?: |$)"
)
_KNOW = (
    r"(?:answer|ascertain|assess|be (?:certain|sure)|confirm|deduce|determine|discern|distinguish|establish|estimate"
    r"|figure out|guess|identify|infer"
    r"|judge|know|make out|recogni[sz]e|say|specify|tell(?! (?:\w+ ){1,4}apart)|verify|work out)"
)
_HELP = r"(?:comment|decide|find|give|help|name|provide|respond)"
_FOUND = (
    r"(?:answered|ascertained|calculated|confirmed|counted|deduced|determined|discerned|established|estimated|identified"
    r"|inferred|judged|known|made out|measured|read"
    r"|recogni[sz]ed|seen|told|verified)"
)
_ADVERB = r"(?:(?:accurately|clearly|completely|definitively|entirely|fully|honestly|just|quite|really|reliably|simply|too|totally|very) ){0,3}"
_ATTRIBUTE = (
    r"(?:\w+'s \w+|age|answer|artist|author|brand|breed|city|colou?r|cost|country|date|destination|details?|flavou?r|gender|id|identity"
    r"|information|job|label|location|make|manufacturer|meaning|model|name|nationality|number|object|occupation|origin|owner|part|place"
    r"|plate|price|profession|purpose|question|reason|species|temperature|text|time|title|type|weight|writing|year)"
)
_UNSEEN = (
    r"(?:answerable|apparent|available|clear|described|determinable|disclosed|discernible|evident|given|identifiable|included|indicated|known"
    r"|legible|listed|mentioned|named|obvious|provided|readable|recorded|revealed|shown|specified|stated|visible)"
)
_SHOW = r"(?:contain|depict|disclose|display|explain|give|identify|include|indicate|mention|offer|provide|reveal|say|show|specify|state|tell)"
_ASKS = r"(?:who|whose|what|where|when|why|how|which|if|whether)"
_VIEW = r"(?:images?|pictures?|photos?|photographs?|scene|question|context)"

# Refuse wherever they stand in a clause.
_STRONG = re.compile(
    r"\b(?:"
    rf"(?:i|we) {_ADVERB}(?:can|could) not {_ADVERB}(?:{_KNOW}|{_HELP})|(?:one|you) (?:can|could) not {_ADVERB}{_KNOW}"
    rf"|(?:nobody|no one) (?:can|could) {_KNOW}"
    rf"|(?:can|could) not {_ADVERB}be {_ADVERB}{_FOUND}"
    rf"|(?:i|we) (?:am|are) (?:unable|not {_ADVERB}able) to (?:{_KNOW}|{_HELP}|read|see|view)"
    rf"|(?:i|we) (?:was|were) (?:unable|not {_ADVERB}able) to (?:{_KNOW}|{_HELP}|read|see|view)"
    rf"|(?:i|we) (?:am|are) not (?:\w+ )?(?:equipped|in a position|qualified|trained) to (?:{_KNOW}|{_HELP})"
    r"|(?:i|we) have no (?:\w+ )?(?:access|data|information|knowledge)|(?:i|we) (?:can|do) not see enough"
    r"|is that (?:i|we) do not know"
    r"|more (?:context|details?|information) (?:would be|is|are) (?:necessary|needed|required)"
    rf"|not enough (?:\w+ ){{0,2}}to (?:{_KNOW}|go on|make an? (?:determination|identification|judge?ment))"
    rf"|(?:i|we) do not (?:think|believe|feel) (?:that )?(?:(?:i|we|you|one) (?:can|could) {_ADVERB}(?:{_KNOW}|{_HELP})"
    rf"|(?:it|this|that) (?:can|could) be {_FOUND})|no (?:\w+ )?answer (?:can|could) be\b|unknown to (?:me|us)$"
    rf"|(?:impossible|(?:not|never) possible) (?:for me )?to (?:{_KNOW}|read|see)"
    rf"|(?:hard|difficult|tough|tricky) (?:for me )?to (?:{_KNOW}|make out)"
    rf"|(?:no|not (?:a|any)) (?:certain |sure |real )?way (?:for me |for us )?(?:to|of) (?:{_KNOW}|see|read|checking"
    r"|determining|finding out|knowing|saying|seeing|telling)"
    rf"|(?:i|we|one|you) (?:would )?(?:lack|need) (?:the |more |further |additional |any ){{0,3}}(?:information|context|details|knowledge)"
    r"|(?:i|we) do not have (?:\w+ ){0,3}(?:information|context|details|knowledge|access)"
    r"|(?:i|we) do not possess|my knowledge does not|(?:i|we) (?:am|are) not (?:aware|told)\b"
    rf"|{_VIEW} lacks? (?:the |any )?(?:necessary |needed |required )?(?:context|details?|information)"
    r"|(?:i|we) (?:do|would) not have (?:enough|sufficient|access|the|any|that|this) (?:\w+ )?(?:information|context"
    r"|details?|knowledge|to)"
    rf"|{_VIEW} (?:\w+ )?(?:does|do|is|are) not (?:\w+ )?(?:enough|sufficient)"
    rf"|(?<!in the )(?<!in this )(?:{_VIEW}|it|this|that) (?:does|do) not (?:clearly |explicitly |actually )?{_SHOW}"
    r"(?: us| me)?(?: any of)?"
    r"(?: (?:the(?! (?:correct|right|same)\b)|that|this|what|who|whose|how|which|where|when|why|whether|if|its|his|her|their)\b|$)"
    rf"|(?:{_VIEW}|it|this|that) (?:does|do) not (?:have|{_SHOW}) (?:(?:any|enough|sufficient|the) )?(?:\w+ )?"
    r"(?:answer|clues?|context|details?|evidence|indication|information|mention|text|writing)"
    rf"|{_VIEW} (?:gives?|offers?|provides?|contains?|has|holds?|includes?) (?:us |me )?no (?:\w+ )?"
    r"(?:clues?|details?|evidence|hints?|indication|information)"
    r"|(?:not (?:enough|sufficient)|insufficient|no) (?:(?:visible|further|clear|visual|specific) )?(?:information|context"
    r"|details|clues?|evidence (?:in|on) (?:the|this))"
    r"(?! (?:booth|desk|sign|center|centre|point|on the sign))"
    rf"|no (?:indication|mention|record) of (?:the |his |her |their |its )?{_ATTRIBUTE}"
    rf"|no (?:clue|hint|indication) (?:about|as to|of|on|regarding) {_ASKS}\b"
    r"|not something (?:that )?(?:i|we|one|you|(?:the|this) \w+) (?:can|could|gives?|know|provides?|reveals?|shows?|tells?)"
    r"|(?:i|we) would (?:need|have) to (?:ask|check|know|look|see)|you would (?:need|have) to ask"
    r"|i would need\b|i would not (?:be able|know)"
    r"|(?:would|could) only be (?:a guess|guesswork|speculation)|would be (?:a guess|guesswork|guessing|speculation|speculating)"
    rf"|nothing in the {_VIEW} (?:tells|says|shows|indicates|suggests|reveals)"
    rf"|nothing (?:here|in (?:the|this) {_VIEW}) (?:that )?(?:would |could )?(?:allows?|enables?|helps?|lets?|tells?) (?:me|us)\b"
    rf"|nothing (?:about|on|regarding) (?:\w+ ){{1,5}}(?:is|are) {_UNSEEN}"
    rf"|(?:question|{_VIEW}) (?:is|are) (?:unanswerable|not answerable)"
    rf"|(?:too|so) (?:\w+ ){{1,4}}(?:for me )?to (?:{_KNOW}|read|make out)"
    rf"|{_ATTRIBUTE} (?:(?:of|on|in) (?:\w+ ){{1,6}})?(?:is|are|remains?) (?:unknown|unclear|illegible|unreadable|(?:not|in) ?visible"
    rf"|not (?:\w+ )?(?:in the|{_UNSEEN}))"
    rf"|not (?:visible|shown|given|present|available|in|part of|mentioned|depicted) (?:(?:in|by|from|on) )?(?:the|this|your) {_VIEW}"
    r")\b"
)
# Refuse where a clause begins with them, and nothing before it is an answer.
_WEAK = re.compile(
    rf"(?:(?:i|we) )?(?:{_ADVERB})do not {_ADVERB}(?:know|recogni[sz]e)\b"
    rf"|(?:i have |i have got |we have )?(?:absolutely )?no (?:idea|clue)"
    r"(?:$| (?:who|what|where|when|why|how|which|if|whether|about))"
    r"|i (?:have|do) not (?:have )?(?:an? |any |the (?:faintest|slightest) )?(?:idea|clue)"
    rf"|i am {_ADVERB}(?:not {_ADVERB}(?:sure|certain|confident|familiar)|unsure|uncertain)\b"
    rf"|not {_ADVERB}(?:sure|certain)(?:$| {_ASKS}\b)|unsure$|uncertain$|(?:unsuitable|unusable) {_VIEW}$"
    rf"|{_ASKS} (?:\w+ ){{1,9}}(?:is|are|remains?) (?:not {_UNSEEN}|uncertain|unclear|unknown)\b"
    r"|i (?:\w+ ){1,9}(?:and|so) (?:i )?(?:do|can|could) not (?:identify|know|name|say|tell)\b"
    rf"|(?:can|could) not (?:{_KNOW}$|{_KNOW} (?:from|what|who|if|whether|the|this|that)|see it)"
    rf"|(?:(?:it |that |this |the answer )?is )?(?:unable|impossible|not possible|hard|difficult) to (?:{_KNOW}|see)"
    r"|(?:(?:it |that |this |the answer |answer )?(?:is|remains) )?(?:unanswerable|unclear|unknown|undetermined|indeterminate|unknowable"
    rf"|not (?:\w+ )?{_UNSEEN})"
    rf"(?:$| (?:from|in|on|by|to|what|who|how|which|where|when|why|whether|if)\b)|(?:the |this |that )?{_ATTRIBUTE} (?:is )?not answerable"
    rf"|(?:it|that) can not be (?:seen|determined|{_FOUND})"
    r"|i can not (?:see (?:what|who|where|how|the|that|it|enough)|read|give|make)\b"
    r"|(?:that|this|it)(?: one)? is (?:\w+ )?(?:beyond|outside) (?:me$|my|what i)|i do not feel (?:certain|comfortable|confident|sure)"
    r"|(?:i would |i )(?:rather not|prefer not to|only be guessing|just be guessing)|i (?:will|would) not (?:guess|answer|say)"
    r"|i (?:do|would) not (?:care|like|want|wish) to (?:answer|guess|say|speculate)"
    r"|i (?:must |have to )?(?:decline|abstain|give up|pass$)|who knows|beats me|your guess is as good"
)
# A clause that ventures an answer, if only as a guess.
_VENTURES = re.compile(
    r"(?:and |so |then |yes |no )?(?:i (?:would |will |do |can )?(?:\w+ly )?"
    r"(?:think|believe|guess|suppose|assume|say|bet|suspect|imagine|go (?:for|with))\b(?! (?:so|it is not|not))|my (?:best )?guess"
    r"|maybe|perhaps|probably|possibly|likely|most likely|presumably|apparently|looks? like"
    r"|seems? (?:to|like)|(?:it|he|she|they|this|that|there|the \w+|the \w+ \w+) (?:\w+ )?(?:looks?|seems?|appears?"
    r"|resembles?|might|may|could|must|is"
    r" (?:probably|likely|possibly|perhaps|maybe)|are (?:probably|likely|possibly))\b|yes$|no$)"
)
# Words of a reason not to answer: such a clause, before or after a refusal, is no answer.
_REASON = re.compile(
    rf"\b(?:{_VIEW}|not|no|without|while|too|blurr\w+|hidden|obscured|unclear|dark|covered|visible|shown|cropped|low|small"
    r"|turned|away|camera"
    r"|clear\w*|wish|sorry|see|know|knowledge|provide|enough|cut|angle|above|beyond|based|given|ask\w*|out)\b"
)
_STATES = re.compile(r"(?:it|he|she|this|that|they|there) (?:is|are|was|were) ")
_REPORTS = re.compile(
    r"\b(?:says?|said|saying|reads|reading|writes|written|titled|called|named|spells|caption)\b"
)
_FOLLOWS = re.compile(r"(?:and )?(?:so|thus|hence|therefore)\b")
_SHORT_CLAUSE = (
    3  # words; after a refusal a clause as short as that is the answer itself: "not sure, a wolf?"
)


def _clauses(text: str) -> list[tuple[str, bool]]:
    """Clauses in lower case, without what opens them and says nothing, and whether each follows from the one before ("so ...")."""
    text = text.translate(_APOSTROPHES).lower().strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1]
    text = _SINGLE_QUOTED.sub(" quoted ", _DOUBLE_QUOTED.sub(" quoted ", text))
    clauses = []
    for part in _CLAUSE_END.split(text):
        clause = " ".join(_SHORT_FORMS.get(word, word) for word in _WORD.findall(part))
        start = 0
        while start < len(clause) and (filler := _FILLER.match(clause, start)):
            start = filler.end()
        if start < len(clause):
            clauses.append((clause[start:], bool(_FOLLOWS.match(clause))))
    return clauses


def is_refusal(text: str) -> bool:
    """Whether a response declines to answer, rather than answers, hedges or denies.

    Args:
      text: a whole response. Case, white space, kinds of apostrophe and missing punctuation do not matter; empty text is no refusal.
    """
    refused = answered = False
    for clause, follows in _clauses(text):
        strong = _STRONG.search(clause)
        reports = _REPORTS.search(clause)
        if (strong and not (reports and reports.start() < strong.start())) or _WEAK.match(clause):
            refused = True
            answered = (
                answered and not follows
            )  # "the screen is blank, so I cannot tell": what stood before was the reason
            continue
        if _VENTURES.match(clause):
            return False
        # Before a refusal whatever gives no reason is an answer; after one, a clause that states something, or a word or two.
        states = not refused or _STATES.match(clause) or len(clause.split()) <= _SHORT_CLAUSE
        if states and not _REASON.search(clause):
            answered = True
    return refused and not answered
