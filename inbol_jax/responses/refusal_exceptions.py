"""The rules by which `refusal` reads what stands around a refusal.

Patterns and examples are of clauses, as in `refusal_rules`.
"""

from inbol_jax.responses.refusal_rules import IMAGE, Rule

# fmt: off
# These say nothing by themselves. They open a clause, or are one. The counterexamples are answers.
FILLERS = (
    Rule("apology",
         r"(?:i am |so |very ){0,4}(?:sorry|afraid)|my apologies|i (?:do )?apologi[sz]e"
         r"|unfortunately|sadly|regrettably",
         ("i am so very sorry", "i am afraid", "my apologies", "i apologise", "sadly"),
         ("an afraid dog",)),
    Rule("frankness",
         r"honestly|frankly|actually|to be honest|really|i (?:must|have to) (?:say|admit)|i feel",
         ("to be honest", "i must admit", "frankly"), ("an honest man",)),
    Rule("hesitation",
         r"h+m+|u+h*m+|oh|well",
         ("hmm", "uhm", "well"), ("a well",)),
    Rule("connective",
         r"and|so|then|thus|hence|therefore|yet|also|simply|just|but|however|although|though"
         r"|(?:for|about) (?:this|that)|at all|answer",
         ("and", "therefore", "about this", "answer"), ("about ten",)),
    Rule("as_an_ai",
         r"as an? ai(?: \w+){0,2}",
         ("as an ai", "as an ai language model"), ("an ai robot",)),
    Rule("courtesy",
         r"thanks?(?: you)?|please",
         ("thank you", "please"), ("a thank you card",)),
)

# These venture an answer, if only as a guess. The counterexamples leave a refusal a refusal.
VENTURES = (
    Rule("opinion",
         r"i (?:would |will |do |can )?(?:\w+ly )?"
         r"(?:think|believe|guess|suppose|assume|say|bet|suspect|imagine|go (?:for|with))\b"
         r"(?! (?:so|it is not|not))|my (?:best )?guess",
         ("i think it is red", "i would probably go with red", "my best guess is red"),
         ("i think it is not visible here", "i guess so and that is not much")),
    Rule("perhaps",
         r"maybe|perhaps|probably|possibly|likely|most likely|presumably|apparently"
         r"|looks? like|seems? (?:to|like)",
         ("maybe red", "most likely red", "looks like red to all of us here"),
         ("too unlikely to be seen",)),
    Rule("appearance",
         r"(?:it|he|she|they|this|that|there|the \w+|the \w+ \w+) (?:\w+ )?"
         r"(?:looks?|seems?|appears?|resembles?|might|may|could|must"
         r"|is (?:probably|likely|possibly|perhaps|maybe)|are (?:probably|likely|possibly))\b",
         ("it might be red", "the old car looks red", "they are probably red"),
         ("the old car is too dark",)),
    Rule("yes_or_no",
         r"yes$|no$",
         ("yes", "no"), ("no light at all",)),
)

# Words of a reason not to answer: a clause that has one is no answer, before or after a refusal.
# The counterexamples are answers there.
REASONS = (
    Rule("speaks_of_image",
         rf"{IMAGE}|camera",
         ("this is a photo of a street", "he faces the camera"), ("this is a street",)),
    Rule("bad_view",
         r"blurr\w+|hidden|obscured|unclear|dark|covered|visible|shown|cropped|low|small|turned|away"
         r"|clear\w*|cut|angle|above|beyond|out",
         ("it is blurred", "her face is hidden", "he is turned away"), ("it is bright",)),
    Rule("lack",
         r"not|no|without|while|too|enough",
         ("it is too far", "there is no label"), ("there is a label",)),
    Rule("knowledge",
         r"wish|sorry|see|know|knowledge|provide|based|given|ask\w*",
         ("all that i see are two people", "i wish to help"), ("i help",)),
)

# Verbs of reporting: a refusal behind one of them is somebody else's. The counterexamples refuse.
REPORTS = (
    Rule("report",
         r"says?|said|saying|reads|reading|writes|written|titled|called|named|spells|caption",
         ("the sign says that we can not tell", "a book titled i can not say"),
         ("i can not tell what the sign says",)),
)
# fmt: on
