"""Raw files of two sets that nobody here drew: charts by matplotlib, and scikit-learn's digits.

Each is a folder with train.csv, test.csv and pictures/, whose pictures go by numbers. The questions
are none of our templates; some have options, some ask about two pictures, some about text alone.
"""

import csv

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits

CITIES = ("Oslo", "Lima", "Kyiv", "Bonn", "Rome")
COLUMNS = ("picture", "ask", "choices", "reply")


def write_charts(folder, sizes):
    """Bar charts; `sizes` maps each split to its number of charts."""
    random, number = np.random.default_rng(0), 0
    (folder / "pictures").mkdir(parents=True)
    for split, n in sizes.items():
        rows = []
        for i in range(n):
            cities = random.permutation(CITIES)[: 3 + i % 2].tolist()
            heights = random.permutation(np.arange(2, 10))[: len(cities)]
            _draw_bars(folder / f"pictures/{number:04}.png", cities, heights)
            tallest = cities[int(heights.argmax())]
            first, second = cities[:2]
            higher = "yes" if heights[0] > heights[1] else "no"
            rows += [
                (number, "Which city has the tallest bar?", cities, tallest),
                (number, f"Does the bar of {first} reach above that of {second}?", "", higher),
                (number, "How many bars were drawn in the chart?", "", len(cities)),
            ]
            if i:
                both, options = [number - 1, number], ["the first", "the second"]
                rows.append((both, "Which chart shows more bars?", options, i % 2))
            more = "yes" if heights[0] > 5 else "no"
            rows.append(([], f"Is {int(heights[0])} more than 5?", "", more))
            number += 1
        _write_rows(folder / f"{split}.csv", rows)


def _draw_bars(file, names, heights):
    figure = Figure(figsize=(2, 2), dpi=56)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.bar(names, heights, color="tab:blue")
    figure.savefig(file)


def write_digits(folder, sizes):
    """Handwritten digits, eight pixels wide as scikit-learn has them, drawn four times as large."""
    digits, number = load_digits(), 0
    (folder / "pictures").mkdir(parents=True)
    for split, n in sizes.items():
        rows = []
        for _ in range(n):
            pixels = (255 - digits.images[number] * 15.9).astype(np.uint8)
            picture = Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST)
            picture.save(folder / f"pictures/{number:04}.png")
            digit = int(digits.target[number])
            rows += [
                (number, "Which digit did the pen write?", "", digit),
                (number, "Is the written number an even one?", "", "no" if digit % 2 else "yes"),
                (number, "Read the number.", ["0 to 4", "5 to 9"], digit // 5),
            ]
            number += 1
        _write_rows(folder / f"{split}.csv", rows)


def _write_rows(file, rows):
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows([COLUMNS, *rows])
