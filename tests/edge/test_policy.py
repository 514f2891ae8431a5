"""A policy tuned by the cloud changes what the edge harvests."""

import msgspec

from cloud.dataset.store import Store
from cloud.registry.registry import Registry
from tests.cli.conftest import gleaner
from tests.cloud.bundles import card
from tests.nodes import Observer, edge_process, enveloped, photo, photo_id


async def harvest(seen: Observer, number: int) -> str | None:
    """Return the harvest field of the result for a confident photo."""
    await seen.send(enveloped(number, photo(number, "red")))
    return (await seen.answer(photo_id(number))).harvest


async def test_an_edge_follows_a_tuned_policy(config, tmp_path):
    """If the card states that the lane auto does not help, photos are refused as `auto-off`."""
    (tmp_path / "rules.toml").write_text("near_duplicate_s = 0\naudit_share = 0\n")
    Registry(tmp_path / "models").write_card(msgspec.structs.replace(card(1), auto=False))
    Store.open(tmp_path / "dataset")
    at = "--broker", f"127.0.0.1:{config.broker.port}"
    places = "--dataset", tmp_path / "dataset", "--out", tmp_path / "models"
    with edge_process(config, tmp_path) as edge:
        edge.start()
        async with Observer(config.broker).watching() as seen:
            await seen.status("online")
            assert (await gleaner("cloud", "policy", "--set", tmp_path / "rules.toml", *at)).code == 0
            assert await harvest(seen, 0) == "auto"
            done = await gleaner("cloud", "policy", "--tune", *places, *at)
            assert done.out == "edge-1: lane auto off: it did not help the training in two rounds running\n"
            for number in range(1, 100):
                if (outcome := await harvest(seen, number)) != "auto":
                    break
            assert outcome == "auto-off"


async def test_an_edge_says_which_answers_the_vote_confirms(config, tmp_path):
    """Without a vote `confirmed` is null; with 2 of 2 only the second answer of a label counts."""
    at = "--broker", f"127.0.0.1:{config.broker.port}"
    with edge_process(config, tmp_path) as edge:
        edge.start()
        async with Observer(config.broker).watching() as seen:
            await seen.status("online")
            await seen.send(enveloped(0, photo(0, "red")))
            assert (await seen.answer(photo_id(0))).confirmed is None
            assert (await gleaner("cloud", "policy", "--vote", "2/2", *at)).code == 0
            counted: list[bool | None] = []
            for number in range(1, 100):
                await seen.send(enveloped(number, photo(number, "red")))
                counted.append((await seen.answer(photo_id(number))).confirmed)
                if counted[-1]:
                    break
            # Until the policy arrives; then the first answer of the device, then the one that agrees.
            assert [one for one in counted if one is not None] == [False, True]
