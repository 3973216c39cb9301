"""A small VQA set of real pictures: matplotlib's samples, whole and cut, with questions and boxes
written by hand."""

import json
from pathlib import Path

from matplotlib import cbook
from PIL import Image

# Name -> sample file, the part cut out of it (left, top, right, bottom), and what it shows.
PICTURES = {
    "portrait.jpg": (
        "grace_hopper.jpg",
        (0, 0, 512, 600),
        "woman hat glasses uniform jacket badge button ribbons flag stars rope tie shirt wall face",
    ),
    "flag.jpg": ("grace_hopper.jpg", (0, 0, 135, 340), "flag stars rope fringe"),
    "face.jpg": (
        "grace_hopper.jpg",
        (145, 130, 385, 320),
        "woman face glasses frame hair lips wall",
    ),
    "hat.jpg": ("grace_hopper.jpg", (140, 10, 385, 150), "hat eagle leaves emblem brim wall"),
    "chest.jpg": (
        "grace_hopper.jpg",
        (60, 450, 480, 600),
        "uniform jacket badge button ribbons tie shirt",
    ),
    "logo.png": ("logo2.png", (0, 0, 542, 130), "logo word letters wheel"),
    "present.png": ("Minduka_Present_Blue_Pack.png", (0, 0, 128, 128), "present bow paper box"),
}
# Picture, question, answer, and the box that shows it: left, top, width, height.
QUESTIONS = [
    ("portrait.jpg", "What name is on the badge?", "COMO HOPPER", (78, 483, 92, 36)),
    ("portrait.jpg", "What color is the button?", "gold", (228, 572, 34, 28)),
    ("portrait.jpg", "What is the woman wearing on her head?", "hat", (145, 18, 230, 160)),
    ("portrait.jpg", "What is behind the woman on the left?", "flag", (0, 0, 200, 600)),
    ("portrait.jpg", "What color is the wall?", "blue", (370, 0, 142, 380)),
    ("flag.jpg", "What shapes are on the flag?", "stars", (0, 0, 135, 300)),
    ("flag.jpg", "What color are the stars?", "white", (0, 0, 135, 300)),
    ("flag.jpg", "What hangs in front of the flag?", "rope", (110, 0, 25, 340)),
    ("face.jpg", "What color is the frame of the glasses?", "brown", (30, 35, 190, 70)),
    ("face.jpg", "What color is the hair?", "grey", (0, 20, 40, 170)),
    ("face.jpg", "What is the woman looking through?", "glasses", (30, 35, 190, 70)),
    ("face.jpg", "What color are the lips?", "pink", (80, 130, 70, 30)),
    ("hat.jpg", "What bird is on the hat?", "eagle", (80, 12, 80, 60)),
    ("hat.jpg", "What color is the brim?", "black", (5, 70, 230, 70)),
    ("hat.jpg", "What plant is on the brim?", "leaves", (60, 65, 140, 30)),
    ("hat.jpg", "What color is the top of the hat?", "white", (35, 30, 180, 45)),
    ("chest.jpg", "What color is the jacket?", "black", (0, 0, 420, 150)),
    ("chest.jpg", "What is pinned to the right of the tie?", "ribbons", (262, 38, 132, 42)),
    ("chest.jpg", "What color is the tie?", "black", (155, 0, 85, 60)),
    ("logo.png", "What word is in the logo?", "matplotlib", (0, 0, 542, 130)),
    ("logo.png", "Which letter does the wheel stand for?", "o", (330, 10, 110, 110)),
    ("logo.png", "What color are the letters?", "blue", (0, 0, 330, 130)),
    ("present.png", "What color is the paper?", "blue", (0, 20, 128, 108)),
    ("present.png", "What is on top of the present?", "bow", (20, 0, 90, 60)),
]  # fmt: skip


def write(folder: Path) -> Path:
    """Pictures and `data.jsonl` below the folder. Returns it."""
    (folder / "images").mkdir(parents=True)
    for name, (sample, part, _) in PICTURES.items():
        with Image.open(cbook.get_sample_data(sample, asfileobj=False)) as image:
            image.crop(part).save(folder / "images" / name)
    rows = [
        {
            "id": f"p{i}",
            "image": f"images/{name}",
            "question": question,
            "answers": [answer],
            "answerable": True,
            "evidence": [list(box)],
        }
        for i, (name, question, answer, box) in enumerate(QUESTIONS)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
