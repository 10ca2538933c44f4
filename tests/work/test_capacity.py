"""How many actors nodes hold, and how many are wanted."""

from typing import Literal

import pytest

from polyfit.work.capacity import MAX_START_PAUSE_S, actors_on_node, pause_s, wanted_actors


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "actors"),
    [
        ({"CPU": 8}, 1, 0, 8),
        ({"CPU": 8}, 3, 0, 2),
        ({"CPU": 1}, 0.1, 0, 10),
        ({"CPU": 8}, 1, 1, 0),
        ({"CPU": 8, "GPU": 2}, 1, 1, 2),
        ({"CPU": 8, "GPU": 3}, 1, 2, 1),
        ({"CPU": 8, "GPU": 2}, 1, 0.5, 4),
        ({"CPU": 8, "GPU": 2}, 1, 0.4, 4),  # 0.2 of each GPU is left over
        ({"CPU": 3, "GPU": 2}, 1, 0.5, 3),
        ({"GPU": 2}, 1, 1, 0),
        ({}, 1, 0, 0),
    ],
)
def test_a_node_holds_as_many_actors_as_its_cpus_and_gpus_allow(
    node: dict[str, float], cpus: float, gpus: float, actors: int
) -> None:
    assert actors_on_node(node, cpus, gpus) == actors


@pytest.mark.parametrize(
    ("tasks", "room", "least", "most", "wanted"),
    [
        (100, 8, 1, "auto", 8),
        (3, 8, 1, "auto", 3),
        (100, 0, 1, "auto", 1),  # the first one waits for a node
        (100, 2, 4, "auto", 4),
        (100, 8, 1, 2, 2),
        (100, 1, 1, 5, 5),
        (2, 8, 4, 5, 2),
    ],
)
def test_so_many_actors_are_wanted(
    tasks: int, room: int, least: int, most: int | Literal["auto"], wanted: int
) -> None:
    assert wanted_actors(tasks, room, least, most) == wanted


def test_pauses_between_starts_double_to_a_limit() -> None:
    assert [pause_s(failures) for failures in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert pause_s(50) == MAX_START_PAUSE_S
