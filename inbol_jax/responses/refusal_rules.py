"""The rules by which `refusal` recognises a refusal, each with responses that show it.

A pattern is read against one clause: lower-case words with single blanks between them, with short
forms spelt out ("don't" is "do not", "cannot" is "can not") and without punctuation.

To add a rule, add a row to `ANYWHERE` or `AT_START`, with an example that no other rule recognises
and that the tests then run, and add its line to the table in docs/responses.md. A pattern must be
bounded ("{0,3}", never "*"), so that time stays linear in the length of the text.
"""

from inbol_jax.responses.refusal_words import (
    ADVERBS,
    ASKING,
    ATTRIBUTE,
    CAN,
    HELP,
    IMAGE,
    KNOW,
    KNOWN,
    SHOW,
    SOURCE,
    VISIBLE,
    WE,
    Rule,
)

# fmt: off
# These refuse wherever they stand in a clause.
ANYWHERE = (
    # The speaker is not willing, or not allowed.
    Rule("cannot_assist",
         r"i (?:(?:can|could|will) not|am (?:not (?:\w+ )?able|unable|not going|not trained) to)"
         r" (?:(?:\w+ly|in good conscience) )?(?:assist|complete|comply|continue|discuss|display"
         r"|do (?:that|this)|encourage|endorse|engage|execute|follow (?:that|this)|fulfil{1,2}"
         r"|generate|help (?:you|with)|participate|support|write)\b|i am not (?:allowed|permitted"
         r"|programmed) to\b",
         ("I can't assist with that.", "I cannot fulfill your request.",
          "I'm not able to help with this.", "I'm not allowed to name people."),
         ("He can't assist with that.",), declines=True),
    Rule("cannot_provide",
         r"i (?:(?:can|could|will) not|am (?:not (?:\w+ )?able|unable|not going) to) (?:create|give"
         r"|offer|provide|share)(?: you)?(?: with)?(?! (?:\w+ ){0,12}(?:based|because|from|since"
         r"|solely|unless|without)\b)"
         rf" (?!{ADVERBS}(?:(?:a|an|any|the|that|this) )?(?:\w+ ){{0,2}}"
         r"(?:answers?|count|date|description|details?|estimate|integer|name|number|response"
         r"|requested|result|solution|value)\b)",
         ("I cannot provide instructions for making that.", "I will not share her address."),
         declines=True),
    Rule("does_not_condone",
         r"\b(?:do|can|will) not (?:condone|promote|encourage|endorse)\b",
         ("I do not condone violence.",), declines=True),
    Rule("against_policy",
         r"(?:against|beyond|breach(?:es|ing)?|outside|violat(?:e|es|ing)|violation of) (?:\w+"
         r" )?(?:\w+ )?(?:content|usage|use|use case) polic(?:y|ies)|polic(?:y|ies) prohibits?",
         ("Sharing such details would violate our usage policy.",),
         ("It is about the policy of the city.",), declines=True),
    # The speaker cannot find out, or say.
    Rule("cannot_tell",
         rf"{WE} {ADVERBS}{CAN} not {ADVERBS}(?:{KNOW}|{HELP})|(?:one|you) {CAN} not"
         rf" {ADVERBS}{KNOW}|(?:cropped|{SOURCE}) can not (?:{KNOW}|provide)|it can not (?:answer"
         rf"|provide)|{WE} can not come to|i (?:can not|could not) {ADVERBS}(?!be\b|believe"
         r"|discern any|feel|find an?\b|find any|hear|help but|imagine|recommend|see(?! or)\b|spot"
         r"|stress|tell|think|wait)\w+\b"
         rf"|(?:nobody|no one) {CAN} {KNOW}",
         ("I can't tell who that is.", "We simply could not help.", "You cannot really know.",
          "I can't view pictures.", "The passage cannot provide that.", "Nobody could say."),
         ("I can tell.", "I can't tell the two dogs apart.")),
    Rule("unable",
         r"(?<!if )i (?:am|was) (?:\w+ ){0,4}(?:unable|not (?:\w+ )?able) to"
         rf"|(?<!if )(?:we|you) (?:are|were) (?:unable|not {ADVERBS}able) to {ADVERBS}"
         rf"(?:{KNOW}|{HELP}|access|analy[sz]e|interact|interpret|physically|process|read|see|view)"
         r"|i am not capable of (?:access|answer|determin|identify|interpret|provid|read|see"
         r"|view)ing|i (?:am (?:\w+ ){1,5}and )?do not have the (?:ability|capability|capacity) to"
         rf"|{WE} (?:am|are) not (?:\w+ )?(?:equipped|in a position|qualified|trained) to (?:{KNOW}"
         rf"|{HELP})",
         ("I'm unable to read the sign.", "We were not quite able to see it.",
          "I do not have the ability to measure.", "I am not in a position to judge that."),
         ("The man is unable to walk.",)),
    Rule("doubts_that_one_can",
         rf"{WE} do not (?:think|believe|feel) (?:that )?(?:(?:i|we|you|one) {CAN}"
         rf" {ADVERBS}(?:{KNOW}|{HELP})|(?:it|this|that) {CAN} be {KNOWN})",
         ("I don't think I can say.", "I do not believe that this can be determined."),
         ("I don't think it is red.",)),
    # It cannot be found out.
    Rule("it_cannot_be_seen",
         r"\b(?:the|his|her|its|their|\w+'s) (?:\w+ ){1,6}can not be (?:clearly )?seen\b"
         r"|^it can not be (?:clearly )?seen(?! (?:by|with) )",
         ("The price of the car can't be seen.",), ("A shark cannot be seen.",), denies=True),
    Rule("cannot_see_it",
         r"(?:i|we|you) (?:can|could) not (?:\w+ly )?see (?:the|his|her|its|it|their|your|this|that"
         r"|what|who|where|how|if|whether|inside|behind|enough|in the|\w+'s)\b|(?:i|we|you) can not"
         r" see$|^can not (?:\w+ly )?see(?: (?:the|his|her|its|if|what|whether|who)\b|$)",
         ("We can't see the price.", "Cannot see her face."),
         ("We cannot see a hat.",), denies=True),
    Rule("cannot_be_known",
         rf"{CAN} not {ADVERBS}be {ADVERBS}{KNOWN}|unknown to (?:me|us)$|(?:is that|so|thus|hence"
         rf"|therefore) {WE} do not know",
         ("The brand cannot be determined.", "The plate could not be clearly read.",
          "It cannot be readily identified.", "The man is unknown to me.",
          "The truth is that I don't know."),
         ("It cannot be red.", "He is unknown to most people.")),
    Rule("no_answer_possible",
         rf"no (?:\w+ ){{0,2}}answer {CAN} be\b|no (?:clear|definite|specific) answer\b"
         rf"|no answer (?:in the|to (?:that|the|this|your) question)\b|no (?:\w+ ){{1,3}}{CAN} be"
         rf" {KNOWN}",
         ("No reliable answer can be given.", "No age can be determined.",
          "There's no clear answer."),
         ("There is no answer phone.",)),
    Rule("nothing_found",
         r"no (?:\w+ )?(?:answers?|details|records?|results?) (?:was |were |is |are |could be )?"
         r"(?:available|found)\b|\b(?:answer|details|information|records?) (?:\w+ ){0,8}(?:can"
         r"|could) not be (?:found|located|verified)|i (?:could|can) not find (?:any|enough)"
         r" (?:\w+ )?(?:details|information|records?)",
         ("No record found.", "Details of that event could not be found.",
          "No results are available."), ("The dog could not be found.",)),
    Rule("impossible",
         rf"(?:impossible|(?:not|never) possible) (?:for me |for us )?to {ADVERBS}"
         rf"(?:{KNOW}|complete|find the|give|make an?|offer|provide|read|see)"
         r"|(?:answering|determining|solving) (?:\w+ ){1,5}is (?:impossible|not possible)",
         ("From here it's impossible to see.", "That is never possible to know."),
         ("It is impossible to park here.",)),
    Rule("hard_to_tell",
         rf"(?:hard|difficult|challenging|tough|tricky) (?:for me )?to {ADVERBS}(?:{KNOW}|give"
         r"|pinpoint|provide|read)",
         ("That's tough to make out.", "It is hard to give a figure."),
         ("The hill is hard to climb.",)),
    Rule("too_blurry",
         rf"(?:too|so) (?:\w+ ){{1,4}}(?:for me )?to (?:{ADVERBS}(?:{KNOW}|read|make out)|be"
         r" (?:legible|read))|(?:image|photo|picture|text) is too (?:\w+ )?(?:blurr\w+|dark|faint"
         r"|small|unclear)$"
         rf"|(?:unsuitable|unusable) {IMAGE}$",
         ("The text is too small to read.", "The picture is too blurry.", "Unsuitable image."),
         ("The boy is too small to ride.",)),
    Rule("no_way_to_tell",
         r"there is no telling\b|(?:no|not (?:a|any)) (?:certain |sure |real )?way (?:for me |for"
         r" us )?(?:to|of)"
         rf" (?:{KNOW}|see|read|checking|determining|finding out|identifying|knowing|saying|seeing"
         r"|stating|telling)",
         ("There's no way to tell.", "There is not any sure way of knowing."),
         ("There is no way to cross.",)),
    Rule("unanswerable_question",
         rf"(?:question|problem|{IMAGE}) (?:is|are) (?:un(?:answer|solv)able|not (?:answer"
         r"|solv)able)",
         ("This question is unanswerable.",)),
    Rule("incomplete_question",
         r"(?:question|problem|statement|prompt) (?:\w+ )?(?:(?:is|was|seems to be|appears to be"
         r"|seems|appears) (?:not (?:\w+ ){0,2}(?:clear|specific)|(?:too |very |quite"
         r" )?(?:ambiguous|broad|general|incomplete|insufficient|missing|subjective|unclear|vague))"
         r"|(?:seems to |appears to )?(?:lack|miss)(?:s|es)?)\b",
         ("The question is incomplete.", "The problem lacks a figure.",
          "The question seems to be missing a number."),
         ("The question is about a dog.",)),
    Rule("does_not_have_information",
         rf"{WE} (?:currently )?do not (?:\w+ly )?have (?:\w+ ){{0,4}}(?:information|context|data"
         rf"|details|figures|knowledge|access|projections|statistics|values)|{WE} (?:do"
         rf"|would) not have (?:enough|sufficient|access|the|any|that|this)"
         r" (?:\w+ )?(?:information|context|details?|knowledge|to)"
         rf"|{WE} do not possess|{WE} have no (?:\w+ )?(?:access|data|details|information|knowledge"
         rf"|way to)",
         ("I don't have access to that.", "I would not have any detail.",
          "We do not possess such facts.", "I have no reliable data on that."),
         ("I do not have a dog.",)),
    Rule("needs_information",
         r"(?:i|we|one|you) (?:would |first )?(?:lack|need) (?:the |more |further |additional |any "
         r"|some |specific ){0,3}(?:information|context|details|knowledge)|(?:more|further"
         r"|additional) (?:\w+ ){0,2}(?:context|data|details?|information) (?:\w+ ){0,12}?(?:would"
         r" be|is|are) (?:necessary|needed|required)",
         ("I need more context.", "One would need further details.", "More detail is needed."),
         ("You need a ticket.",)),
    Rule("asks_for_more",
         r"(?:^|(?:could|can|if) you (?:please |could |can )?)(?:also )?(?:clarify|provide|share"
         r"|specify|supply|(?:try )?upload(?:ing)?)(?: me| us)?(?: with)? (?:a|an|additional|any"
         r"|further|more|the(?! answer)|your)\b|(?:could|can) you please (?:check|clarify|confirm"
         r"|rephrase)\b|(?:could|can|if) you (?:please |could |can )?(?:describe|give|send"
         r"|tell)(?: me| us)? (?:a|an|additional|any|further|more|the|your)\b",
         ("Please provide the picture.", "I will help if you give me a photo.",
          "Could you describe the figure?", "Could you please clarify?"),
         ("Please give way.", "Please provide the answer to the question.")),
    Rule("not_enough_to_tell",
         rf"no (?:\w+ )?(?:basis|evidence) to {KNOW}|not (?:clear )?enough (?:\w+ ){{0,2}}to"
         rf" (?:{KNOW}|go on|make an? (?:determination|identification|judge?ment))|{WE} (?:can"
         rf"|do) not see enough",
         ("There is not enough to go on.", "There's not enough light to say.",
          "There's no evidence to conclude that.", "I don't see enough of it."),
         ("There is not enough room to sit.",)),
    Rule("no_information",
         r"(?:not (?:any|enough|sufficient)|insufficient|no) (?:(?:additional|available|clear"
         r"|further|legible|more|readable|relevant|specific|visible|visual) )?(?:information"
         r"|context|data|details|clues?|evidence (?:in|on) (?:the|this)|(?:(?<=legible )"
         r"|(?<=readable ))(?:text|writing))(?! (?:booth|desk|sign|center|centre|point"
         r"|on the sign))|(?:data|details|information) (?:\w+ ){0,2}(?:is|are) (?:insufficient"
         r"|not (?:enough|sufficient))\b|\b(?:i|we) are missing the\b",
         ("Insufficient information.", "There are no visible clues.",
          "There isn't any information.", "The information provided is insufficient.",
          "We are missing the figure."),
         ("There is no information desk.",)),
    Rule("no_indication",
         r"no (?:explicit|specific) (?:indication|mention|record)\b"
         rf"|no (?:indication|mention|record) of (?:the |his |her |their |its )?{ATTRIBUTE}"
         rf"|no (?:clue|hint|indication) (?:about|as to|of|on|regarding) {ASKING}\b",
         ("There's no mention of her age.", "There is no hint as to where."),
         ("There is no indication of rain.",)),
    Rule("not_aware",
         rf"{WE} (?:am|are) not (?:aware|told)\b|my knowledge does not",
         ("I'm not aware of her name.", "My knowledge does not reach so far.")),
    Rule("not_something_one_knows",
         r"(?:can|do) not see (?:an?|any) (?:\w+ )?(?:answer|indication|information|mention)\b"
         r"|do not see (?:\w+ ){1,5}(?:given|listed|mentioned|provided|specified)\b|not something"
         r" (?:that )?(?:i|we|one|you|(?:the|this) \w+) (?:can|could|gives?|know|provides?|reveals?"
         r"|shows?|tells?)",
         ("That is not something the picture shows.", "I do not see a clear answer.")),
    Rule("would_have_to_ask",
         rf"{WE} would (?:need|have) to (?:ask|check|know|look|see)"
         r"|you would (?:need|have) to ask|i (?:would|will) need\b|i would not (?:be able|know)",
         ("I would have to see the back.", "You would need to ask him.", "I would need a map.",
          "I wouldn't know."),
         ("You would need to turn left.",)),
    # The image does not show it.
    Rule("image_does_not_show",
         rf"(?<!in the )(?<!in this )(?:{IMAGE}|it|this|that) (?:does|do) not"
         rf" (?:clearly |explicitly |actually )?(?!depict){SHOW}(?: us| me)?(?: any of)?"
         rf"(?: (?:the(?! (?:correct|right|same)\b)|that|this|{ASKING}|its|his|her|their)\b|$)"
         rf"|(?:{IMAGE}|it|this|that) (?:does|do) not (?:have|{SHOW})"
         r" (?:(?:any|enough|sufficient|the) )?(?:\w+ )?(?:answer|clues?|context|details?|evidence"
         r"|indication|information|mention|text|writing)",
         ("The image doesn't show his face.", "It does not clearly say.",
          "The photo does not have any readable text."),
         ("It does not show any cars.", "The clock in the image does not show the right time.",
          "The image does not depict that."), denies=True),
    Rule("does_not_provide",
         rf"{SOURCE} (?:(?:\w+ ){{0,2}}(?:does|do|did) not (?:\w+ly )?(?:(?:address|answer|confirm"
         r"|disclose|give|indicate|mention|offer|provide|say|specify|state)\b(?! way)|(?:contain"
         r"|have|hold|include|list) (?=(?:\w+ ){0,2}(?:answers?|details?|information|mention)\b))"
         r"|never (?:mention|say|specifie|state)s)|(?:none|neither) of (?:them|(?:the|these"
         r"|those) (?:\w+ )?\w+s) (?:\w+ly )?(?:address|answer|contain|discuss|give|indicate"
         r"|mention|provide|specif|state)\w*|(?:(?:provided|given) (?:context|data|documents?"
         r"|evidence|information|text)|(?:context|data|documents?|evidence|information"
         r"|text)(?: (?:provided|given))?|filing|report|excerpt) (?:does|do|did) not (?:\w+ly"
         r" )?(?:contain|have|include|outline|support)\b",
         ("The chart does not specify any unit.", "The text does not provide two prices.",
          "The text provided does not include a price.", "The article never says so.",
          "None of the passages mentions her."),
         ("The man does not give money.",)),
    Rule("not_given",
         r"(?:is|are) not (?:actually |clearly |currently |explicitly |fully |publicly"
         r" )?(?:determinable|given|known|mentioned|provided|specified|stated)\b(?! (?:as(?! it\b)"
         r"|for|to be)\b)|information not (?:given|included|provided|specified)\b|(?:data|details"
         r"|information|status) (?:about|as to|for|of|on|regarding) (?:[\w']+ ){1,12}(?:is"
         r"|are) not (?:currently |publicly )?available\b",
         ("The song is not known.", "The sides are not provided.",
          "It takes information not provided here.",
          "Data on the year's sales are not available."),
         ("The ball is not thrown.", "It is not known for its food.")),
    Rule("nothing_attached",
         r"(?:figure|image|picture|photo|graph|chart|diagram|data) (?:\w+ )?(?:is|are|was|were"
         r"|seems to be|appears to be) (?:missing(?:$| from| in)|not (?:added|attached|displayed"
         r"|included|loaded|shown$))|no (?:\w+ ){1,4}(?:(?:is|are|was|were|has been) )?(?:attached"
         r"|given|provided|specified|uploaded)\b|no (?:image|picture|figure|photo) is visible"
         r"|without (?:the|an?|any) (?:\w+ )?(?:figure|image|picture|photo|graph|chart"
         r"|diagram) (?:given|provided|attached)|\byou (?:have not|did not) (?:actually )?(?:attach"
         r"|includ|provid|shar|specif|upload)\w*",
         ("The diagram is missing.", "No picture was attached.", "You did not attach any picture."),
         ("The image is of a missing cat.",)),
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
         rf"nothing in the {SOURCE} (?:indicates|mentions|reveals|says|shows|states|suggests|tells)"
         rf"|nothing (?:here|in (?:the|this) {IMAGE}) (?:that )?(?:would |could )?"
         r"(?:allows?|enables?|helps?|lets?|tells?) (?:me|us)\b"
         rf"|nothing (?:about|on|regarding) (?:\w+ ){{1,5}}(?:is|are) {VISIBLE}",
         ("Nothing in the photo suggests a year.", "There is nothing here that would help me.",
          "Nothing about his job is stated."),
         ("There is nothing in the bowl.",)),
    Rule("attribute_not_visible",
         rf"{ATTRIBUTE}s? (?:(?:of|on|in) (?:\w+ ){{1,6}})?(?:is|are|remains?)"
         r" (?:unknown|unclear|illegible|undetermined|unreadable|(?:not|in) ?visible"
         rf"|not (?:\w+ )?{VISIBLE})",
         ("The brand is not visible.", "His name remains unknown."),
         ("The dog is not visible.", "The man's hat is not in the box."), denies=True),
    Rule("part_not_visible",
         r"(?:(?:his|her|its|their|\w+'s) (?:\w+ ){1,3}|the (?:\w+ (?:side )?of (?:\w+ ){1,4}"
         r"|(?:\w+ ){0,2}\w+[^\Ws]s (?:(?:in|inside|of|on) (?:\w+ ){1,4})?))(?<!that )(?<!which"
         r" )(?:is|are) not (?:\w+ly )?(?:legible|pictured|seen|shown|in view|visible)\b(?!"
         r" (?:because|to) )|hidden from (?:view|sight)|out of (?:view|frame|sight)$",
         ("Her right hand is not pictured.", "The back of the chair is not in view.",
          "The steps are not visible.", "The plate is hidden from view."),
         ("The dog is not visible.",), denies=True),
    Rule("not_in_image",
         rf"(?:(?:\b{ATTRIBUTE}s?|(?:his|her|its|their|\w+'s) (?:\w+ ){{1,3}}) ?(?:is|are) not"
         r" (?:depicted|in|part of|present|shown|visible)|(?:(?:\b(?:it|that|this) )is |^)not"
         r" (?:depicted|shown|visible)|something that is not (?:in|present)|(?:is |are |^)not"
         r" (?:available|given|included|mentioned))"
         rf" (?:(?:by|from|in|on) )?(?:the|this|your) (?:{IMAGE}|problem|text)",
         ("The price is not in the picture.",),
         ("The dog is not in the car.", "Ants are not present in this picture.",
          "The boat is not in this picture."), denies=True),
    Rule("would_be_a_guess",
         r"(?:i|we) can only (?:guess|speculate)|(?:would|could) only be (?:a guess|guesswork"
         r"|speculation)|would be (?:a guess|guesswork|guessing|speculation|speculating)",
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
         r"(?:i have |i have got |we have )?(?:absolutely )?no (?:idea|clue)(?:$| (?:who|what|where"
         r"|when|why|how|which|if|whether|about))|i (?:have|do) not (?:have )?(?:an? |any |the"
         r" (?:faintest|slightest) )?(?:idea|clue)",
         ("I've got no idea.", "No idea who that is.", "I haven't the faintest idea."),
         ("No idea is bad.",)),
    Rule("not_sure",
         rf"i am {ADVERBS}(?:not {ADVERBS}(?:sure|certain|confident|familiar)|unsure|uncertain)\b"
         rf"|not {ADVERBS}(?:sure|certain)(?:$| {ASKING}\b)|unsure$|uncertain$"
         r"|i do not feel (?:certain|confident|sure)",
         ("I'm not quite sure.", "Not sure what it is.", "Uncertain.", "Unsure.",
          "I don't feel confident."),
         ("I am sure.", "He is not sure.")),
    Rule("names_it_but_cannot_tell",
         r"i (?:\w+ ){1,9}(?:and|so) (?:i )?(?:do|can|could) not (?:analy[sz]e|assist|help|identify"
         r"|interpret|know|name|provide|say|tell|view)\b",
         ("I see a bottle and cannot name it.",), ("I see a bottle and a cup.",)),
    Rule("cannot_tell_short",
         rf"{CAN} not (?:{KNOW}$|{KNOW} (?:as|based|because|by|due|from|how|if|it|since|that|the"
         r"|this|what|when|where|whether|which|who|why|without|with)\b|see it)|(?:(?:it |that |this"
         r" |the answer )?is )?(?:unable|impossible|not possible|hard|difficult) to"
         rf" (?:{KNOW}|see)",
         ("Can't say.", "Cannot tell from here.", "Unable to determine.", "Hard to see."),
         ("I can not see a dog.", "Hard to climb.")),
    Rule("beyond_me",
         r"(?:that|this|it)(?: one)? is (?:\w+ )?(?:beyond|outside) (?:me$|my|what i)|(?:\w+"
         r" ){1,12}is (?:beyond|outside) (?:my (?:abilit|capabilit|expertise|knowledge)"
         r"|what i (?:can|know))|who knows|beats me|your guess is as good",
         ("That one is beyond me.", "Naming birds is beyond my abilities.", "Who knows?",
          "Beats me.", "Your guess is as good as mine."),
         ("It is beyond the fence.",)),
    # It cannot be found out.
    Rule("it_does_not_say",
         r"(?:it )?does not (?:\w+ly )?(?:give|indicate|mention|provide|specify|state) (?:an?|any"
         r"|the) (?:exact |specific )?\w+|do not (?:indicate|mention|provide|specify|state) (?:an?"
         r"|any|the) (?:clear|exact|overall|specific)\b|they do not (?:\w+ly )?(?:answer|indicate"
         r"|mention|provide|say|specify|state)\b",
         ("It does not give a price.", "They do not say who won."),
         ("Do not give the dog a bone.",)),
    Rule("unclear",
         r"(?:(?:it |that |this |the answer |answer )?(?:is|was|remains) )?(?:unanswerable|unclear"
         r"|unknown|undetermined|indeterminate|unknowable"
         rf"|not (?:\w+ )?{VISIBLE})"
         r"(?:$| (?:based|because|from|in|on|by|to|what|who|how|which|where|when|why|whether"
         r"|if)\b)",
         ("Unanswerable.", "It remains unclear who won.", "Not stated."),
         ("The unknown soldier.",)),
    Rule("what_it_is_is_unclear",
         rf"{ASKING} (?:\w+ ){{1,9}}(?:is|are|remains?) (?:not {VISIBLE}|uncertain|unclear"
         rf"|unknown)\b",
         ("Where she lives is unknown.",)),
    Rule("it_is_unknown",
         r"(?:the|his|her|its|their) (?:\w+ ){1,12}(?:is|are|remains?) (?:currently |still"
         r" )?(?:unknown|not known)(?:$| as )"
         rf"|(?:the |this |that )?{ATTRIBUTE} (?:is )?(?:not answerable|unknown)\b",
         ("The county where the school lies is unknown.", "Price not answerable.",
          "Age unknown from 2004"), ("It is not known for its food.", "The unknown city.")),
    Rule("no_possible_answer",
         r"no (?:possible |definite |definitive )?answer$|unknown at this time|(?:the )?answer"
         r" (?:is |was )?not (?:contained|found|included|present)\b|(?:the )?(?:correct )?(?:answer"
         r"|option|option letter)? ?(?:is )?n a$",
         ("No possible answer.", "The answer is not found here.", "N/A")),
    # The speaker is not willing, or not allowed.
    Rule("not_appropriate",
         r"(?:it|this|that) (?:is|would be) (?:(?:not|never) (?:appropriate|ethical)|inappropriate"
         r"|unethical|unsafe)(?: (?:or|and) \w+)? (?:for me )?to\b|i (?:must|would like to)"
         r" (?:emphasi[sz]e|stress) that",
         ("It is not appropriate to discuss this.", "It would be unethical to judge her."),
         declines=True),
    Rule("rather_not",
         r"(?:i would |i )(?:rather not|prefer not to|only be guessing|just be guessing)"
         r"|i (?:do not feel|am not|would not be) comfortable",
         ("I'd rather not say.", "I would only be guessing.", "I don't feel comfortable."),
         declines=True),
    Rule("will_not_guess",
         r"i (?:will|would) not (?:guess|answer|say)|i (?:do|would) not (?:care|like|want|wish) to"
         r" (?:answer|guess|say|speculate)",
         ("I won't guess.", "I do not wish to speculate."), ("I do not want to eat.",)),
    Rule("declines",
         r"i (?:must |have to )?(?:decline|abstain|give up|pass$)",
         ("I must decline.", "I pass."), ("I pass the ball.",), declines=True),
)
# fmt: on
