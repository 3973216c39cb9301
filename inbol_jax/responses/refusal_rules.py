"""The rules by which `refusal` recognises a refusal, each with responses that show it.

A pattern is read against one clause: lower-case words with single blanks between them, with short
forms spelt out ("don't" is "do not", "cannot" is "can not") and without punctuation.

To add a rule, add a row to `ANYWHERE` or `AT_START`, with an example that no other rule recognises
and that the tests then run, and add its line to the table in docs/responses.md. A pattern must be
bounded ("{0,3}", never "*"), so that time stays linear in the length of the text.
"""

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


# Words and phrases that the patterns share.
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

# fmt: off
# These refuse wherever they stand in a clause.
ANYWHERE = (
    # The speaker cannot find out, or say.
    Rule("cannot_tell",
         rf"{WE} {ADVERBS}{CAN} not {ADVERBS}(?:{KNOW}|{HELP})"
         rf"|(?:one|you) {CAN} not {ADVERBS}{KNOW}",
         ("I can't tell who that is.", "We simply could not help.", "You cannot really know."),
         ("I can tell.", "I can't tell the two dogs apart.")),
    Rule("nobody_can_tell",
         rf"(?:nobody|no one) {CAN} {KNOW}",
         ("Nobody could say.",), ("Nobody is there.",)),
    Rule("unable",
         rf"{WE} (?:am|are|was|were) (?:unable|not {ADVERBS}able) to"
         rf" (?:{KNOW}|{HELP}|read|see|view)",
         ("I'm unable to read the sign.", "We were not quite able to see it."),
         ("The man is unable to walk.",)),
    Rule("not_equipped",
         rf"{WE} (?:am|are) not (?:\w+ )?(?:equipped|in a position|qualified|trained) to"
         rf" (?:{KNOW}|{HELP})",
         ("I am not in a position to judge that.",)),
    Rule("sees_too_little",
         rf"{WE} (?:can|do) not see enough",
         ("I don't see enough of the street.",), ("I do not see a dog.",)),
    Rule("truth_is_unknown",
         rf"is that {WE} do not know",
         ("The truth is that I don't know.",)),
    Rule("doubts_that_one_can",
         rf"{WE} do not (?:think|believe|feel) (?:that )?"
         rf"(?:(?:i|we|you|one) {CAN} {ADVERBS}(?:{KNOW}|{HELP})"
         rf"|(?:it|this|that) {CAN} be {KNOWN})",
         ("I don't think I can say.", "I do not believe that this can be determined."),
         ("I don't think it is red.",)),
    # It cannot be found out.
    Rule("cannot_be_known",
         rf"{CAN} not {ADVERBS}be {ADVERBS}{KNOWN}",
         ("The brand cannot be determined.", "The plate could not be clearly read."),
         ("It cannot be red.",)),
    Rule("no_answer_possible",
         rf"no (?:\w+ )?answer {CAN} be\b",
         ("No reliable answer can be given.",), ("There is no answer phone.",)),
    Rule("unknown_to_me",
         r"unknown to (?:me|us)$",
         ("The man is unknown to me.",), ("The man is unknown to most people.",)),
    Rule("impossible",
         rf"(?:impossible|(?:not|never) possible) (?:for me )?to (?:{KNOW}|read|see)",
         ("From here it's impossible to see.", "That is never possible to know."),
         ("It is impossible to park here.",)),
    Rule("hard_to_tell",
         rf"(?:hard|difficult|tough|tricky) (?:for me )?to (?:{KNOW}|make out)",
         ("That's tough to make out.",), ("The hill is hard to climb.",)),
    Rule("too_blurry",
         rf"(?:too|so) (?:\w+ ){{1,4}}(?:for me )?to (?:{KNOW}|read|make out)",
         ("The text is too small to read.",), ("The boy is too small to ride.",)),
    Rule("no_way_to_tell",
         r"(?:no|not (?:a|any)) (?:certain |sure |real )?way (?:for me |for us )?(?:to|of)"
         rf" (?:{KNOW}|see|read|checking|determining|finding out|knowing|saying|seeing|telling)",
         ("There's no way to tell.", "There is not any sure way of knowing."),
         ("There is no way to cross.",)),
    Rule("unanswerable_question",
         rf"(?:question|{IMAGE}) (?:is|are) (?:unanswerable|not answerable)",
         ("This question is unanswerable.",)),
    # Knowledge or information is missing.
    Rule("has_no_information",
         rf"{WE} have no (?:\w+ )?(?:access|data|information|knowledge)",
         ("I have no reliable data on that.",), ("We have no cars.",)),
    Rule("does_not_have_information",
         rf"{WE} do not have (?:\w+ ){{0,3}}(?:information|context|details|knowledge|access)"
         rf"|{WE} (?:do|would) not have (?:enough|sufficient|access|the|any|that|this)"
         r" (?:\w+ )?(?:information|context|details?|knowledge|to)"
         rf"|{WE} do not possess",
         ("I don't have access to that.", "I would not have any detail.",
          "We do not possess such facts."),
         ("I do not have a dog.",)),
    Rule("needs_information",
         r"(?:i|we|one|you) (?:would )?(?:lack|need)"
         r" (?:the |more |further |additional |any ){0,3}(?:information|context|details|knowledge)"
         r"|more (?:context|details?|information)"
         r" (?:would be|is|are) (?:necessary|needed|required)",
         ("I need more context.", "One would need further details.", "More detail is needed."),
         ("You need a ticket.",)),
    Rule("not_enough_to_tell",
         rf"not enough (?:\w+ ){{0,2}}to"
         rf" (?:{KNOW}|go on|make an? (?:determination|identification|judge?ment))",
         ("There is not enough to go on.", "There's not enough light to say."),
         ("There is not enough room to sit.",)),
    Rule("no_information",
         r"(?:not (?:enough|sufficient)|insufficient|no)"
         r" (?:(?:visible|further|clear|visual|specific) )?"
         r"(?:information|context|details|clues?|evidence (?:in|on) (?:the|this))"
         r"(?! (?:booth|desk|sign|center|centre|point|on the sign))",
         ("Insufficient information.", "There are no visible clues."),
         ("There is no information desk.",)),
    Rule("no_indication",
         rf"no (?:indication|mention|record) of (?:the |his |her |their |its )?{ATTRIBUTE}"
         rf"|no (?:clue|hint|indication) (?:about|as to|of|on|regarding) {ASKING}\b",
         ("There's no mention of her age.", "There is no hint as to where."),
         ("There is no indication of rain.",)),
    Rule("not_aware",
         rf"{WE} (?:am|are) not (?:aware|told)\b|my knowledge does not",
         ("I'm not aware of her name.", "My knowledge does not reach so far.")),
    Rule("not_something_one_knows",
         r"not something (?:that )?(?:i|we|one|you|(?:the|this) \w+)"
         r" (?:can|could|gives?|know|provides?|reveals?|shows?|tells?)",
         ("That is not something the picture shows.",)),
    Rule("would_have_to_ask",
         rf"{WE} would (?:need|have) to (?:ask|check|know|look|see)"
         r"|you would (?:need|have) to ask|i would need\b|i would not (?:be able|know)",
         ("I would have to see the back.", "You would need to ask him.", "I would need a map.",
          "I wouldn't know."),
         ("You would need to turn left.",)),
    # The image does not show it.
    Rule("image_does_not_show",
         rf"(?<!in the )(?<!in this )(?:{IMAGE}|it|this|that) (?:does|do) not"
         rf" (?:clearly |explicitly |actually )?{SHOW}(?: us| me)?(?: any of)?"
         rf"(?: (?:the(?! (?:correct|right|same)\b)|that|this|{ASKING}|its|his|her|their)\b|$)"
         rf"|(?:{IMAGE}|it|this|that) (?:does|do) not (?:have|{SHOW})"
         r" (?:(?:any|enough|sufficient|the) )?(?:\w+ )?"
         r"(?:answer|clues?|context|details?|evidence|indication|information|mention|text|writing)",
         ("The image doesn't show his face.", "It does not clearly say.",
          "The photo does not have any readable text."),
         ("It does not show any cars.", "The clock in the image does not show the right time.")),
    Rule("image_lacks",
         rf"{IMAGE} lacks? (?:the |any )?(?:necessary |needed |required )?"
         r"(?:context|details?|information)"
         rf"|{IMAGE} (?:\w+ )?(?:does|do|is|are) not (?:\w+ )?(?:enough|sufficient)"
         rf"|{IMAGE} (?:gives?|offers?|provides?|contains?|has|holds?|includes?) (?:us |me )?no"
         r" (?:\w+ )?(?:clues?|details?|evidence|hints?|indication|information)",
         ("The picture lacks the necessary detail.", "The photo alone is not enough.",
          "The scene gives no clear hint."),
         ("The picture has no frame.",)),
    Rule("nothing_tells",
         rf"nothing in the {IMAGE} (?:tells|says|shows|indicates|suggests|reveals)"
         rf"|nothing (?:here|in (?:the|this) {IMAGE}) (?:that )?(?:would |could )?"
         r"(?:allows?|enables?|helps?|lets?|tells?) (?:me|us)\b"
         rf"|nothing (?:about|on|regarding) (?:\w+ ){{1,5}}(?:is|are) {VISIBLE}",
         ("Nothing in the photo suggests a year.", "There is nothing here that would help me.",
          "Nothing about his job is stated."),
         ("There is nothing in the bowl.",)),
    Rule("attribute_not_visible",
         rf"{ATTRIBUTE} (?:(?:of|on|in) (?:\w+ ){{1,6}})?(?:is|are|remains?)"
         r" (?:unknown|unclear|illegible|unreadable|(?:not|in) ?visible"
         rf"|not (?:\w+ )?(?:in the|{VISIBLE}))",
         ("The brand of the car is not visible.", "His name remains unknown."),
         ("The dog is not visible.",)),
    Rule("not_in_image",
         r"not (?:visible|shown|given|present|available|in|part of|mentioned|depicted)"
         rf" (?:(?:in|by|from|on) )?(?:the|this|your) {IMAGE}",
         ("His shoes are not shown in this photo.",), ("The dog is not in the car.",)),
    # Any answer would be a guess.
    Rule("would_be_a_guess",
         r"(?:would|could) only be (?:a guess|guesswork|speculation)"
         r"|would be (?:a guess|guesswork|guessing|speculation|speculating)",
         ("It could only be guesswork.", "Anything else would be speculation."),
         ("It would be a gift.",)),
)

# These refuse if a clause begins with them.
AT_START = (
    # The speaker does not know.
    Rule("do_not_know",
         rf"(?:{WE} )?{ADVERBS}do not {ADVERBS}(?:know|recogni[sz]e)\b",
         ("I don't know.", "Really do not recognise him."), ("He does not know.",)),
    Rule("no_idea",
         r"(?:i have |i have got |we have )?(?:absolutely )?no (?:idea|clue)"
         r"(?:$| (?:who|what|where|when|why|how|which|if|whether|about))"
         r"|i (?:have|do) not (?:have )?(?:an? |any |the (?:faintest|slightest) )?(?:idea|clue)",
         ("I've got no idea.", "No idea who that is.", "I haven't the faintest idea."),
         ("No idea is bad.",)),
    Rule("not_sure",
         rf"i am {ADVERBS}(?:not {ADVERBS}(?:sure|certain|confident|familiar)|unsure|uncertain)\b"
         rf"|not {ADVERBS}(?:sure|certain)(?:$| {ASKING}\b)|unsure$|uncertain$"
         r"|i do not feel (?:certain|comfortable|confident|sure)",
         ("I'm not quite sure.", "Not sure what it is.", "Uncertain.", "Unsure.",
          "I don't feel confident."),
         ("I am sure.", "He is not sure.")),
    Rule("names_it_but_cannot_tell",
         r"i (?:\w+ ){1,9}(?:and|so) (?:i )?(?:do|can|could) not (?:identify|know|name|say|tell)\b",
         ("I see a bottle and cannot name it.",), ("I see a bottle and a cup.",)),
    Rule("cannot_tell_short",
         rf"{CAN} not (?:{KNOW}$|{KNOW} (?:from|what|who|if|whether|the|this|that)|see it)"
         r"|i can not (?:see (?:what|who|where|how|the|that|it|enough)|read|give|make)\b",
         ("Can't say.", "Cannot tell from here.", "I can't read that.", "I can not see the label."),
         ("I can not see a dog.",)),
    Rule("beyond_me",
         r"(?:that|this|it)(?: one)? is (?:\w+ )?(?:beyond|outside) (?:me$|my|what i)",
         ("That one is beyond me.",), ("It is beyond the fence.",)),
    Rule("who_knows",
         r"who knows|beats me|your guess is as good",
         ("Who knows?", "Beats me.", "Your guess is as good as mine.")),
    # It cannot be found out.
    Rule("unable_short",
         r"(?:(?:it |that |this |the answer )?is )?"
         rf"(?:unable|impossible|not possible|hard|difficult) to (?:{KNOW}|see)",
         ("Unable to determine.", "Hard to see."), ("Hard to climb.",)),
    Rule("it_cannot_be_known",
         rf"(?:it|that) can not be {KNOWN}",
         ("It cannot be readily identified.",)),
    Rule("unclear",
         r"(?:(?:it |that |this |the answer |answer )?(?:is|remains) )?"
         r"(?:unanswerable|unclear|unknown|undetermined|indeterminate|unknowable"
         rf"|not (?:\w+ )?{VISIBLE})"
         r"(?:$| (?:from|in|on|by|to|what|who|how|which|where|when|why|whether|if)\b)",
         ("Unanswerable.", "It remains unclear who won.", "Not stated."),
         ("The unknown soldier.",)),
    Rule("what_it_is_is_unclear",
         rf"{ASKING} (?:\w+ ){{1,9}}(?:is|are|remains?)"
         rf" (?:not {VISIBLE}|uncertain|unclear|unknown)\b",
         ("Where she lives is unknown.",)),
    Rule("attribute_not_answerable",
         rf"(?:the |this |that )?{ATTRIBUTE} (?:is )?not answerable",
         ("Price not answerable.",)),
    Rule("unsuitable_image",
         rf"(?:unsuitable|unusable) {IMAGE}$",
         ("Unsuitable image.",), ("Unusable image stand.",)),
    # The speaker declines.
    Rule("rather_not",
         r"(?:i would |i )(?:rather not|prefer not to|only be guessing|just be guessing)",
         ("I'd rather not say.", "I would only be guessing.")),
    Rule("will_not_guess",
         r"i (?:will|would) not (?:guess|answer|say)"
         r"|i (?:do|would) not (?:care|like|want|wish) to (?:answer|guess|say|speculate)",
         ("I won't guess.", "I do not wish to speculate."), ("I do not want to eat.",)),
    Rule("declines",
         r"i (?:must |have to )?(?:decline|abstain|give up|pass$)",
         ("I must decline.", "I pass."), ("I pass the ball.",)),
)
# fmt: on
