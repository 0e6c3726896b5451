from distribu import Shop


async def test_an_order_goes_all_the_way(shop: Shop) -> None:
    await shop.webhook()
    product = await shop.product(stock=10)
    order = await shop.order(await shop.customer(), (product, 3))
    assert order.number == 1001
    await shop.work()
