from finetune_trainer.checkpoint import shard_name
from finetune_trainer.fragments import share


def test_every_parameter_has_one_rank_that_writes_it_and_all_write_about_as_much() -> None:
    sizes = [100, 1, 50, 50, 1, 98]
    owners = share(sizes, 2)
    load = [sum(s for s, o in zip(sizes, owners, strict=True) if o == rank) for rank in (0, 1)]
    assert load == [150, 150]
    assert share(sizes, 1) == [0] * 6
    assert share([5], 3) == [0]


def test_a_shard_s_name_says_whose_it_is() -> None:
    assert shard_name(3, 16, 2) == "rank-00003-of-00016-attempt-2.safetensors"
