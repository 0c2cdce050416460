"""How far apart two cities are, as the agreements on interoperable cards see it: circles around our own city."""

from enum import IntEnum


class Circle(IntEnum):
    """Each lies within the next, so the numbers compare. They are never stored: the names are."""

    LOCAL = 1  # our own region
    HANGZHOU = 2  # Hangzhou metropolitan circle 杭州都市圈
    DELTA = 3  # Yangtze delta 長三角
    NATION = 4
