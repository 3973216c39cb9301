"""Questions that no picture answers, and the prompt with which a model is asked to write some.

Our own lists: the paper's generator is not public.
"""

# Attributes that no picture shows, asked about something that the picture does show.
UNSEEABLE: dict[str, str] = {
    "price": "How much does the {noun} cost?",
    "owner": "Who owns the {noun}?",
    "smell": "What does the {noun} smell like?",
    "age": "How old is the {noun}?",
    "taste": "What does the {noun} taste like?",
    "sound": "What sound does the {noun} make?",
    "behind": "What is behind the {noun}?",
}

# Asked about something that is not there: each presumes that it is.
FALSE_PREMISE: tuple[str, ...] = (
    "What is the {noun} next to?",
    "What is in front of the {noun}?",
    "What is on top of the {noun}?",
    "Which side of the picture is the {noun} on?",
    "What is the {noun} made of?",
    "Why is the {noun} in the picture?",
)

# What lies outside the frame, in space or in time.
BEYOND_FRAME: tuple[str, ...] = (
    "What is just outside the left edge of the picture?",
    "What is just outside the right edge of the picture?",
    "What is above the top edge of the picture?",
    "What is below the bottom edge of the picture?",
    "Who is looking at the scene from outside the picture?",
    "What happened right before this picture was taken?",
    "What will happen right after this picture was taken?",
    "What is on the far side of the {noun}?",
    "What is on the back of the {noun}?",
    "Where was the {noun} an hour before the picture was taken?",
)

# For a vision-language model that sees the image. What it writes goes through the same filters as
# every other question.
WRITER_PROMPT = """\
Write {n} questions about this image that cannot be answered from it, however closely one looks. \
Each question must be about something that the image shows, sound natural, and ask for \
information that the image does not hold: what is hidden, cut off, outside the frame, before or \
after the moment, or a property that cannot be seen. No question may be answered by common \
knowledge, by yes or no, or by reading text in the image. A question that someone has asked about \
this image and that can be answered: "{question}"
Write one question on each line, each ending with a question mark, without numbers and without \
answers."""
