import pytest

from asyncq.cli import parse
from asyncq.config import TrainConfig


@pytest.mark.parametrize("text", ["500000", "500_000", "5e5", "0.5E6"])
def test_whole_numbers_may_be_written_as_people_write_them(text: str) -> None:
    config = parse(TrainConfig, "train", ["--total-steps", text, "--learning-rate-anneal-steps", text])
    assert config.total_steps == config.learning_rate_anneal_steps == 500_000
    assert type(config.total_steps) is type(config.learning_rate_anneal_steps) is int
