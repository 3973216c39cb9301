"""Attributes that no picture shows, asked about something that the picture does show.

Our own list: the paper's generator is not public.
"""

UNSEEABLE: dict[str, str] = {
    "price": "How much does the {noun} cost?",
    "owner": "Who owns the {noun}?",
    "smell": "What does the {noun} smell like?",
    "age": "How old is the {noun}?",
    "taste": "What does the {noun} taste like?",
    "sound": "What sound does the {noun} make?",
    "behind": "What is behind the {noun}?",
}
