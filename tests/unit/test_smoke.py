from distribu import Harness


async def test_an_order_goes_all_the_way(shop: Harness) -> None:
    await shop.webhook()
    product = await shop.product(stock=10)
    order = await shop.order(await shop.customer(), (product, 3))
    assert order.number == 1001
    await shop.work()
    assert {one.headers["X-Webhook-Event"] for one in shop.received} >= {"order.created"}
