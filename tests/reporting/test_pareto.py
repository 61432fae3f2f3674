"""The front: models that no other one beats in cost and robustness together."""

from hypothesis import given
from hypothesis import strategies as st

from robustvid.reporting.pareto import front, write_pareto

POINTS = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8)


@given(POINTS)
def test_every_model_is_on_the_front_or_beaten_by_one_that_is(points):
    costs, gains = zip(*points, strict=True)
    best = front(costs, gains)
    for place, (cost, gain) in enumerate(points):
        beaten = [other for other in best if points[other][0] <= cost and points[other][1] >= gain]
        assert beaten if place not in best else beaten == [place]


def test_the_figure_names_every_model(tmp_path):
    rows = [
        {"model": name, "robust": [50.0 + place, 40.0, 60.0], "latency_ms_p50": 1.0 + place, "megabytes": 0.5}
        for place, name in enumerate(("dense", "cut", "int8"))
    ]
    svg, png = write_pareto(rows, "3 clips", tmp_path)
    text = svg.read_text()
    assert all(name in text for name in ("dense", "cut", "int8", "3 clips"))
    assert png.read_bytes().startswith(b"\x89PNG")
