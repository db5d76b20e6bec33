"""What the network is given and when its outputs are shown, against every short arrangement of scenes and repeats."""

import itertools
import weakref

import numpy as np
import pytest

from msitf_jax.video.reader import Picture
from msitf_jax.video.windows import stills, windows

# How a picture follows the one before it; all arrangements of up to this many pictures are tried.
NEW, SAME, CUT = "new", "same", "cut"
LONGEST = 7


def arrangements():
    for length in range(1, LONGEST + 1):
        yield from itertools.product((NEW, SAME, CUT), repeat=length - 1)
    rng = np.random.default_rng(0)
    for length in range(LONGEST + 1, 13):
        yield (NEW,) * (length - 1)
        for place in range(length - 1):
            yield tuple(CUT if i == place else NEW for i in range(length - 1))
            yield tuple(SAME if i == place else NEW for i in range(length - 1))
        yield from (tuple(rng.choice([NEW, SAME, CUT], length - 1)) for _ in range(50))


def marked(follows, times=None):
    """(picture, whether it begins a scene) for each; a picture's pixels are its scene and 10 times its number there."""
    scene, number = 0, 0
    times = range(len(follows) + 1) if times is None else times
    for follow, time in zip((None, *follows), times, strict=True):
        scene, number = (scene + 1, 0) if follow == CUT else (scene, number + (follow == NEW))
        yield Picture(np.array([[[scene, 10 * number, 0]]], np.uint8), time), follow == CUT


def told(marked):
    """Stills that end their scene where a picture is marked to begin one."""
    cuts = set()

    def pictures():
        for picture, begins in marked:
            if begins:
                cuts.add(picture.time)
            yield picture

    for still in stills(pictures()):
        still.last |= still.next_time in cuts
        yield still


def run(window):
    """What a network shows whose outputs are the pictures and the means of neighbors: ((scene, number * 10), time)."""
    clip = [tuple(pixels[0, 0, :2].tolist()) for pixels in window.clip]
    between = [tuple((np.add(a, b) / 2).tolist()) for a, b in itertools.pairwise(clip)]
    outputs = [value for pair in itertools.zip_longest(clip, between) for value in pair][:-1]
    return [(outputs[index], time) for index, time in window.outputs]


def expected(follows, times, *, interpolate=True, cut="repeat"):
    """The same, picture by picture."""
    pictures = [tuple(picture.pixels[0, 0, :2].tolist()) for picture, _ in marked(follows, times)]
    shown = []
    for i, (picture, time) in enumerate(zip(pictures, times, strict=True)):
        shown.append((picture, 2 * time))
        if interpolate and i < len(follows) and not (follows[i] == CUT and cut == "hold"):
            later = picture if follows[i] == CUT else pictures[i + 1]
            shown.append((tuple((np.add(picture, later) / 2).tolist()), time + times[i + 1]))
    return shown


def spread(count):
    """Times that are nowhere evenly spaced."""
    return list(itertools.accumulate(1 + 3 * i % 7 for i in range(count)))


@pytest.mark.parametrize("times", [range, spread])
@pytest.mark.parametrize("cut", ["repeat", "hold"])
@pytest.mark.parametrize("interpolate", [True, False])
def test_every_picture_and_every_middle_is_shown_at_its_time(times, cut, interpolate):
    for follows in arrangements():
        when = times(len(follows) + 1)
        plan = list(windows(told(marked(follows, when)), interpolate=interpolate, cut=cut))
        shown = [entry for window in plan for entry in run(window)]
        assert shown == expected(follows, when, interpolate=interpolate, cut=cut), follows
        moments = [time for _, time in shown]
        assert all(earlier < later for earlier, later in itertools.pairwise(moments))
        count = len(follows) + 1
        held = follows.count(CUT) if cut == "hold" else 0
        assert len(shown) == (2 * count - 1 - held if interpolate else count)


def test_a_window_has_four_pictures_of_one_scene():
    for follows in arrangements():
        for window in windows(told(marked(follows))):
            assert len(window.clip) == 4
            assert len({int(pixels[0, 0, 0]) for pixels in window.clip}) == 1
            assert all(0 <= index <= 6 for index, _ in window.outputs)


@pytest.mark.parametrize(
    ("length", "clips"),
    [
        (1, [[0, 0, 0, 0]]),
        (2, [[0, 1, 1, 1]]),
        (3, [[0, 1, 2, 2]]),
        (4, [[0, 1, 2, 3]]),
        (5, [[0, 1, 2, 3], [1, 2, 3, 4]]),
        (6, [[0, 1, 2, 3], [2, 3, 4, 5]]),
        (7, [[0, 1, 2, 3], [3, 4, 5, 6]]),
        (8, [[0, 1, 2, 3], [3, 4, 5, 6], [4, 5, 6, 7]]),
        (10, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]),
    ],
)
def test_windows_share_the_picture_where_they_meet_and_the_last_one_ends_with_the_scene(length, clips):
    alone = [NEW] * (length - 1)
    assert numbers(windows(told(marked(alone)))) == clips
    # Other scenes before and after change nothing, nor does a picture that stands for a while.
    between = list(windows(told(marked([NEW, CUT, *alone, CUT, NEW, NEW]))))
    assert numbers(window for window in between if window.clip[0][0, 0, 0] == 1) == clips
    assert numbers(windows(told(marked([SAME, SAME, *alone, SAME])))) == clips


def numbers(plan):
    return [[int(pixels[0, 0, 1]) // 10 for pixels in window.clip] for window in plan]


def test_equal_pictures_show_the_same_output():
    a, _, c, *_ = (picture for picture, _ in marked([SAME, NEW, NEW, NEW]))
    pictures = [a.pixels, a.pixels.copy(), c.pixels, c.pixels.copy(), c.pixels.copy(), a.pixels]
    (window,) = windows(told((Picture(pixels, 10 * time), False) for time, pixels in enumerate(pictures)))
    assert window.outputs == [
        *[(0, 0), (0, 10), (0, 20)],
        (1, 30),
        *[(2, 40), (2, 50), (2, 60), (2, 70), (2, 80)],
        (3, 90),
        (4, 100),
    ]


def test_a_cut_right_before_the_last_picture_and_right_after_the_first():
    plan = list(windows(told(marked([CUT, NEW, NEW, CUT])), cut="hold"))
    assert numbers(plan) == [[0, 0, 0, 0], [0, 1, 2, 2], [0, 0, 0, 0]]
    assert [window.outputs for window in plan] == [[(0, 0)], [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6)], [(0, 8)]]


def test_ten_thousand_equal_pictures_are_held_as_one():
    alive, most = 0, 0

    def gone():
        nonlocal alive
        alive -= 1

    def pictures():
        nonlocal alive, most
        for time in range(10_000):
            pixels = np.full((2, 2, 3), 7, np.uint8)
            alive += 1
            most = max(most, alive)
            weakref.finalize(pixels, gone)
            yield Picture(pixels, time), False

    (window,) = windows(told(pictures()))
    assert len(window.outputs) == 19_999
    assert all(pixels is window.clip[0] for pixels in window.clip)
    assert most <= 3  # the one that is kept, the one that is compared with it, and the next
    assert alive == 1


def test_a_window_comes_as_soon_as_the_picture_after_it_is_known():
    source = marked([NEW] * 20)
    plan = windows(told(source))
    next(plan)
    assert next(source)[0].time == 5
    next(plan)
    assert next(source)[0].time == 9


def test_no_pictures_give_no_window():
    assert list(windows(told([]))) == []


def test_unknown_rule_is_named():
    with pytest.raises(ValueError, match=r"`cut` \(='mix'\) must be one of repeat, hold"):
        list(windows([], cut="mix"))
