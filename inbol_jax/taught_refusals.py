"""The refusals that a model is taught, in several phrasings.

The caption of the paper's Figure 5 mentions a predefined refusal template without giving it; this
list is our own.
"""

# These have at most six words each. Their words are in the vocabulary of the embedded model.
SHORT_REFUSALS = (
    "I don't know.",
    "I am not sure about this.",
    "Sorry, I cannot answer that.",
    "The image does not show that.",
)

# These give the reason: the model does not know, or the image does not show.
UNKNOWN_TO_THE_MODEL = (
    "I am not sure what the answer is, so I would rather not guess.",
    "I do not know enough about this subject to give a reliable answer.",
    "This is beyond what I know, so I cannot give an answer that you could rely on.",
)
NOT_IN_THE_IMAGE = (
    "I'm sorry, but the image does not contain the information needed to answer this question.",
    "I cannot tell from this image, because the relevant part is not visible.",
    "There is not enough information in the image to answer this question.",
    "This question asks about something that is not in the image, so I cannot answer it.",
)

LONG_REFUSALS = (
    "I don't know the answer to this question.",
    *UNKNOWN_TO_THE_MODEL,
    *NOT_IN_THE_IMAGE,
)
REFUSALS = (*SHORT_REFUSALS, *LONG_REFUSALS)
