"""Statistics over seeds, with values worked by hand."""

import math

import numpy as np
import pytest

from tools.seed_statistics import by_seed_and_prompt, interquartile_mean, spread, two_way_interval
